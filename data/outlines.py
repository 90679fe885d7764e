"""A mask as other programs take it: polygons, and COCO's run lengths."""

from typing import Any

import numpy as np

from data.classes import VOID


def polygons(mask: np.ndarray) -> list[tuple[int, list[np.ndarray]]]:
    """The outlines of the connected areas, around the centres of their pixels.

    Args:
        mask: (H, W) class ids; `VOID` has no outline, every other class has, the background too.

    Returns:
        Class id and rings of each area: the first is its outline, others are its holes. A ring is
        (n, 2) float64, x and y in pixels from the upper left corner of the image, where the centre
        of the first pixel is (0.5, 0.5), and ends where it began. The pixels whose centres are
        inside are those of the area.
    """
    from contourpy import FillType, contour_generator  # comes with matplotlib

    found = []
    for label in np.setdiff1d(mask, VOID).tolist():
        inside = np.pad(mask == label, 1).astype(np.float64)
        generator = contour_generator(z=inside, fill_type=FillType.OuterOffset)
        for points, starts in zip(*generator.filled(0.5, np.inf)):
            found.append((label, np.split(points - 0.5, starts[1:-1])))
    return found


def run_lengths(mask: np.ndarray) -> dict[int, dict[str, Any]]:
    """The area of each class id (H, W) but `VOID` as COCO's RLE: {"size", "counts" as text}."""
    from pycocotools.mask import encode

    found = {}
    for label in np.setdiff1d(mask, VOID).tolist():
        code = encode(np.asfortranarray(mask == label, dtype=np.uint8))
        found[label] = {"size": code["size"], "counts": code["counts"].decode()}
    return found
