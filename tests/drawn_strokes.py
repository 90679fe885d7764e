"""Strokes as a person would draw them, from full masks: one straight line in each class."""

from collections.abc import Sequence

import numpy as np

from data.classes import VOID
from data.formats.rasterize import stroke


def draw_strokes(mask: np.ndarray, width: float, seed: int | Sequence[int]) -> np.ndarray:
    """One stroke in each class of a mask (H, W), void elsewhere.

    It goes from a random pixel of the class both ways in the direction, of eight, in which it gets
    furthest before it leaves the class, but over no more than a quarter of the longer side.
    """
    rng, drawn = np.random.default_rng(seed), np.full_like(mask, VOID)
    for label in np.setdiff1d(np.unique(mask), VOID):
        start = rng.choice(np.argwhere(mask == label))
        ways = []
        for angle in np.arange(8) * np.pi / 8:
            step = np.array([np.sin(angle), np.cos(angle)])
            ends = [_reached(mask, start, sign * step) for sign in (1, -1)]
            ways.append((np.hypot(*(ends[0] - ends[1])), ends))
        ends = np.array(max(ways, key=lambda way: way[0])[1])[:, ::-1] + 0.5  # x, y
        (left, top), inside = stroke([ends], width, mask.shape)
        here = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
        drawn[here][inside & (mask[here] == label)] = label
    return drawn


def _reached(mask: np.ndarray, start: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The last pixel (y, x) of the class on the way from a pixel."""
    for length in range(max(mask.shape) // 8):
        y, x = np.round(start + (length + 1) * step).astype(int)
        inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
        if not inside or mask[y, x] != mask[tuple(start)]:
            return np.round(start + length * step)
    return np.round(start + max(mask.shape) // 8 * step)
