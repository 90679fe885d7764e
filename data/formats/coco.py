"""COCO instances: JSON files of many photos; classes are the same if they have one name."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np

from data import UserError
from data.formats.annotations import Record, Shape, files_with, name_of, numbers
from data.formats.rasterize import Area, Size, decompress, polygons, runs
from data.formats.source import Named

NAME = "COCO JSON"


def find(files: Iterable[Path]) -> list[Path]:
    """The files called `instances*.json`, or else all of COCO's kind."""
    paths = files_with(".json", ('"images"', '"annotations"', '"categories"'), files)
    return [path for path in paths if path.name.startswith("instances")] or paths


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The images of a file. Ids count as text: some programs write numbers, some text."""
    data = json.loads(path.read_bytes())
    names = {str(thing["id"]): name_of(thing["name"]) for thing in data["categories"]}
    images = {str(thing["id"]): thing for thing in data["images"]}
    for what, found in (("categories", names), ("images", images)):
        if len(found) < len(data[what]):
            raise UserError(f"{path}: {what} have an id twice; make the ids unique")
    labels |= dict.fromkeys(names.values())
    shapes = defaultdict(list)
    for thing in data["annotations"]:
        label = names[str(thing["category_id"])]
        # CVAT and V7, which write further keys, call what has runs or parts a crowd.
        is_crowd = thing.get("iscrowd") and not {"attributes", "extra"} & thing.keys()
        label = "void" if is_crowd else label
        area, shape = _shape(label, thing)
        rank = -np.inf if is_crowd else -area  # smaller ones lie on larger, and crowds beneath all
        shapes[str(thing["image_id"])].append((rank, shape))
    for image_id, image in images.items():
        size, own = (image.get("height"), image.get("width")), shapes.pop(image_id, [])
        own.sort(key=itemgetter(0))
        yield Record(path, image["file_name"], size, [shape for _, shape in own])
    for image_id in shapes:  # it has no photo, so it is counted among these
        yield Record(path, f"image_id {image_id}, not listed", None, [])


def _shape(label: str, thing: dict) -> tuple[float, Shape]:
    """An annotation, and its area: polygons, runs, compressed or not; or a box, or keypoints."""
    outline = thing.get("segmentation")
    if not any(outline or ()):
        return 0, Shape("keypoints" if thing.get("keypoints") else "no outline", label)
    if isinstance(outline, list):
        outline = outline if isinstance(outline[0], list) else [outline]  # VIA once wrote one flat
        rings = [numbers(part).reshape(-1, 2) for part in outline]
        corners = np.concatenate(rings)
        if corners.min() >= 0 and corners.max() <= 1:
            return 0, Shape("coordinates from 0 to 1, not in pixels", label)
        twice = (x @ np.roll(y, 1) - y @ np.roll(x, 1) for x, y in (ring.T for ring in rings))
        return sum(map(abs, twice)) / 2, Shape("polygon", label, partial(polygons, rings))
    counts, own = outline["counts"], tuple(outline["size"])
    counts = counts if isinstance(counts, list) else decompress(counts)

    def area(size: Size) -> Area:
        if own != size:
            raise ValueError(f"runs of {own[1]}x{own[0]} pixels for {size[1]}x{size[0]}")
        return (0, 0), runs(counts, size, "F")

    return sum(counts[1::2]), Shape("runs", label, area)
