"""How a prediction looks at a photo: at several scales, mirrored too, with refined edges.

He, Sun & Tang, "Guided Image Filtering", ECCV 2010; He & Sun, "Fast Guided Filter",
arXiv 1505.00996, 2015.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, einsum
from torch.nn.functional import interpolate

from models.hypercolumn import box_mean, resample

EPSILON = 1e-4  # variance, of colours in 0..1, below which a window counts as flat


@dataclass(frozen=True)
class Views:
    """At which sizes a photo is seen; the probabilities of several views are averaged.

    Attributes:
        scales: of the input, 1 among them, ascending.
        flip: whether each view is also seen mirrored.
        refine: whether edges follow those of the photo, see `guided_filter`.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    refine: bool = False


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
