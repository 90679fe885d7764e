"""Shapes of annotations as pixels: black images of their photo's size, not black in the shape."""

import io
from collections.abc import Sequence
from math import ceil, cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]  # height, width


def polygons(rings: Sequence, size: Size) -> Image.Image:
    """The pixels whose centres lie in one of several polygons, each by the even-odd rule.

    A polygon has (n, 2) corners x, y; the first pixel reaches from 0 to 1. `outlined` fills the
    pixels on the outline, too: a square of 10 becomes one of 11.
    """
    rings = [_checked(ring) for ring in rings]
    points = np.concatenate(rings)
    ends = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    (left, top), (right, bottom) = np.clip(ends, 0, size[::-1]).astype(int)
    inside = np.zeros((bottom - top, right - left), dtype=bool)
    for ring in rings:
        # Whether the outline crosses a row an odd number of times just before a pixel.
        crossings = np.zeros((bottom - top, right - left + 1), dtype=bool)
        ends = ring - 0.5  # now a centre has its pixel's indices
        for (x1, y1), (x2, y2) in zip(ends, np.roll(ends, -1, axis=0)):
            first, last = sorted((y1, y2))
            rows = np.arange(max(ceil(first), top), min(ceil(last), bottom))
            if rows.size:
                x = np.ceil(x1 + (rows - y1) * (x2 - x1) / (y2 - y1)).clip(left, right)
                crossings[rows - top, x.astype(int) - left] ^= True
        inside |= np.logical_xor.accumulate(crossings, axis=1)[:, :-1]
    return _placed(inside, (left, top), size)


def outlined(points: Sequence, size: Size, holes: Sequence = ()) -> Image.Image:
    """A polygon with its outline, as Pillow draws it; a point x, y is the pixel that it is in."""
    image = Image.new("L", size[::-1])
    for ring, fill in [(points, 1), *((hole, 0) for hole in holes)]:
        ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in _checked(ring)], fill=fill)
    return image


def stroke(lines: Sequence, width: float, size: Size) -> Image.Image:
    """The pixels whose centres are at most half a width from lines; a line of one point is a disc.

    A line has (n, 2) points x, y. However thin, it is drawn without gaps.
    """
    reach, image = max(width, 2**0.5) / 2, Image.new("L", size[::-1])
    for points in map(_checked, lines):
        for start, end in zip(points, points[1:] if len(points) > 1 else points):
            ends = np.stack([start, end])
            near = np.floor(ends.min(axis=0) - reach), np.ceil(ends.max(axis=0) + reach)
            (left, top), (right, bottom) = np.clip(near, 0, size[::-1]).astype(int)
            rows, columns = np.mgrid[top:bottom, left:right]
            centres = np.stack([columns, rows], axis=-1) + 0.5 - start
            along = end - start
            share = (centres @ along / max(along @ along, 1e-9)).clip(0, 1)  # of the line's length
            inside = np.hypot(*np.moveaxis(centres - share[..., None] * along, -1, 0)) <= reach
            image.paste(255, (int(left), int(top)), Image.fromarray(inside).convert("L"))
    return image


def _checked(ring: Sequence) -> np.ndarray:
    """Corners (n, 2) float64, which are numbers that Pillow can draw."""
    points = np.asarray(ring, dtype=float)
    if not (np.abs(points) < 1e7).all():
        raise ValueError("a coordinate that is no number, or is beyond all photos")
    return points


def corners(first: Sequence, opposite: Sequence) -> list[tuple[float, float]]:
    """The four corners x, y of an upright box, of which two opposite ones are given."""
    (x1, y1), (x2, y2) = first, opposite
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def ellipse(centre: Sequence, radii: Sequence, size: Size, angle: float = 0.0) -> Image.Image:
    """An ellipse turned clockwise by an angle in degrees, as a polygon of 360 corners."""
    around = np.radians(np.arange(360))
    ring = np.stack([np.cos(around), np.sin(around)], axis=1) * radii + centre
    return polygons([turned(ring, centre, angle)], size)


def turned(points: Sequence, centre: Sequence, angle: float) -> np.ndarray:
    """Points (.., 2) turned clockwise around a centre; the angle is in degrees."""
    sine, cosine = sin(radians(angle)), cos(radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y points down
    return (np.asarray(points, dtype=float) - centre) @ turn + centre


def runs(
    lengths: Sequence[int], shape: Size, order: str, corner: Sequence, size: Size
) -> Image.Image:
    """The pixels that run lengths give, outside, inside, outside, .., of a box of (height, width).

    They go along rows (order "C") or columns ("F") of the box, whose upper left pixel lies at x, y.
    """
    if sum(lengths) != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {sum(lengths)} pixels for {shape[1]}x{shape[0]}")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape, order=order)
    return _placed(inside, corner, size)


def picture(data: bytes, corner: Sequence, size: Size) -> Image.Image:
    """The pixels of a PNG that are not transparent, or not black, its upper left at `corner`."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        clear = image.has_transparency_data
        cover = image.convert("RGBA").getchannel("A") if clear else image.convert("L")
    return _placed(np.asarray(cover) > 0, corner, size)


def _placed(inside: np.ndarray, corner: Sequence, size: Size) -> Image.Image:
    """A mask (h, w) bool in its photo, where its upper left pixel is at x, y."""
    image, (x, y) = Image.new("L", size[::-1]), map(int, corner)
    image.paste(Image.fromarray(inside), (x, y))
    return image
