"""Sharper edges for what a network says on a coarse grid: the fast guided filter, with the photo as the guide.

He, Sun and Tang, "Guided Image Filtering", ECCV 2010; He and Sun, "Fast Guided Filter", arXiv 1505.00996, 2015.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

EPSILON = 1e-4  # variance, of colours in 0..1, below which a window counts as flat


def guided_filter(values: Tensor, guide: Tensor, radius: int, epsilon: float = EPSILON) -> Tensor:
    """Values on a coarse grid, brought to the size of a photo so that their edges follow those of its colours.

    In each window of the grid every channel is taken for a linear function of the colour, fitted by least squares; the
    functions of all windows around a place are averaged, and those averages, resampled, meet the colour of each pixel.
    What is constant stays so, and channels that sum to 1 still do.

    Args:
        values: (B, C, h, w) floating point, say probabilities.
        guide: (B, 3, H, W) RGB, uint8 0..255 or floating point 0..1.
        radius: of a window, in cells of the grid; the window is what of it lies in the image.
        epsilon: what is added to the variance of each colour: the larger, the smoother.

    Returns:
        (B, C, H, W).
    """
    colours = (guide / 255 if guide.dtype == torch.uint8 else guide).to(values.dtype)
    coarse = interpolate(colours, values.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
    mean_colour, mean_value = _box(coarse, radius), _box(values, radius)

    def covariance(channels: Tensor, mean: Tensor) -> Tensor:
        """Of some channels (B, n, h, w) with the colours: (B, h, w, n, 3)."""
        parts = [_box(channels * coarse[:, [colour]], radius) - mean * mean_colour[:, [colour]] for colour in range(3)]
        return torch.stack(parts, -1).permute(0, 2, 3, 1, 4)

    spread = covariance(coarse, mean_colour) + epsilon * torch.eye(3, dtype=values.dtype, device=values.device)
    slopes = covariance(values, mean_value) @ torch.linalg.inv(spread)  # (B, h, w, C, 3)
    slopes = slopes.permute(0, 4, 3, 1, 2)  # (B, 3, C, h, w)
    offsets = mean_value - (slopes * mean_colour.unsqueeze(2)).sum(1)
    refined = _enlarged(_box(offsets, radius), colours)
    for colour in range(3):
        refined += _enlarged(_box(slopes[:, colour], radius), colours) * colours[:, [colour]]
    return refined


def _box(values: Tensor, radius: int) -> Tensor:
    """The mean over the window around each place, one direction after the other."""
    side = 2 * radius + 1
    for window in ((side, 1), (1, side)):
        values = avg_pool2d(values, window, 1, [length // 2 for length in window], count_include_pad=False)
    return values


def _enlarged(values: Tensor, like: Tensor) -> Tensor:
    return interpolate(values, like.shape[-2:], mode="bilinear", align_corners=False)
