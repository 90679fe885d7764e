"""Supervisely: `meta.json`, and for DATASET/img/PHOTO the shapes in DATASET/ann/PHOTO.json."""

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageColor

from data.formats.annotations import Record, Shape, files_with
from data.formats.rasterize import Size, corners, outlined, picture
from data.formats.source import Named, Options, files_in

NAME, SMALL_ON_TOP = "Supervisely JSON", False
AREAS, STROKES = ("bitmap", "polygon", "rectangle"), ("point", "line")


def find(root: Path, options: Options) -> list[Path]:
    """`meta.json`, which lists the classes, and the files in folders `ann`; both must be there."""
    metas = [path for path in files_in(root) if path.name == "meta.json"]
    paths = files_with(root, options, ".json", '"objects"', '"size"')
    paths = [path for path in paths if path.parent.name == "ann"]
    return metas + paths if metas and paths else []


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The photo of a file; of a `meta.json` the classes."""
    data = json.loads(path.read_bytes())
    if path.name == "meta.json":
        labels |= {item["title"]: ImageColor.getrgb(item["color"])[:3] for item in data["classes"]}
        return
    shapes = [Shape(thing["geometryType"], thing["classTitle"], thing) for thing in data["objects"]]
    folder, size = path.parent.parent, (data["size"]["height"], data["size"]["width"])
    yield Record(path, folder / "img", path.stem, size, shapes)


def draw(thing: dict, size: Size) -> Image.Image:
    """As Supervisely draws, outlines included."""
    kind = thing["geometryType"]
    if kind == "bitmap":
        packed = base64.b64decode(thing["bitmap"]["data"])
        return picture(zlib.decompress(packed), thing["bitmap"]["origin"], size)
    outline, holes = thing["points"]["exterior"], thing["points"].get("interior", ())
    return outlined(corners(*outline) if kind == "rectangle" else outline, size, holes)


def lines(thing: dict) -> list[list]:
    """The line, or the point."""
    return [thing["points"]["exterior"]]
