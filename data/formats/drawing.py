"""Areas of annotations as arrays: polygons and run lengths."""

from collections.abc import Sequence
from math import ceil

import numpy as np


def polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in a polygon, by the even-odd rule: (H, W) bool.

    `ImageDraw.polygon` also fills the pixels on the outline, so a square of 10 becomes one of 11.

    Args:
        points: (n, 2) corners x, y; the first pixel reaches from 0 to 1.
        size: (H, W) in pixels.
    """
    height, width = size
    crossings = np.zeros((height, width + 1), dtype=np.int32)  # of the outline, by first pixel
    corners = np.asarray(points, dtype=float) - 0.5  # now a pixel's centre has its indices
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0)):
        top, bottom = sorted((y1, y2))
        rows = np.arange(max(ceil(top), 0), min(ceil(bottom), height))
        if rows.size:
            columns = np.ceil(x1 + (rows - y1) * (x2 - x1) / (y2 - y1))
            crossings[rows, columns.clip(0, width).astype(int)] += 1
    return crossings.cumsum(axis=1)[:, :width] % 2 == 1


def runs(lengths: Sequence[int], shape: tuple[int, int], order: str) -> np.ndarray:
    """The pixels of run lengths, the first of which counts pixels outside: bool of this shape.

    Args:
        lengths: pixels outside, inside, outside, ..; they add up to all.
        shape: (rows, columns).
        order: "C" if they go along rows, "F" along columns.
    """
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(shape, order=order)
