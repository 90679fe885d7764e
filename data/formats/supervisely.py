"""Supervisely: `meta.json`, and for DATASET/img/PHOTO the shapes in DATASET/ann/PHOTO.json."""

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import ImageColor

from data.formats.annotations import Record, Shape, files_with, name_of, numbers
from data.formats.rasterize import box, outlined, picture, placed
from data.formats.source import Named

NAME = "Supervisely JSON"
LARGEST = 10**8  # bytes of an unpacked bitmap, which is a PNG


def find(files: Sequence[Path]) -> list[Path]:
    """The files in folders `ann`, behind what tells the colours of classes."""
    things = [path for path in files if path.parent.name == "ann"]
    things = files_with(".json", ('"objects"', '"size"'), things)
    metas = [path for path in files if things and path.name == "meta.json"]
    return files_with(".json", ['"classes"'], metas) + things


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The photo of a file; of a `meta.json` the classes."""
    data = json.loads(path.read_bytes())
    if path.name == "meta.json":
        for item in data["classes"]:
            labels[name_of(item["title"])] = ImageColor.getrgb(item["color"])[:3]
        return
    shapes, size = [_shape(thing) for thing in data["objects"]], data["size"]
    yield Record(path, f"../img/{path.stem}", (size["height"], size["width"]), shapes)


def _shape(thing: dict) -> Shape:
    """As Supervisely draws, outlines included."""
    kind, label = thing["geometryType"], name_of(thing["classTitle"])
    if kind == "bitmap":
        packed, corner = base64.b64decode(thing["bitmap"]["data"]), thing["bitmap"]["origin"]
        data = zlib.decompressobj().decompress(packed, LARGEST)
        return Shape(kind, label, lambda size: placed(picture(data), numbers(corner), size))
    if kind not in ("polygon", "rectangle", "point", "line"):
        return Shape(kind, label)
    outline = numbers(thing["points"]["exterior"])
    if kind in ("point", "line"):
        return Shape(kind, label, lines=[outline])
    outline = box(*outline) if kind == "rectangle" else outline
    holes = [numbers(hole) for hole in thing["points"].get("interior", ())]
    return Shape(kind, label, partial(outlined, outline, holes))
