"""CVAT for images: `annotations.xml` with the shapes of many photos."""

from functools import partial
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, parse

import numpy as np

from data import DataError
from data.formats.drawing import polygon, runs
from data.formats.names import hex_colour, number
from data.formats.source import NO_PHOTO, Options, Pair, Photos, Source, annotations_in, as_written

FORM = "CVAT XML"
AREAS = ("polygon", "box", "mask")


def find(root: Path, options: Options) -> Source | None:
    """The images of all XML files of "CVAT for images 1.1"; None if there are none.

    Raises:
        DataError: see `number`, or a file is not as CVAT writes it.
    """
    paths = annotations_in(root, options, ".xml", "<annotations>")
    if not paths:
        return None
    source = Source(FORM, note="shapes lie in the order of their z_order, then of the file")
    photos, labels, used, found = Photos(root / (options.images or "")), {}, set(), []
    for path in paths:
        with as_written(path, FORM):
            tree = parse(path).getroot()
            if tree.find("track") is not None:
                raise DataError(f'{path}: is about a video; export it as "CVAT for images 1.1"')
            for label in tree.iter("label"):
                colour = label.findtext("color")
                labels[label.findtext("name")] = hex_colour(colour) if colour else None
            for image in tree.iter("image"):
                source.images += 1
                areas = []
                for shape in image:
                    kind = f"turned {shape.tag}" if float(shape.get("rotation", 0)) else shape.tag
                    if kind in AREAS:
                        areas.append(shape)
                        used.add(shape.attrib["label"])
                    elif kind != "tag":  # which is about the whole image
                        source.leave_out(f"shape not drawn ({kind})", image.attrib["name"])
                photo = photos.find(image.attrib["name"], path.parent / "images")
                if photo:
                    areas.sort(key=lambda shape: int(shape.get("z_order", 0)))
                    found.append((path, photo, image, areas))
                else:
                    source.leave_out(NO_PHOTO, image.attrib["name"])
    labels |= {name: None for name in sorted(used) if name not in labels}
    source.classes, ids = number(labels, used, options, root)
    for path, photo, image, areas in found:
        name = PurePosixPath(image.attrib["name"]).with_suffix("")
        source.add(name, partial(_load, path, photo, image, areas, ids))
    return source


def _load(
    path: Path, photo: Path, image: Element, areas: list[Element], ids: dict[str, int]
) -> Pair:
    """The photo and its mask; of two shapes of one z_order the later lies on top."""
    with as_written(path, FORM):
        size = int(image.attrib["height"]), int(image.attrib["width"])
        mask = np.zeros(size, dtype=np.uint8)
        for area in areas:
            _draw(mask, area, ids[area.attrib["label"]])
        return Pair(photo, mask)


def _draw(mask: np.ndarray, area: Element, value: int) -> None:
    if area.tag == "polygon":
        points = [point.split(",") for point in area.attrib["points"].split(";")]
        mask[polygon(np.array(points, dtype=float), mask.shape)] = value
    elif area.tag == "box":
        left, top, right, bottom = (
            float(area.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")
        )
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        mask[polygon(corners, mask.shape)] = value
    else:
        left, top, width, height = map(int, _numbers(area, "left", "top", "width", "height"))
        lengths = [int(length) for length in area.attrib["rle"].split(",")]
        inside = runs(lengths, (height, width), order="C")
        mask[top : top + height, left : left + width][inside] = value


def _numbers(area: Element, *names: str) -> list[float]:
    return [float(area.attrib[name]) for name in names]
