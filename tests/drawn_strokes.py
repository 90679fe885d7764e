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
    way = np.round(start + np.arange(max(mask.shape) // 8 + 1)[:, None] * step).astype(int)
    inside = ((way >= 0) & (way < mask.shape)).all(1)
    y, x = way.clip(0, np.array(mask.shape) - 1).T
    goes_on = inside & (mask[y, x] == mask[tuple(start)])
    return way[goes_on.argmin() - 1]  # if all of it does, the last
