"""Shapes of annotations as pixels: each within a window of the photo, cut off at its edges."""

import io
from collections.abc import Sequence
from math import ceil, cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]  # height, width
Drawn = tuple[tuple[slice, slice], np.ndarray]  # rows and columns of a window; (h, w) bool in it
FARTHEST = 1e7  # coordinates beyond are mistakes, and would take minutes to draw


def polygons(rings: Sequence, size: Size) -> Drawn:
    """The pixels whose centres lie in one of several polygons, each by the even-odd rule.

    A polygon has (n, 2) corners x, y; the first pixel reaches from 0 to 1. `outlined` fills the
    pixels on the outline, too: a square of 10 becomes one of 11.
    """
    rings = [np.asarray(ring, dtype=float) for ring in rings]
    rows, columns = window = _window(np.concatenate(rings), size)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    inside = np.zeros((height, width), dtype=bool)
    for ring in rings:
        crossings = np.zeros((height, width + 1), dtype=np.int32)  # of the outline, by first pixel
        ends = ring - (
            columns.start + 0.5,
            rows.start + 0.5,
        )  # now a centre has its pixel's indices
        for (x1, y1), (x2, y2) in zip(ends, np.roll(ends, -1, axis=0)):
            first, last = sorted((y1, y2))
            crossed = np.arange(max(ceil(first), 0), min(ceil(last), height))
            if crossed.size:
                x = np.ceil(x1 + (crossed - y1) * (x2 - x1) / (y2 - y1))
                crossings[crossed, x.clip(0, width).astype(int)] += 1
        inside |= crossings.cumsum(axis=1)[:, :width] % 2 == 1
    return window, inside


def outlined(points: Sequence, size: Size, holes: Sequence = ()) -> Drawn:
    """A polygon with its outline, as Pillow draws it; a point x, y is the pixel that it is in."""
    rows, columns = window = _window([points, np.add(points, 1)], size)
    image = Image.new("1", (columns.stop - columns.start, rows.stop - rows.start))
    pen = ImageDraw.Draw(image)
    for ring, fill in [(points, 1), *((hole, 0) for hole in holes)]:
        pen.polygon([(int(x) - columns.start, int(y) - rows.start) for x, y in ring], fill=fill)
    return window, np.asarray(image)


def corners(first: Sequence, opposite: Sequence) -> list[tuple[float, float]]:
    """The four corners x, y of an upright box, of which two opposite ones are given."""
    (x1, y1), (x2, y2) = first, opposite
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def ellipse(centre: Sequence, radii: Sequence, size: Size, angle: float = 0.0) -> Drawn:
    """The pixels whose centres lie in an ellipse, turned clockwise by an angle in degrees."""
    centre = np.asarray(centre, dtype=float)
    window = _window([centre - max(radii), centre + max(radii)], size)
    y, x = np.mgrid[window] + 0.5
    away = turned(np.stack([x, y], axis=-1), centre, -angle) - centre  # along both radii
    return window, ((away / radii) ** 2).sum(axis=-1) <= 1


def turned(points: Sequence, centre: Sequence, angle: float) -> np.ndarray:
    """Points (.., 2) turned clockwise around a centre; the angle is in degrees."""
    sine, cosine = sin(radians(angle)), cos(radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y points down
    return (np.asarray(points, dtype=float) - centre) @ turn + centre


def runs(lengths: Sequence[int], shape: Size, order: str, corner: Sequence, size: Size) -> Drawn:
    """The pixels that run lengths give: pixels outside, inside, outside, ..

    Args:
        lengths: they add up to all pixels of the shape.
        shape: (height, width) of what they describe.
        order: "C" if they go along rows, "F" along columns.
        corner: x, y of its upper left pixel in the photo.
        size: of the photo.
    """
    if sum(lengths) != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {sum(lengths)} pixels for {shape[1]}x{shape[0]}")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape, order=order)
    return _cut_out(inside, corner, size)


def picture(data: bytes, corner: Sequence, size: Size) -> Drawn:
    """The pixels of a PNG that are not transparent, or not black, its upper left at `corner`."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        clear = image.has_transparency_data
        cover = image.convert("RGBA").getchannel("A") if clear else image.convert("L")
    return _cut_out(np.asarray(cover) > 0, corner, size)


def _window(points: Sequence, size: Size) -> tuple[slice, slice]:
    """Rows and columns of the part of the photo that reaches as far as some points x, y."""
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    if not (abs(points) < FARTHEST).all():
        raise ValueError("a coordinate that is no number, or too large")
    ends = np.floor(points.min(0)), np.ceil(points.max(0))
    (left, top), (right, bottom) = np.clip(ends, 0, size[::-1]).astype(int).tolist()
    return slice(top, bottom), slice(left, right)


def _cut_out(inside: np.ndarray, corner: Sequence, size: Size) -> Drawn:
    """What is not empty, and in the photo, of a mask whose upper left pixel is at x, y."""
    left, top, right, bottom = Image.fromarray(inside).getbbox() or (0, 0, 0, 0)
    x, y = map(int, corner)
    rows, columns = window = _window([(x + left, y + top), (x + right, y + bottom)], size)
    inside = inside[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return window, inside.copy()  # lets go of the rest
