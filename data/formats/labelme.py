"""LabelMe: a JSON file for each photo, with its shapes and perhaps the photo itself."""

import base64
import io
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.formats.names import number
from data.formats.source import (
    NO_PHOTO,
    Options,
    Pair,
    Photos,
    Source,
    annotations_in,
    as_written,
    read_json,
)

FORM = "LabelMe JSON"
AREAS = ("polygon", "oriented_rectangle", "rectangle", "circle", "mask")  # types of shapes


def find(root: Path, options: Options) -> Source | None:
    """The photos with a JSON file of LabelMe; None if there is no such file.

    Photos lie where `imagePath` says, or anywhere under that name, or else in the JSON file.

    Raises:
        DataError: see `number`, or a file is not as LabelMe writes it.
    """
    paths = annotations_in(root, options, ".json", '"shapes"', '"imagePath"')
    if not paths:
        return None
    source = Source(FORM, images=len(paths), note="later shapes lie on earlier ones")
    photos, labels = Photos(root / (options.images or "")), set()
    found: dict[Path, Path | None] = {}
    for path in paths:
        with source.leaving_out_bad(options), as_written(path, FORM):
            data = read_json(path)
            for shape in data["shapes"]:
                kind = shape.get("shape_type", "polygon")
                if kind in AREAS:
                    labels.add(shape["label"])
                else:
                    source.leave_out(f"shape not drawn ({kind})", path.name)
            photo = photos.find(data["imagePath"], path.parent)
            if photo or data.get("imageData"):
                found[path] = photo
            else:
                source.leave_out(NO_PHOTO, path.name)
    source.classes, ids = number(dict.fromkeys(sorted(labels)), labels, options, root)
    folder = os.path.commonpath([path.parent for path in paths])
    for path, photo in found.items():
        source.add(path.relative_to(folder).with_suffix(""), partial(_load, path, photo, ids))
    return source


def _load(path: Path, photo: Path | None, ids: dict[str, int]) -> Pair:
    """The photo, and the shapes as LabelMe itself draws them: outlines included, later on top."""
    data = read_json(path)
    with as_written(path, FORM):
        mask = Image.new("L", (data["imageWidth"], data["imageHeight"]))
        for shape in data["shapes"]:
            if shape.get("shape_type", "polygon") in AREAS:
                _draw(mask, shape, ids[shape["label"]])
        return Pair(photo or base64.b64decode(data["imageData"]), np.array(mask))


def _draw(mask: Image.Image, shape: dict, value: int) -> None:
    draw, kind = ImageDraw.Draw(mask), shape.get("shape_type", "polygon")
    points = [tuple(point) for point in shape["points"]]
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value, outline=value)
    elif kind == "rectangle":
        (left, right), (top, bottom) = map(sorted, zip(*points))
        draw.rectangle((left, top, right, bottom), fill=value, outline=value)
    elif kind == "mask":  # a PNG of 0 and 1 whose corner lies at the first point
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as cover:
            inside = Image.fromarray(np.asarray(cover.convert("L")) > 0)
        mask.paste(value, tuple(int(place) for place in points[0]), inside)
    else:
        draw.polygon(points, fill=value, outline=value)
