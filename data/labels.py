"""The labels of masks: how many pixels, how wide, and what the user should know of them."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from data import UserError
from data.classes import VOID, is_sparse
from data.transforms import MAX_ASPECT

LEAST_WIDTH = 2  # pixels of the network's input; little comes through of what is thinner
DIAGONAL = math.sqrt(2)  # from one pixel to the next


def measure(mask: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels of each class a mask has, and how long their outlines are.

    Args:
        mask: (H, W) uint8, class ids and VOID.

    Returns:
        (classes + 1,) int64, pixels of each class and, last, of void; and what `thin_classes`
        takes, (3, classes) float64, to be summed over masks: area and outline in units of the side
        that becomes the network's size (the shorter, or more of a very long mask), and outline in
        pixels. A sparse mask has none: a stroke is as wide as the pen.
    """
    counts = np.array(Image.fromarray(mask).histogram())  # faster than numpy's
    counts, outlines = counts[[*range(classes), VOID]], np.zeros(VOID + 1)
    if is_sparse(counts[-1], mask.size):
        return counts, np.zeros((3, classes))
    # As Crofton counts how often lines cross an outline, here in four directions; so that stripes
    # along these have their true length, others up to 8 % more.
    straight = (mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])
    diagonal = (mask[1:, 1:], mask[:-1, :-1]), (mask[1:, :-1], mask[:-1, 1:])
    for (one, other), gap in zip((*straight, *diagonal), (1, 1, DIAGONAL, DIAGONAL)):
        differ = one != other
        both = np.concatenate([one[differ], other[differ]])
        outlines += np.bincount(both, minlength=VOID + 1) / gap / (1 + DIAGONAL)
    outlines = outlines[:classes]
    side = max(min(mask.shape), max(mask.shape) / MAX_ASPECT)
    return counts, np.stack([counts[:-1] / side**2, outlines / side, outlines])


def check_labels(counts: np.ndarray, where: str) -> None:
    """Refuses masks from which nothing can be learned, by their pixels (C + 1,), void last.

    Raises:
        UserError: there is no labelled pixel, or only background and void, as in binary masks of
            0 and 255; but under a tenth of background may be strokes on it. Says `where`.
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


def thin_classes(measured: np.ndarray, names: Sequence[str], size: int) -> Iterator[str]:
    """A line for each class that is less than `LEAST_WIDTH` wide at the network's size.

    The width is twice the area by the outline: of drawn stripes from 4 pixels on, at any angle, it
    is right to 12 % (3 pixels may count as 3.6), of a disc it is the radius. The size that is
    advised is enough, too, where a sixth less is measured of other masks.

    Args:
        measured: (3, C), the sum over all masks, see `measure`.
    """
    for name, (area, outline, pixels) in zip(names, measured.T):
        width = 2 * area / outline if outline else math.inf  # as a share of the side
        if width * size < LEAST_WIDTH:
            side, enough = pixels / outline, 100 * math.ceil(1.2 * LEAST_WIDTH / width / 100)
            what = f"{round(width * side, 1):g} px wide in photos of {side:.0f} (shorter side)"
            at = f"{width * size:.1f} at --size {size}; take --size {enough} or more"
            yield f"{name}: {what}, {at}"
