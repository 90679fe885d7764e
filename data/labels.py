"""The labels of masks: how many pixels, how wide, and what the user should know of them."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from data import UserError
from data.classes import VOID, is_sparse
from data.transforms import MAX_ASPECT

LEAST_WIDTH = 2  # pixels of the network's input; little comes through of what is thinner
DRAWN = 5_000  # pixels of a mask
MEASURED = 25  # of those, at most, of each class


def measure(mask: np.ndarray, classes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What a mask (H, W) of class ids and VOID holds: its `counts` and its `local_widths`.

    Returns:
        (classes + 1,) int64, the pixels of each class and, last, of void; and (n, 3) float64.
    """
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)[[*range(classes), VOID]]
    return counts, local_widths(mask, size)


def check_labels(counts: np.ndarray, where: str) -> None:
    """Refuses masks from which nothing can be learned, by their pixels (C + 1,), void last.

    Raises:
        UserError: there is no labelled pixel, or only background and void, as in binary masks of
            0 and 255, unless under a tenth is background: strokes. Says `where`.
    """
    background, *objects, void = counts
    if not (background or any(objects)):
        raise UserError(f"{where} have no labelled pixel")
    if not any(objects) and 0 < void < 9 * background:
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


def local_widths(mask: np.ndarray, size: int) -> np.ndarray:
    """How wide the structures around some pixels are: the shortest of four lines through each.

    The lines run along the row, the column and the diagonals as far as the pixel's class does. One
    of them crosses a stripe within 22.5 degrees of straight, so it is at most 8 % too long.

    Args:
        mask: (H, W) uint8, class ids and VOID, of which nothing is measured.
        size: shorter side of the network's input; a line is followed to either side for as long as
            `LEAST_WIDTH` is there, so what is wider than that is measured as wider, not how much.
            A sparse mask has no widths: a stroke's is the pen's, not that of what it marks.

    Returns:
        (n, 3) float64: class, width in pixels of the mask, and the pixels that become `size`: the
        mask's shorter side, or more of a very long one.
    """
    side = max(min(mask.shape), max(mask.shape) / MAX_ASPECT)  # which becomes `size`
    longest = math.ceil(LEAST_WIDTH * side / size)
    framed = np.pad(mask, longest, constant_values=VOID)  # so that lines end at the sides
    row, framed = framed.shape[1], framed.ravel()
    drawn, places = np.random.default_rng(0).integers(len(framed), size=DRAWN), []
    values = framed[drawn]
    counts = np.array(Image.fromarray(mask).histogram())  # faster than numpy's
    if is_sparse(counts[VOID], mask.size):
        counts[:] = 0
    for label in np.flatnonzero(counts[:VOID]):
        own = drawn[values == label]
        if len(own) < MEASURED:  # of a small class look at every pixel
            own = np.random.default_rng(0).permutation(np.flatnonzero(framed == label))
        places.append(own[:MEASURED])
    places = np.concatenate([drawn[:0], *places])[:, None, None]
    steps = np.array([[1], [row], [row + 1], [row - 1]]) * np.arange(1, longest + 1)
    lengths = np.ones((len(places), len(steps)))
    for way in (steps, -steps):
        goes_on = framed[places + way] == framed[places]
        lengths += np.logical_and.accumulate(goes_on, axis=2).sum(2)
    widths = (lengths * (1, 1, math.sqrt(2), math.sqrt(2))).min(1)
    return np.stack([framed[places.ravel()], widths, np.full(len(widths), side)], axis=1)


def thin_classes(measured: np.ndarray, names: Sequence[str], size: int) -> Iterator[str]:
    """A line for each class that is less than `LEAST_WIDTH` wide at the network's size.

    The size that it advises is enough, too, where a sixth less is measured of other pixels.

    The width of a class is the upper quartile of those at pixels drawn uniformly from it. In a
    stripe all are equal; in a disc of diameter d the quartile is 0.87 d, the median 0.71 d; and
    frayed edges, whose lines are short, do not matter. Drawn stripes from 4 pixels on, at any
    angle, and discs from 15 come out right to 20 %; 3 pixels along a diagonal may count as 4.2.

    Args:
        measured: (N, 3), rows of `local_widths` of all masks.
    """
    for label, name in enumerate(names):
        _, widths, sides = measured[measured[:, 0] == label].T
        share = np.quantile(widths / sides, 0.75) if len(sides) else math.inf
        if share * size < LEAST_WIDTH:
            side, enough = np.median(sides), 100 * math.ceil(1.2 * LEAST_WIDTH / share / 100)
            what = f"{round(share * side, 1):g} px wide in photos of {side:.0f} (shorter side)"
            at = f"{share * size:.1f} at --size {size}; take --size {enough} or more"
            yield f"{name}: {what}, {at}"
