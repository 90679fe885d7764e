"""Supervisely: `meta.json`, and for DATASET/img/PHOTO the shapes in DATASET/ann/PHOTO.json."""

import base64
import io
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.formats.names import hex_colour, number
from data.formats.source import (
    NO_PHOTO,
    Options,
    Pair,
    Photos,
    Source,
    annotations_in,
    as_written,
    files_in,
    read_json,
)

FORM = "Supervisely JSON"
AREAS = ("bitmap", "polygon", "rectangle")


def find(root: Path, options: Options) -> Source | None:
    """The photos with a file in a folder `ann`, beside or below `meta.json`; None without these.

    Raises:
        DataError: see `number`, or a file is not as Supervisely writes it.
    """
    metas = [path for path in files_in(root) if path.name == "meta.json"]
    paths = annotations_in(root, options, ".json", '"objects"', '"size"')
    paths = [path for path in paths if path.parent.name == "ann"]
    if not metas or not paths:
        return None
    source = Source(FORM, images=len(paths), note="later objects lie on earlier ones")
    photos, labels, used, found = Photos(root / (options.images or "")), {}, set(), {}
    for path in metas:
        with as_written(path, FORM):
            for item in read_json(path)["classes"]:
                labels[item["title"]] = hex_colour(item["color"])
    for path in paths:
        with source.leaving_out_bad(options), as_written(path, FORM):
            data = read_json(path)
            for thing in data["objects"]:
                if thing["geometryType"] in AREAS:
                    used.add(thing["classTitle"])
                else:
                    source.leave_out(f"shape not drawn ({thing['geometryType']})", path.name)
            if photo := photos.find(path.stem, path.parent.parent / "img"):
                found[path] = photo
            else:
                source.leave_out(NO_PHOTO, path.name)
    source.classes, ids = number(labels, used, options, root)
    for path, photo in found.items():
        folder = path.parent.parent.relative_to(root)
        source.add((folder / path.stem).with_suffix(""), partial(_load, path, photo, ids))
    return source


def _load(path: Path, photo: Path, ids: dict[str, int]) -> Pair:
    """The photo, and its objects as Supervisely draws them: outlines included, later on top."""
    data = read_json(path)
    with as_written(path, FORM):
        mask = Image.new("L", (data["size"]["width"], data["size"]["height"]))
        for thing in data["objects"]:
            if thing["geometryType"] in AREAS:
                corner, inside = _inside(thing, mask.size)
                mask.paste(ids[thing["classTitle"]], corner, inside)
        return Pair(photo, np.array(mask))


def _inside(thing: dict, size: tuple[int, int]) -> tuple[tuple[int, int], Image.Image]:
    """The upper left corner of an object, and its pixels as an image of mode 1."""
    if thing["geometryType"] == "bitmap":
        png = zlib.decompress(base64.b64decode(thing["bitmap"]["data"]))
        with Image.open(io.BytesIO(png)) as image:
            cover = image if image.mode in ("1", "L") else image.convert("RGBA").getchannel("A")
            inside = Image.fromarray(np.asarray(cover) > 0)
        return tuple(thing["bitmap"]["origin"]), inside
    inside = Image.new("1", size)
    draw, points = ImageDraw.Draw(inside), thing["points"]
    exterior = [tuple(point) for point in points["exterior"]]
    if thing["geometryType"] == "rectangle":
        (left, right), (top, bottom) = map(sorted, zip(*exterior))
        draw.rectangle((left, top, right, bottom), fill=1)
    else:
        draw.polygon(exterior, fill=1)
        for hole in points.get("interior", []):
            draw.polygon([tuple(point) for point in hole], fill=0)
    return (0, 0), inside
