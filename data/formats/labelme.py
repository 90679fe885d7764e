"""LabelMe: a JSON file for each photo, with its shapes, drawn as LabelMe itself draws them."""

import base64
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from data.formats.annotations import Record, Shape, files_with, name_of, numbers
from data.formats.rasterize import box, ellipse, outlined, picture, placed, polygons
from data.formats.source import Named

NAME = "LabelMe JSON"
find = partial(files_with, ".json", ('"shapes"', '"imagePath"'))


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The photo of a file, which lies where `imagePath` says, or anywhere."""
    data = json.loads(path.read_bytes())
    size = data.get("imageHeight"), data.get("imageWidth")
    shapes = list(map(_shape, data["shapes"]))
    yield Record(path, data["imagePath"], size, shapes)


def _shape(shape: dict) -> Shape:
    """Shapes of one kind, `shape_type`; without it polygons."""
    kind, label = shape.get("shape_type") or "polygon", name_of(shape["label"])
    points = numbers(shape["points"])
    match kind:
        case "polygon" | "oriented_rectangle" | "rotation":
            return Shape(kind, label, partial(outlined, points, ()))
        case "rectangle":
            corners = points if len(points) > 2 else box(*points)  # X-AnyLabeling writes all four
            return Shape(kind, label, partial(outlined, corners, ()))
        case "circle":  # its centre, and a point on the edge
            radius = math.dist(*points) + 0.5
            ring = ellipse(np.floor(points[0]) + 0.5, (radius, radius))
            return Shape(kind, label, partial(polygons, [ring]))
        case "mask":  # a PNG of 0 and 1 whose corner lies at the first point
            data = base64.b64decode(shape["mask"])
            return Shape(kind, label, lambda size: placed(picture(data), points[0], size))
        case "point" | "points":
            return Shape(kind, label, lines=list(points[:, None]))
        case "line" | "linestrip":
            return Shape(kind, label, lines=[points])
    return Shape(kind, label)
