"""Shapes of annotations as pixels of their photo: (H, W) bool, cut off at its edges."""

import io
from collections.abc import Sequence
from math import ceil, cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]  # height, width
FARTHEST = 1e7  # coordinates beyond are mistakes, and would take minutes to draw


def polygons(rings: Sequence, size: Size) -> np.ndarray:
    """The pixels whose centres lie in one of several polygons, each by the even-odd rule.

    A polygon has (n, 2) corners x, y; the first pixel reaches from 0 to 1. `outlined` fills the
    pixels on the outline, too: a square of 10 becomes one of 11.
    """
    height, width = size
    inside = np.zeros(size, dtype=bool)
    for ring in rings:
        crossings = np.zeros((height, width + 1), dtype=bool)  # odd ones of the outline, by pixel
        ends = _points(ring) - 0.5  # now a centre has its pixel's indices
        for (x1, y1), (x2, y2) in zip(ends, np.roll(ends, -1, axis=0)):
            first, last = sorted((y1, y2))
            rows = np.arange(max(ceil(first), 0), min(ceil(last), height))
            if rows.size:
                x = np.ceil(x1 + (rows - y1) * (x2 - x1) / (y2 - y1))
                crossings[rows, x.clip(0, width).astype(int)] ^= True
        crossed = slice(*np.clip([ends[:, 1].min(), ends[:, 1].max() + 1], 0, height).astype(int))
        inside[crossed] |= np.logical_xor.accumulate(crossings[crossed], axis=1)[:, :width]
    return inside


def outlined(points: Sequence, size: Size, holes: Sequence = ()) -> np.ndarray:
    """A polygon with its outline, as Pillow draws it; a point x, y is the pixel that it is in."""
    image = Image.new("L", size[::-1])
    for ring, fill in [(points, 1), *((hole, 0) for hole in holes)]:
        ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in _points(ring)], fill=fill)
    return np.asarray(image) > 0


def corners(first: Sequence, opposite: Sequence) -> list[tuple[float, float]]:
    """The four corners x, y of an upright box, of which two opposite ones are given."""
    (x1, y1), (x2, y2) = first, opposite
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def ellipse(centre: Sequence, radii: Sequence, size: Size, angle: float = 0.0) -> np.ndarray:
    """The pixels whose centres lie in an ellipse, turned clockwise by an angle in degrees."""
    centre, radii = _points([centre, radii])
    ends = [centre - max(radii), centre + max(radii) + 1]
    (left, top), (right, bottom) = np.clip(ends, 0, size[::-1]).astype(int)
    y, x = np.ogrid[top:bottom, left:right]
    x, y = x + 0.5 - centre[0], y + 0.5 - centre[1]
    sine, cosine = sin(radians(angle)), cos(radians(angle))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    inside = np.zeros(size, dtype=bool)
    inside[top:bottom, left:right] = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    return inside


def turned(points: Sequence, centre: Sequence, angle: float) -> np.ndarray:
    """Points (.., 2) turned clockwise around a centre; the angle is in degrees."""
    sine, cosine = sin(radians(angle)), cos(radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y points down
    return (np.asarray(points, dtype=float) - centre) @ turn + centre


def runs(
    lengths: Sequence[int], shape: Size, order: str, corner: Sequence, size: Size
) -> np.ndarray:
    """The pixels, (H, W) bool, that run lengths give: pixels outside, inside, outside, ..

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
    return _placed(inside, corner, size)


def picture(data: bytes, corner: Sequence, size: Size) -> np.ndarray:
    """The pixels of a PNG that are not transparent, or not black, its upper left at `corner`."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        clear = image.has_transparency_data
        cover = image.convert("RGBA").getchannel("A") if clear else image.convert("L")
    return _placed(np.asarray(cover) > 0, corner, size)


def _placed(inside: np.ndarray, corner: Sequence, size: Size) -> np.ndarray:
    """A mask in its photo, where its upper left pixel is at x, y."""
    image, (x, y) = Image.new("1", size[::-1]), map(int, corner)
    image.paste(Image.fromarray(inside), (x, y))
    return np.asarray(image)


def _points(points: Sequence) -> np.ndarray:
    """(n, 2) float64."""
    points = np.asarray(points, dtype=float)
    if not (abs(points) < FARTHEST).all():
        raise ValueError("a coordinate that is no number, or too large")
    return points
