"""How a prediction looks at a photo: at several scales, mirrored too, in tiles, with refined edges.

He, Sun & Tang, "Guided Image Filtering", ECCV 2010; He & Sun, "Fast Guided Filter",
arXiv 1505.00996, 2015.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, einsum
from torch.nn.functional import interpolate

from models.hypercolumn import box_mean, neighbours, resample

EPSILON = 1e-4  # variance, of colours in 0..1, below which a window counts as flat
ROWS = 64  # of a photo at a time, enlarged


@dataclass(frozen=True)
class Views:
    """At which sizes a photo is seen; the probabilities of several views are averaged.

    Attributes:
        scales: of the input, 1 among them, ascending.
        flip: whether each view is also seen mirrored.
        refine: whether edges follow those of the photo, see `guided_filter`.
        tile: side, in pixels of the input, of the windows in which a larger one is seen.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    refine: bool = False
    tile: int | None = None


def blended(
    probabilities: Callable[[Tensor], Tensor],
    image: Tensor,
    classes: int,
    tile: int | None,
    cell: int,
) -> Iterator[Tensor]:
    """The probabilities of an image in windows, blended where they overlap: some rows at a time.

    Args:
        probabilities: of a window, (3, h, w) -> (C, ceil(h / cell), ceil(w / cell)).
        image: (3, H, W) uint8 RGB, on the device of the probabilities.
        classes: C.
        tile: side of a window in pixels of the image; None: one window sees it all.
        cell: side of a cell of the grid, in pixels of the image.

    Yields:
        (C, n, ceil(W / cell)): of the next n rows of the grid; one row of windows is held.
    """
    size = (tile or max(image.shape)) // cell + (tile is None)
    rows, columns = (-(-side // cell) for side in image.shape[1:])
    tops, y_shares = windows(rows, size, image.device)
    lefts, x_shares = windows(columns, size, image.device)
    held = x_shares.new_zeros(classes, 0, columns)  # of the windows above, from the next top on
    for (top, following), y_share in zip(pairwise([*tops, rows]), y_shares):
        strip = x_shares.new_zeros(classes, min(size, rows - top), columns)
        for left, x_share in zip(lefts, x_shares):
            y, x = (slice(start * cell, (start + size) * cell) for start in (top, left))
            across = slice(left, left + size)
            strip[:, :, across] += probabilities(image[:, y, x]) * x_share[across]
        strip *= y_share[top : top + size, None]
        strip[:, : held.shape[1]] += held
        yield strip[:, : following - top]
        held = strip[:, following - top :]


def enlarged(strips: Iterable[Tensor], rows: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """A map of so many rows at a photo's (height, width), bilinearly.

    Takes and yields some rows after the other: (C, n, w), floating point -> (C, n, width). All at
    once, 12 megapixels and 21 classes would take 1 GB.
    """
    sources, shares = neighbours((torch.arange(size[0]) + 0.5) / size[0], rows)
    done, end, last = 0, 0, None  # rows made, rows read, and the last of these
    for strip in strips:
        held = strip if last is None else torch.cat([last, strip], dim=1)
        end, last = end + strip.shape[1], held[:, -1:]
        first, ready = end - held.shape[1], int((sources[:, 1] < end).sum())
        for start in range(done, ready, ROWS):
            part = slice(start, min(start + ROWS, ready))
            above, below = (held[:, row - first] for row in sources[part].T)
            between = torch.lerp(above, below, shares[part, 1:].to(held))
            yield resample(between[None], (between.shape[1], size[1]))[0]
        done = ready


def windows(side: int, size: int, device: torch.device) -> tuple[list[int], Tensor]:
    """Windows of `size` cells along `side` cells: where each starts, and how much it counts there.

    Each overlaps the next by at least a quarter, where its weight falls linearly to its border; the
    weights (windows, side), float32, sum to 1 at each cell.
    """
    more = max(0, -(-4 * (side - size) // (3 * size)))
    starts = [0, *((side - size) * number // more for number in range(1, more + 1))]
    ramp = torch.arange(1.0, size + 1)
    ramp = torch.minimum(ramp, ramp.flip(0)).clamp(max=max(1, size // 4))
    shares = torch.zeros(len(starts), max(side, size))
    for share, start in zip(shares, starts):
        share[start : start + size] = ramp
    shares = shares[:, :side]
    return starts, (shares / shares.sum(0)).to(device)


def guided_filter(values: Tensor, guide: Tensor, radius: int, epsilon: float = EPSILON) -> Tensor:
    """Values on a coarse grid, enlarged to a photo's size with edges that follow its colours.

    In each window of the grid every channel is fitted by a linear function of the colour, by least
    squares. The coefficients of all windows around a cell are averaged, enlarged bilinearly, and
    applied to the colour of each pixel. Channels that sum to 1 still do.

    Args:
        values: (B, C, h, w) floating point, say probabilities.
        guide: (B, 3, H, W) RGB, uint8 0..255 or floating point 0..1; the result is (B, C, H, W).
        radius: of a window, in cells of the grid; at the border it is cut off.
        epsilon: is added to the variance of each colour: the larger, the smoother the result.
    """
    side = 2 * radius + 1
    colours = (guide / 255 if guide.dtype == torch.uint8 else guide).to(values.dtype)
    coarse = interpolate(colours, values.shape[-2:], mode="bilinear", antialias=True)
    both = torch.cat([coarse, values], dim=1)
    means = box_mean(both, side)
    mean_colour, mean_value = means[:, :3], means[:, 3:]
    products = einsum("bnhw,bchw->bnchw", both, coarse)
    covariances = box_mean(products.flatten(1, 2), side).view_as(products)  # with the colours
    covariances -= einsum("bnhw,bchw->bnchw", means, mean_colour)
    flat = epsilon * torch.eye(3, dtype=values.dtype, device=values.device)
    spread = torch.linalg.inv(covariances[:, :3].permute(0, 3, 4, 1, 2) + flat)
    slopes = einsum("bnchw,bhwcd->bdnhw", covariances[:, 3:], spread)
    offsets = mean_value - einsum("bdnhw,bdhw->bnhw", slopes, mean_colour)
    refined = resample(box_mean(offsets, side), guide.shape[-2:])
    for colour in range(3):  # one at a time: (B, C, H, W) is large
        slope = resample(box_mean(slopes[:, colour], side), guide.shape[-2:])
        refined += slope * colours[:, [colour]]
    return refined
