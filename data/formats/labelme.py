"""LabelMe: a JSON file for each photo, with its shapes."""

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data.formats.annotations import Record, Shape, files_with
from data.formats.rasterize import Size, corners, ellipse, outlined, picture
from data.formats.source import Named, Options

NAME, SMALL_ON_TOP = "LabelMe JSON", False
AREAS = ("polygon", "oriented_rectangle", "rotation", "rectangle", "circle", "mask")
STROKES = ("point", "points", "line", "linestrip")


def find(root: Path, options: Options) -> list[Path]:
    return files_with(root, options, ".json", '"shapes"', '"imagePath"')


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The photo of a file, which lies where `imagePath` says, or anywhere."""
    data = json.loads(path.read_bytes())
    shapes = [
        Shape(shape.get("shape_type") or "polygon", shape["label"], shape)
        for shape in data["shapes"]
    ]
    size = data["imageHeight"], data["imageWidth"]
    yield Record(path, path.parent, str(data["imagePath"]), size, shapes)


def draw(shape: dict, size: Size) -> Image.Image:
    """As LabelMe itself draws, outlines included."""
    kind, points = shape.get("shape_type"), shape["points"]
    if kind == "circle":  # its centre, and a point on the edge
        radius = math.dist(*points) + 0.5
        return ellipse(np.floor(points[0]) + 0.5, (radius, radius), size)
    if kind == "mask":  # a PNG of 0 and 1 whose corner lies at the first point
        return picture(base64.b64decode(shape["mask"]), points[0], size)
    return outlined(corners(*points) if kind == "rectangle" else points, size)


def lines(shape: dict) -> list[list]:
    """A line through its points, or as many points alone."""
    points = shape["points"]
    return [[point] for point in points] if shape["shape_type"].startswith("point") else [points]
