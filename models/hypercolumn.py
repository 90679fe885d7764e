"""The hypercolumn (zoom-out) extractor: the levels of a backbone, read at points or as a dense map.

Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization", CVPR 2015;
Mostajabi et al., "Feedforward Semantic Segmentation with Zoom-out Features", CVPR 2015.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models import RunError
from models.backbones import (
    dilate,
    empty_features,
    find_taps,
    fingerprint,
    input_moments,
    load_weights,
)

PARTS = {"image": 1, "quadrants": 2}  # of the image, by the side of the grid of their means


class Hypercolumn(nn.Module):
    """Image -> levels (the tapped feature maps, fine to coarse) -> hypercolumns of Z channels.

    Each level is taken to cover the whole image, its values sitting at the centres of its pixels
    (`align_corners=False`), so the hypercolumn at a place is every level sampled bilinearly there, concatenated.
    The two ways to read it, `at_points` and `as_map`, agree to rounding.

    Context joins as further levels: means of the last tap over the whole image, over its quadrants, or over a window
    around each place (Mostajabi et al. 2015, section 3, for the image as the last zoom-out level).

    The ImageNet normalisation of the input belongs to the weights, so it is done in here and cannot be forgotten.

    Args:
        backbone: a name in `models.backbones.BACKBONES`.
        weights: "imagenet", "random", a state-dict file, or None to leave the values to `load_state_dict`.
        taps: which levels, 1 = finest; None means all. The backbone ends after the last of them.
        seed: for "random" weights.
        context: further levels, each "image", "quadrants", or the odd side of a window in pixels of the last tap,
            as it is undilated.
        dilated: so many of the last pooling layers have no stride, see `models.backbones.dilate`.

    Attributes:
        channels: channels of each level; Z is their sum (1472 for VGG11, 960 for SqueezeNet 1.1, without context).
        frozen: the backbone is not trained. Trained or not it stays in eval mode: BatchNorm keeps the statistics of
            millions of images, which those of a few would only spoil.
        recompute: the gradient computes what lies between two taps anew and holds less in memory (Chen et al.,
            "Training Deep Nets with Sublinear Memory Cost", 2016); the values are the same.

    Raises:
        RunError: an unknown backbone, taps that it does not have, or weights that cannot be used.
    """

    def __init__(
        self,
        backbone: str,
        weights: str | None = "imagenet",
        taps: Sequence[int] | None = None,
        seed: int = 0,
        context: Sequence[str] = (),
        dilated: int = 0,
    ):
        super().__init__()
        features = empty_features(backbone)
        positions = find_taps(backbone, features)
        taps = list(range(1, len(positions) + 1)) if taps is None else sorted(set(taps))
        if not taps or not 1 <= taps[0] <= taps[-1] <= len(positions):
            raise RunError(f"--taps {','.join(map(str, taps))}: {backbone} has taps 1 to {len(positions)}")
        self.backbone, self.taps, self.context, self.recompute = backbone, taps, list(context), False
        self._positions = [positions[tap - 1] for tap in taps]
        self.dilated = dilated
        self.features = self._empty()
        self.channels = [shape[0] for shape in self.level_shapes(64, 64)]
        mean, std = input_moments(backbone)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        if weights is None:
            self.features.to_empty(device="cpu")
        else:
            load_weights(backbone, self.features, weights, seed)
        # channels_last is the layout in which CPU and GPU convolutions are fastest; the values are the same.
        self.features.to(memory_format=torch.channels_last)
        self.freeze()

    def dilate(self, pools: int) -> None:
        """Changes `dilated`; the weights stay, and the backbone is frozen.

        Raises:
            RunError: there are not so many pooling layers.
        """
        self.dilated, weights = pools, self.features.state_dict()
        self.features = self._empty()
        self.features.load_state_dict(weights, assign=True)
        self.freeze()

    def _empty(self) -> nn.Sequential:
        """The layers of the backbone up to the last tap, without storage."""
        return dilate(empty_features(self.backbone)[: self._positions[-1] + 1], self.dilated).eval()

    def check_size(self, size: int, flag: str = "--size") -> None:
        """Tries the shapes of a square input of this many pixels, as `flag` asks for it, without computing anything.

        Raises:
            RunError: the input is too small to reach the last tap.
        """
        try:
            self.level_shapes(size, size)
        except RuntimeError:
            raise RunError(
                f"{flag}: {size} pixels are too few for {self.backbone}: nothing is left at its last tap"
            ) from None

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(C_l, h_l, w_l) of the levels of one image, read off a pass of shapes alone (meta device)."""
        image = torch.empty(1, 3, height, width, device="meta")
        return [tuple(level.shape[1:]) for level in self._levels(self._empty(), image)]

    @property
    def Z(self) -> int:
        """Channels of the hypercolumn."""
        return sum(self.channels)

    def freeze(self) -> "Hypercolumn":
        """Stops gradients in the backbone."""
        self.frozen = True
        self.features.requires_grad_(False)
        return self

    def unfreeze(self, stages: int = 0) -> "Hypercolumn":
        """Lets the backbone learn; the first `stages`, which end with that many of the taps, stay as they are.

        Raises:
            RunError: that leaves nothing to learn.
        """
        if stages >= len(self._positions):
            raise RunError(f"--frozen-stages {stages}: of {len(self._positions)} stages at least one has to learn")
        self.frozen = False
        for position, layer in enumerate(self.features):
            layer.requires_grad_(stages == 0 or position > self._positions[stages - 1])
        return self

    def train(self, mode: bool = True) -> "Hypercolumn":
        super().train(mode)
        self.features.eval()
        return self

    def spec(self) -> dict[str, Any]:
        """What identifies this extractor: its arguments, with a fingerprint for the weights (plain values)."""
        return {
            "backbone": self.backbone,
            "taps": self.taps,
            "context": self.context,
            "dilated": self.dilated,
            "fingerprint": fingerprint(self.features),
        }

    def forward(self, images: Tensor) -> list[Tensor]:
        """The levels of a batch.

        Args:
            images: (B, 3, H, W) RGB, uint8 0..255 or floating point 0..1.

        Returns:
            One (B, C_l, h_l, w_l) tensor per tap, fine to coarse, then one per context. Without a graph where the
            backbone is frozen.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = images / 255 if images.dtype == torch.uint8 else images
            x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            return self._levels(self.features, x)

    def _levels(self, features: nn.Sequential, x: Tensor) -> list[Tensor]:
        levels, start = [], 0
        for position in self._positions:
            stage = features[start : position + 1]
            x = checkpoint(stage, x, use_reentrant=False) if self.recompute and torch.is_grad_enabled() else stage(x)
            levels.append(x)
            start = position + 1
        return levels + [surroundings(levels[-1], what, 2**self.dilated) for what in self.context]

    @staticmethod
    def as_map(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Dense hypercolumns (B, Z, h, w) on a grid of size (h, w): every level resampled to it, concatenated."""
        return torch.cat([resample(level, size) for level in levels], dim=1)

    @staticmethod
    def at_points(levels: Sequence[Tensor], points: Tensor) -> Tensor:
        """Hypercolumns at n places of each image, without a dense map.

        Args:
            points: (B, n, 2) floating point, (y, x) as fractions of height and width; see `pixel_centres`.

        Returns:
            (B, n, Z).
        """
        return torch.cat([sample_level(level, points) for level in levels], dim=1).transpose(1, 2)


def surroundings(level: Tensor, what: str, finer: int = 1) -> Tensor:
    """A level (B, C, h, w) averaged over "image" (B, C, 1, 1), "quadrants" (B, C, 2, 2), or windows of an odd side.

    A window's average, (B, C, h, w), is over what of it lies in the image. Where the level is so many times `finer`
    than the window was meant for, that is larger: `finer` times the side, or one more, to be odd.
    """
    if what in PARTS:
        return F.adaptive_avg_pool2d(level, PARTS[what])
    side = int(what) * finer | 1
    for window in ((side, 1), (1, side)):  # one direction after the other, at a fraction of the work
        level = F.avg_pool2d(level, window, 1, [length // 2 for length in window], count_include_pad=False)
    return level


def level_names(taps: Sequence[int], context: Sequence[str]) -> list[str]:
    """What the levels of a `Hypercolumn` are called in pictures and tables, in their order."""
    return [f"tap {tap}" for tap in taps] + [what if what in PARTS else f"{what}×{what}" for what in context]


def sample_level(level: Tensor, points: Tensor) -> Tensor:
    """(B, C, h, w) at n places of each image: (B, C, n), bilinear, for points (B, n, 2) as in `at_points`.

    In float32 at least: places rounded to half precision are other places.
    """
    level = level.float() if level.dtype.itemsize < 4 else level
    (images, channels, height, width), count = level.shape, points.shape[1]
    if height == width == 1:
        return level.flatten(2).expand(-1, -1, count)
    corners, shares = corners_of(points, (height, width))
    image = torch.arange(images, device=level.device).view(-1, 1, 1)
    indices = (image * height + corners[..., 0]) * width + corners[..., 1]
    rows = level.permute(0, 2, 3, 1).reshape(-1, channels)
    # Weighted sums of whole rows: the gradient takes a third of the time of grid_sample's, channel by channel.
    sampled = F.embedding_bag(
        indices.flatten(0, 1), rows, mode="sum", per_sample_weights=shares.flatten(0, 1).to(level.dtype)
    )
    return sampled.view(images, count, channels).transpose(1, 2)


def corners_of(points: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The 4 pixels of a grid around each point (B, n, 2), as (B, n, 4, 2) int64, and their bilinear shares, (B, n, 4).

    Outside the centres of the outer pixels their value goes on.
    """
    lengths = torch.tensor(grid, device=points.device)
    places = (points * lengths - 0.5).clamp(min=0)
    first = places.long().minimum(lengths - 1)
    after = places - first
    steps = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], device=points.device)
    corners = (first.unsqueeze(2) + steps).minimum(lengths - 1)
    shares = torch.where(steps.bool(), after.unsqueeze(2), 1 - after.unsqueeze(2)).prod(-1)
    return corners, shares


def resample(level: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear at pixel centres (`align_corners=False`, no antialiasing)."""
    if tuple(level.shape[-2:]) == tuple(size):
        return level
    return F.interpolate(level, size=size, mode="bilinear", align_corners=False)


def pixel_centres(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 2) integer (y, x) in a grid of size (height, width) -> the centres as fractions of both, float32."""
    return (pixels + 0.5) / torch.tensor(size, dtype=torch.float32, device=pixels.device)
