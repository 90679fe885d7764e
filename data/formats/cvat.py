"""CVAT for images: `annotations.xml` with the shapes of many photos."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, parse

import numpy as np
from PIL import ImageColor

from data import UserError
from data.formats.annotations import Record, Shape, files_with, name_of, numbers
from data.formats.rasterize import box, ellipse, placed, polygons, runs, turned
from data.formats.source import Named

NAME = "CVAT XML"
find = partial(files_with, ".xml", ["<annotations>"])


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The images of a file of "CVAT for images 1.1", their shapes by z_order, then as they come."""
    tree = parse(path).getroot()
    if tree.find("track") is not None:
        raise UserError(f'{path}: is about a video; export it as "CVAT for images 1.1"')
    for label in tree.iter("label"):
        colour = label.findtext("color")
        labels[name_of(label.findtext("name"))] = ImageColor.getrgb(colour)[:3] if colour else None
    for image in tree.iter("image"):
        things = [thing for thing in image if thing.tag != "tag"]  # which is about the whole image
        things.sort(key=lambda thing: int(thing.get("z_order", 0)))
        place = path.parent / "images" / image.get("subset", "")
        folder = next(filter(Path.is_dir, (place, place.parent, path.parent)))
        name = f"{folder.relative_to(path.parent).as_posix()}/{image.attrib['name']}"
        size, shapes = (image.attrib["height"], image.attrib["width"]), list(map(_shape, things))
        yield Record(path, name, size, shapes)


def _shape(thing: Element) -> Shape:
    """An `<image>` child as CVAT draws it."""
    kind, label = thing.tag, name_of(thing.attrib["label"])
    angle = float(numbers(thing.get("rotation", 0)))

    def pair(*names: str) -> np.ndarray:
        return numbers([thing.attrib[name] for name in names])

    match kind:
        case "polygon":
            return Shape(kind, label, partial(polygons, [_points(thing)]))
        case "box":
            ring = turned(box(pair("xtl", "ytl"), pair("xbr", "ybr")), angle)
            return Shape(kind, label, partial(polygons, [ring]))
        case "ellipse":
            ring = turned(ellipse(pair("cx", "cy"), pair("rx", "ry")), angle)
            return Shape(kind, label, partial(polygons, [ring]))
        case "mask":
            lengths = [int(length) for length in thing.attrib["rle"].split(",")]
            own, corner = pair("height", "width").astype(int), pair("left", "top")
            return Shape(kind, label, lambda size: placed(runs(lengths, own, "C"), corner, size))
        case "polyline":
            return Shape(kind, label, lines=[_points(thing)])
        case "points":
            return Shape(kind, label, lines=list(_points(thing)[:, None]))
    return Shape(kind, label)


def _points(thing: Element) -> np.ndarray:
    return numbers([point.split(",") for point in thing.attrib["points"].split(";")])
