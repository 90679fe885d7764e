"""COCO instances: one JSON file, or several with the same categories, for many photos."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data import UserError
from data.formats.annotations import Record, Shape, files_with
from data.formats.rasterize import Size, polygons, runs
from data.formats.source import Named, Options

NAME, SMALL_ON_TOP, AREAS, STROKES = "COCO JSON", True, ("outline",), ()


def find(root: Path, options: Options) -> list[Path]:
    """The files called `instances*.json`, or else all of COCO's kind."""
    paths = files_with(root, options, ".json", '"images"', '"annotations"', '"categories"')
    return [path for path in paths if path.name.startswith("instances")] or paths


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The images of a file. Ids count as text: some programs write numbers, some text."""
    data = json.loads(path.read_bytes())
    categories, images = (_by_id(data[what], path, what) for what in ("categories", "images"))
    ids = sorted(categories, key=lambda key: (len(key), key))  # 2 before 10
    names = {category_id: categories[category_id]["name"] for category_id in ids}
    if labels and list(labels) != list(names.values()):
        raise UserError(
            f"{path}: its categories are others than those of the file before it; "
            "convert one at a time, with --annotations FILE"
        )
    labels |= dict.fromkeys(names.values())
    shapes = defaultdict(list)
    for annotation in data["annotations"]:
        name, outline = names[str(annotation["category_id"])], annotation.get("segmentation")
        kind = "outline" if outline else "no outline"
        name = "void" if annotation.get("iscrowd") else name
        shapes[str(annotation["image_id"])].append(Shape(kind, name, outline))
    for image_id, image in images.items():
        size, name = (image["height"], image["width"]), str(image["file_name"])
        yield Record(path, path.parent, name, size, shapes.pop(image_id, []))
    for image_id in shapes:  # it has no photo, so it is counted among these
        yield Record(path, path.parent, f"image_id {image_id}, not listed", (0, 0), [])


def _by_id(things: list[dict], path: Path, what: str) -> dict[str, dict]:
    found = {str(thing["id"]): thing for thing in things}
    if len(found) < len(things):
        raise UserError(f"{path}: {what} have an id twice; make the ids unique")
    return found


def draw(outline: list | dict, size: Size) -> Image.Image:
    """The pixels of one annotation: polygons, runs or compressed runs."""
    if isinstance(outline, list):
        return polygons([np.reshape(part, (-1, 2)) for part in outline], size)
    counts = outline["counts"]
    counts = counts if isinstance(counts, list) else _decode(counts)
    return runs(counts, size, "F", (0, 0), size)


def _decode(text: str) -> list[int]:
    """Run lengths of compressed ones; source: `rleFrString` in maskApi.c of cocoapi."""
    lengths, value, shift = [], 0, 0
    for letter in text.encode():
        code = letter - 48
        value |= (code & 31) << shift  # five bits a letter, the lowest first
        shift += 5
        if not code & 32:  # the last letter of a number, whose sign is in bit 4
            value -= (code >> 4 & 1) << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value, shift = 0, 0
    return lengths
