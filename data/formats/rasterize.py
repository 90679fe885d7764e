"""Shapes of annotations as pixels, areas in a box of their own: photos may be large."""

import io
from collections.abc import Sequence
from math import ceil, cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]  # height, width
Area = tuple[tuple[int, int], np.ndarray]  # x, y of its box in the photo; (h, w) bool, the box


def polygons(rings: Sequence[np.ndarray], size: Size) -> Area:
    """The pixels whose centres lie in one of several polygons, each by the even-odd rule.

    A polygon has (n, 2) corners x, y; the first pixel reaches from 0 to 1. `outlined` fills the
    pixels on the outline, too: a square of 10 becomes one of 11.
    """
    left, top, right, bottom = _box(np.concatenate(rings), size)
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
    return (left, top), inside


def outlined(ring: np.ndarray, holes: Sequence[np.ndarray], size: Size) -> Area:
    """A polygon with its outline, as Pillow draws it; a point x, y is the pixel that it is in."""
    left, top, right, bottom = _box(ring, size)
    image = Image.new("1", (right - left, bottom - top))
    for points in (ring, *holes):
        corners = (np.trunc(points) - (left, top)).ravel().tolist()
        ImageDraw.Draw(image).polygon(corners, fill=points is ring)
    return (left, top), np.asarray(image)


def stroke(lines: Sequence[np.ndarray], width: float, size: Size) -> Area:
    """The pixels whose centres are at most half a width from lines.

    A line has (n, 2) points x, y; one of one point is a disc. However thin, it has no gaps.
    """
    reach = max(width, 2**0.5) / 2
    left, top, right, bottom = _box(np.concatenate(lines), size, reach)
    inside = np.zeros((bottom - top, right - left), dtype=bool)
    for points in lines:
        for start, end in zip(points, points[1:] if len(points) > 1 else points):
            x1, y1, x2, y2 = _box(np.stack([start, end]), size, reach)
            rows, columns = np.mgrid[y1:y2, x1:x2]
            centres = np.stack([columns, rows], axis=-1) + 0.5 - start
            along = end - start
            share = (centres @ along / max(along @ along, 1e-9)).clip(0, 1)  # of the line's length
            distance = np.hypot(*np.moveaxis(centres - share[..., None] * along, -1, 0))
            inside[y1 - top : y2 - top, x1 - left : x2 - left] |= distance <= reach
    return (left, top), inside


def box(first: Sequence[float], opposite: Sequence[float]) -> np.ndarray:
    """The four corners of an upright box, of which two opposite ones x, y are given."""
    (x1, y1), (x2, y2) = first, opposite
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def ellipse(centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """An ellipse as a polygon of 360 corners."""
    around = np.radians(np.arange(360))
    return np.stack([np.cos(around), np.sin(around)], axis=1) * radii + centre


def turned(ring: np.ndarray, angle: float) -> np.ndarray:
    """Corners turned clockwise around their mean; the angle is in degrees."""
    sine, cosine, centre = sin(radians(angle)), cos(radians(angle)), ring.mean(axis=0)
    return (ring - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre  # y points down


def runs(lengths: Sequence[int], shape: Size, order: str) -> np.ndarray:
    """The pixels, (height, width) bool, that run lengths give: outside, inside, outside, ..

    They go along the rows (order "C") or columns ("F").
    """
    if sum(lengths) != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {sum(lengths)} pixels for {shape[1]}x{shape[0]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape, order=order)


def decompress(text: str) -> list[int]:
    """Run lengths of compressed ones; source: `rleFrString` in maskApi.c of cocoapi."""
    lengths, value, shift = [], 0, 0
    for letter in text.encode():
        code = letter - 48
        value |= (code & 31) << shift  # five bits a letter, the lowest first
        shift += 5
        if not code & 32:  # the last letter of a number, whose sign is in bit 4
            value -= (code >> 4 & 1) << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value, shift = 0, 0
    return lengths


def picture(data: bytes) -> np.ndarray:
    """The pixels of a PNG that are not transparent, or not black, (h, w) bool."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        clear = image.has_transparency_data
        cover = image.convert("RGBA").getchannel("A") if clear else image.convert("L")
    return np.asarray(cover) > 0


def placed(inside: np.ndarray, corner: Sequence[float], size: Size) -> Area:
    """Pixels (h, w) bool whose upper left one is at x, y, cut off at the photo."""
    (left, top), (height, width) = map(int, corner), size
    inside = inside[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    return (max(left, 0), max(top, 0)), inside


def _box(points: np.ndarray, size: Size, reach: float = 0.0) -> list[int]:
    """Left, top, right and bottom of the pixels in which points (n, 2), or what is near them, are.

    They are cut off at the photo.
    """
    first, last = np.floor(points.min(axis=0) - reach), np.floor(points.max(axis=0) + reach) + 1
    return np.clip([first, last], 0, size[::-1]).astype(int).ravel().tolist()
