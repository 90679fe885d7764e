"""How a prediction looks at a photo: at several scales, mirrored too, in tiles, with refined edges.

He, Sun & Tang, "Guided Image Filtering", ECCV 2010; He & Sun, "Fast Guided Filter",
arXiv 1505.00996, 2015.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, einsum
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import resize

from data.transforms import LEAST_SIDE
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


def averaged(
    logits: Callable[[Tensor], Tensor], image: Tensor, grid: tuple[int, int], views: Views
) -> Tensor:
    """The mean of the probabilities over the views.

    Args:
        logits: the network, images (B, 3, H, W) -> (B, C, h, w).
        image: (1, 3, H, W) uint8 RGB, as the largest of the scales sees it.
        grid: (h, w) on which the views meet.

    Returns:
        (1, C, h, w) float32.
    """
    seen = []
    for scale in views.scales:
        share = scale / views.scales[-1]
        shape = [max(min(side, LEAST_SIDE), round(side * share)) for side in image.shape[-2:]]
        view = resize(image, shape, antialias=True) if share < 1 else image
        seen.append(resample(logits(view).softmax(1), grid))
        if views.flip:
            seen.append(resample(logits(view.flip(-1)).softmax(1).flip(-1), grid))
    return sum(seen) / len(seen)


def in_rows(
    probabilities: Callable[[Tensor], Tensor],
    image: Tensor,
    height: int,
    classes: int,
    tile: int | None,
    cell: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The probabilities of a photo of any size, some rows after the other.

    It is seen in windows, blended where they overlap. One row of windows is held at a time.

    Args:
        probabilities: of a window, (3, h, w) -> (C, ceil(h / cell), ceil(w / cell)) on the device.
        image: (3, H, W) uint8 RGB.
        height: of the photo.
        classes: C.
        tile: side of a window in pixels of the image; None: one window sees it all.
        cell: side of a cell of the grid, in pixels of the image.

    Yields:
        (C, n, ceil(W / cell)): of the next n rows of the photo, in columns of the grid.
    """
    size = (tile or max(image.shape)) // cell + (tile is None)
    (tops, y_shares), (lefts, x_shares) = (
        windows(-(-side // cell), size, device) for side in image.shape[1:]
    )
    rows, width = y_shares.shape[1], x_shares.shape[1]
    sources, weights = neighbours((torch.arange(height, device=device) + 0.5) / height, rows)
    held, first, done = torch.zeros(classes, 0, width, device=device), 0, 0  # from row `first` on
    for top, y_share, final in zip(tops, y_shares, [*tops[1:], rows]):
        strip = torch.zeros(classes, min(size, rows - top), width, device=device)
        for left, x_share in zip(lefts, x_shares):
            y, x = (slice(start * cell, (start + size) * cell) for start in (top, left))
            across = slice(left, left + size)
            strip[:, :, across] += probabilities(image[:, y, x]) * x_share[across]
        strip *= y_share[top : top + size, None]
        strip[:, : held.shape[1] - (top - first)] += held[:, top - first :]
        held = torch.cat([held[:, : top - first], strip], dim=1)
        ready = int((sources[:, 1] < final).sum())
        for part in torch.arange(done, ready, device=device).split(ROWS) if ready > done else ():
            above, below = (held[:, row - first] for row in sources[part].T)  # (C, n, w) each
            yield torch.lerp(above, below, weights[part, 1:])
        if ready == height:
            return
        following = min(int(sources[ready, 0]), final)
        held, first, done = held[:, following - first :], following, ready


def windows(side: int, size: int, device: torch.device) -> tuple[list[int], Tensor]:
    """Where windows start along a side of the grid, and how much each counts at each of its cells.

    Each overlaps the next by at least a quarter. There its weight falls linearly to its border.

    Args:
        side, size: cells of the grid, and of a window.

    Returns:
        The first cell of each window, and (windows, cells) float32, which sum to 1 at each cell.
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
    applied to the colour of each pixel. A constant channel stays constant, and channels that sum
    to 1 still do.

    Args:
        values: (B, C, h, w) floating point, say probabilities.
        guide: (B, 3, H, W) RGB, uint8 0..255 or floating point 0..1.
        radius: of a window, in cells of the grid; at the border it is cut off.
        epsilon: is added to the variance of each colour: the larger, the smoother the result.

    Returns:
        (B, C, H, W).
    """
    side = 2 * radius + 1
    colours = (guide / 255 if guide.dtype == torch.uint8 else guide).to(values.dtype)
    size = values.shape[-2:]
    coarse = interpolate(colours, size, mode="bilinear", align_corners=False, antialias=True)
    mean_colour, mean_value = box_mean(coarse, side), box_mean(values, side)

    def covariance_with_colours(channels: Tensor, mean: Tensor) -> Tensor:
        """Of (B, n, h, w) in each window: (B, n, 3, h, w)."""
        products = einsum("bnhw,bchw->bnchw", channels, coarse)
        means = einsum("bnhw,bchw->bnchw", mean, mean_colour)
        return box_mean(products.flatten(1, 2), side).view_as(products) - means

    flat = epsilon * torch.eye(3, dtype=values.dtype, device=values.device)
    spread = covariance_with_colours(coarse, mean_colour).permute(0, 3, 4, 1, 2) + flat
    slopes = einsum(
        "bnchw,bhwcd->bdnhw",
        covariance_with_colours(values, mean_value),
        torch.linalg.inv(spread),
    )
    offsets = mean_value - einsum("bdnhw,bdhw->bnhw", slopes, mean_colour)
    refined = resample(box_mean(offsets, side), guide.shape[-2:])
    for colour in range(3):  # one at a time: (B, C, H, W) is large
        slope = resample(box_mean(slopes[:, colour], side), guide.shape[-2:])
        refined += slope * colours[:, [colour]]
    return refined
