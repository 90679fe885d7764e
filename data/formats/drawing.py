"""Shapes of annotations as pixels: each is drawn within its own box, cut off at the photo."""

import io
from collections.abc import Sequence
from math import ceil, cos, radians, sin
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]  # height, width
FARTHEST = 1e7  # coordinates beyond are mistakes, and would take minutes to draw


class Patch(NamedTuple):
    """The pixels of a shape in a part of the photo."""

    top: int
    left: int
    inside: np.ndarray  # (h, w) bool


def paint(mask: np.ndarray, patch: Patch, value: int) -> None:
    """Gives the pixels of a patch in a mask (H, W) a value."""
    height, width = patch.inside.shape
    part = mask[patch.top : patch.top + height, patch.left : patch.left + width]
    part[patch.inside] = value


def polygons(rings: Sequence, size: Size) -> Patch:
    """The pixels whose centres lie in one of several polygons, each by the even-odd rule.

    A polygon has (n, 2) corners x, y; the first pixel reaches from 0 to 1. `outlined` fills the
    pixels on the outline, too: a square of 10 becomes one of 11.
    """
    rings = [np.asarray(ring, dtype=float) for ring in rings]
    top, left, height, width = _box(np.concatenate(rings), size)
    inside = np.zeros((height, width), dtype=bool)
    for ring in rings:
        crossings = np.zeros((height, width + 1), dtype=np.int32)  # of the outline, by first pixel
        corners = ring - (left + 0.5, top + 0.5)  # now a pixel's centre has its indices
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0)):
            first, last = sorted((y1, y2))
            rows = np.arange(max(ceil(first), 0), min(ceil(last), height))
            if rows.size:
                columns = np.ceil(x1 + (rows - y1) * (x2 - x1) / (y2 - y1))
                crossings[rows, columns.clip(0, width).astype(int)] += 1
        inside |= crossings.cumsum(axis=1)[:, :width] % 2 == 1
    return Patch(top, left, inside)


def outlined(points: Sequence, size: Size, holes: Sequence = ()) -> Patch:
    """A polygon with its outline, as Pillow draws it; a point is the pixel that it is in."""
    top, left, height, width = _box(points, size)
    image = Image.new("1", (width, height))
    pen = ImageDraw.Draw(image)
    for ring, fill in [(points, 1), *((hole, 0) for hole in holes)]:
        pen.polygon([(int(x) - left, int(y) - top) for x, y in ring], fill=fill)
    return Patch(top, left, np.asarray(image))


def corners(points: Sequence) -> list[tuple[int, int]]:
    """The four pixels at the corners of a box, of which two opposite ones are given."""
    (left, right), (top, bottom) = (sorted(map(int, side)) for side in zip(*points))
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def ellipse(centre: Sequence, radii: Sequence, size: Size, angle: float = 0.0) -> Patch:
    """The pixels whose centres lie in an ellipse, turned clockwise by an angle in degrees."""
    centre = np.asarray(centre, dtype=float)
    top, left, height, width = _box([centre - max(radii), centre + max(radii)], size)
    y, x = np.mgrid[top : top + height, left : left + width] + 0.5
    away = turned(np.stack([x, y], axis=-1), centre, -angle) - centre  # along both radii
    return Patch(top, left, ((away / radii) ** 2).sum(axis=-1) <= 1)


def turned(points: Sequence, centre: Sequence, angle: float) -> np.ndarray:
    """Points (.., 2) turned clockwise around a centre; the angle is in degrees."""
    sine, cosine = sin(radians(angle)), cos(radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y points down
    return (np.asarray(points, dtype=float) - centre) @ turn + centre


def runs(lengths: Sequence[int], shape: Size, order: str, corner: Sequence, size: Size) -> Patch:
    """The pixels that run lengths give: pixels outside, inside, outside, ..

    Args:
        lengths: they add up to all pixels of the shape.
        shape: (height, width) of what they describe.
        order: "C" if they go along rows, "F" along columns.
        corner: x, y of its upper left pixel in the photo.
        size: of the photo.
    """
    if min(lengths) < 0 or sum(lengths) != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {sum(lengths)} pixels for {shape[1]}x{shape[0]}")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape, order=order)
    return _cut_out(inside, corner, size)


def picture(data: bytes, corner: Sequence, size: Size) -> Patch:
    """The pixels of a PNG that are not transparent, or not black, its upper left at `corner`."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        clear = image.has_transparency_data
        cover = image.convert("RGBA").getchannel("A") if clear else image.convert("L")
    return _cut_out(np.asarray(cover) > 0, corner, size)


def _box(points: Sequence, size: Size) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part of the photo that points may cover."""
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    if len(points) < 2 or not (abs(points) < FARTHEST).all():
        raise ValueError("a shape of fewer than 2 points, or a coordinate that is no number")
    left, top = np.floor(points.min(0)).clip(0, size[::-1]).astype(int).tolist()
    right, bottom = np.ceil(points.max(0) + 1).clip(0, size[::-1]).astype(int).tolist()
    return top, left, bottom - top, right - left


def _cut_out(inside: np.ndarray, corner: Sequence, size: Size) -> Patch:
    """What lies in the photo, and is not empty, of a mask whose upper left pixel is at x, y."""
    (left, top), (height, width) = map(int, corner), size
    inside = inside[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    y, x = (np.flatnonzero(inside.any(axis)) if inside.size else np.array([]) for axis in (1, 0))
    if not x.size:
        return Patch(0, 0, np.zeros((0, 0), dtype=bool))
    inside = inside[y[0] : y[-1] + 1, x[0] : x[-1] + 1].copy()  # lets go of the rest
    return Patch(int(max(top, 0) + y[0]), int(max(left, 0) + x[0]), inside)
