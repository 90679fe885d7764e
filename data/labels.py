"""The labels of masks: how many pixels, how wide, and what the user should know of them."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from data import UserError
from data.classes import VOID, is_sparse
from data.transforms import MAX_ASPECT

LEAST_WIDTH = 2  # pixels of the network's input; little comes through of what is thinner
MEASURED = 25  # pixels of each class in a mask, at most


def measure(mask: np.ndarray, classes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels of each class a mask has, and how wide its structures are around some.

    A width is the shortest of four lines through a pixel, along the row, the column and the
    diagonals, as far as the pixel's class goes. One of them crosses a stripe within 22.5 degrees
    of straight, so it is at most 8 % too long.

    Args:
        mask: (H, W) uint8, class ids and VOID.
        size: shorter side of the network's input; a line is followed to either side for as long as
            `LEAST_WIDTH` is there, so what is wider than that is measured as wider, not how much.

    Returns:
        (classes + 1,) int64, pixels of each class and, last, of void; and widths (n, 3) float64:
        class, width in pixels of the mask, and the pixels that become `size`: the mask's shorter
        side, or more of a very long one. A sparse mask has none: a stroke is as wide as the pen.
    """
    counts = np.array(Image.fromarray(mask).histogram())  # faster than numpy's
    counts, rng = counts[[*range(classes), VOID]], np.random.default_rng(0)
    side = max(min(mask.shape), max(mask.shape) / MAX_ASPECT)  # which becomes `size`
    longest = math.ceil(LEAST_WIDTH * side / size)
    framed = np.pad(mask, longest, constant_values=VOID)  # so that lines end at the sides
    row, framed, places = framed.shape[1], framed.ravel(), [np.empty(0, dtype=np.int64)]
    for label in () if is_sparse(counts[-1], mask.size) else np.flatnonzero(counts[:-1]):
        own = np.flatnonzero(framed == label)
        places.append(rng.choice(own, min(MEASURED, len(own)), replace=False))
    places = np.concatenate(places)[:, None, None]
    steps = np.array([[1], [row], [row + 1], [row - 1]]) * np.arange(1, longest + 1)
    lengths = np.ones((len(places), len(steps)))
    for way in (steps, -steps):
        goes_on = framed[places + way] == framed[places]
        lengths += np.logical_and.accumulate(goes_on, axis=2).sum(2)
    widths = (lengths * (1, 1, math.sqrt(2), math.sqrt(2))).min(1)
    return counts, np.stack([framed[places.ravel()], widths, np.full(len(widths), side)], axis=1)


def check_labels(counts: np.ndarray, where: str, are_all: bool = False) -> None:
    """Refuses masks from which nothing can be learned, by their pixels (C + 1,), void last.

    Raises:
        UserError: there is no labelled pixel, or only background and void, as in binary masks of
            0 and 255; but under a tenth of background, in a part of the data, may be strokes
            on it. Says `where`.
    """
    background, *objects, void = counts
    if not (background or any(objects)):
        raise UserError(f"{where} have no labelled pixel")
    if not any(objects) and void and (are_all or void < 9 * background):
        raise UserError(
            f"{where}: the masks hold only 0 and {VOID}, and {VOID} is void here: "
            "save the object as 1 (python -m data.convert does, with --map 0=0,255=1)"
        )


def sparse_note(counts: np.ndarray) -> list[str]:
    """What to say of masks if they are sparse, by their pixels (C + 1,), void last."""
    share = counts[:-1].sum() / counts.sum()
    note = (
        f"sparse labels, {100 * share:.2g} % of the pixels: scores on such masks do not measure "
        "outlines; draw a few validation images fully"
    )
    return [note] if is_sparse(counts[-1], counts.sum()) else []


def thin_classes(measured: np.ndarray, names: Sequence[str], size: int) -> Iterator[str]:
    """A line for each class that is less than `LEAST_WIDTH` wide at the network's size.

    The size that it advises is enough, too, where a sixth less is measured of other pixels.

    The width of a class is the upper quartile of those at pixels drawn uniformly from it. In a
    stripe all are equal; in a disc of diameter d the quartile is 0.87 d, the median 0.71 d; and
    frayed edges, whose lines are short, do not matter. Drawn stripes from 4 pixels on, at any
    angle, and discs from 15 come out right to 20 %; 3 pixels along a diagonal may count as 4.2.

    Args:
        measured: (N, 3), the widths of all masks, see `measure`.
    """
    for label, name in enumerate(names):
        _, widths, sides = measured[measured[:, 0] == label].T
        share = np.quantile(widths / sides, 0.75) if len(sides) else math.inf
        if share * size < LEAST_WIDTH:
            side, enough = np.median(sides), 100 * math.ceil(1.2 * LEAST_WIDTH / share / 100)
            what = f"{round(share * side, 1):g} px wide in photos of {side:.0f} (shorter side)"
            at = f"{share * size:.1f} at --size {size}; take --size {enough} or more"
            yield f"{name}: {what}, {at}"
