"""CVAT for images: `annotations.xml` with the shapes of many photos."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, parse

import numpy as np
from PIL import Image, ImageColor

from data import UserError
from data.formats.annotations import Record, Shape, files_with
from data.formats.rasterize import Size, corners, ellipse, polygons, runs, turned
from data.formats.source import Named, Options

NAME, SMALL_ON_TOP = "CVAT XML", False
AREAS, STROKES = ("polygon", "box", "ellipse", "mask"), ("points", "polyline")


def find(root: Path, options: Options) -> list[Path]:
    return files_with(root, options, ".xml", "<annotations>")


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The images of a file of "CVAT for images 1.1", their shapes by z_order, then as they come."""
    tree = parse(path).getroot()
    if tree.find("track") is not None:
        raise UserError(f'{path}: is about a video; export it as "CVAT for images 1.1"')
    for label in tree.iter("label"):
        colour = label.findtext("color")
        labels[label.findtext("name")] = ImageColor.getrgb(colour)[:3] if colour else None
    for image in tree.iter("image"):
        areas = [area for area in image if area.tag != "tag"]  # which is about the whole image
        areas.sort(key=lambda area: int(area.get("z_order", 0)))
        shapes = [Shape(area.tag, area.attrib["label"], area) for area in areas]
        name, size = image.attrib["name"], (image.attrib["height"], image.attrib["width"])
        yield Record(path, path.parent / "images", name, size, shapes)


def draw(area: Element, size: Size) -> Image.Image:
    """An `<image>` child as CVAT draws it."""

    def numbers(*names: str) -> list[float]:
        return [float(area.attrib[name]) for name in names]

    angle = float(area.get("rotation", 0))
    if area.tag == "polygon":
        return polygons([_points(area)], size)
    if area.tag == "box":
        box = corners(numbers("xtl", "ytl"), numbers("xbr", "ybr"))
        return polygons([turned(box, np.mean(box, axis=0), angle)], size)
    if area.tag == "ellipse":
        return ellipse(numbers("cx", "cy"), numbers("rx", "ry"), size, angle)
    height, width = map(int, numbers("height", "width"))
    lengths = [int(length) for length in area.attrib["rle"].split(",")]
    return runs(lengths, (height, width), "C", numbers("left", "top"), size)


def lines(area: Element) -> list[list]:
    """A polyline, or points alone."""
    points = _points(area)
    return [points] if area.tag == "polyline" else [[point] for point in points]


def _points(area: Element) -> list[list[str]]:
    return [point.split(",") for point in area.attrib["points"].split(";")]
