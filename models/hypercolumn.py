"""The hypercolumn (zoom-out) extractor: the levels of a backbone, read at points or as a map.

Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization", CVPR 2015;
Mostajabi et al., "Feedforward Semantic Segmentation with Zoom-out Features", CVPR 2015.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import UserError
from data.transforms import LEAST_SIDE
from models.backbones import build
from models.weight_files import fingerprint

WHOLE = ("image", "half")  # contexts that are means over the whole image
SIDE = 256  # pixels of the input on which it is looked up what a level depends on


class Hypercolumn(nn.Module):
    """Image -> levels (the tapped feature maps, fine to coarse) -> hypercolumns of Z channels.

    The hypercolumn at a place is every level, sampled bilinearly there and concatenated.
    `at_points` and `as_map` agree to rounding. The normalisation of the input, which belongs to
    the weights, is done here.

    Args:
        backbone, weights, taps, seed: see `models.backbones.build`.
        context: further levels, means of the last tap over the whole "image", over that of "half"
            the height and width (no less than LEAST_SIDE), or over a window around each place, of
            an odd side in pixels of the undilated tap (Mostajabi et al. 2015, section 3, for the
            image as the last level).
        dilated: number of the last drops of resolution that are undone.

    Attributes:
        features: the backbone.
        channels: channels of each level; Z is their sum (1472 for VGG11, 960 for SqueezeNet 1.1).
        frozen: the backbone is not trained. It stays in eval mode either way.
    """

    def __init__(
        self,
        backbone: str,
        weights: str | None = "imagenet",
        taps: Sequence[int | str] | None = None,
        seed: int = 0,
        context: Sequence[str] = (),
        dilated: int = 0,
    ):
        super().__init__()
        self.features = build(backbone, weights, seed, taps, dilated)
        self.backbone, self.taps = backbone, self.features.taps
        self.dilated, self.frozen = dilated, True
        self.surround(context)
        self.register_buffer("mean", torch.tensor(self.features.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(self.features.std).view(3, 1, 1))
        # The layout in which convolutions are fastest on CPU and GPU; the values are the same.
        self.features.to(memory_format=torch.channels_last)

    @property
    def Z(self) -> int:
        """Channels of the hypercolumn."""
        return sum(self.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) RGB, uint8 0..255 or floating point 0..1 -> their levels.

        One (B, C_l, h_l, w_l) per tap, fine to coarse, then one per context; without a graph where
        the backbone is frozen.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = images / 255 if images.dtype == torch.uint8 else images
            x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            levels = self.features(x)
            last = dict.fromkeys(self.context, levels[-1])
            if "half" in last:  # nearer to the size at which the weights learned to classify
                sides = (torch.sym_max(side // 2, LEAST_SIDE) for side in x.shape[2:])
                last["half"] = self.features(resample(x, tuple(sides)))[-1]
            return levels + [surroundings(last[c], c, 2**self.dilated) for c in self.context]

    def surround(self, context: Sequence[str]) -> None:
        """Sets `context`, and with it the channels."""
        tapped = self.features.channels
        self.context, self.channels = list(context), tapped + tapped[-1:] * len(context)

    def dilate(self, drops: int) -> None:
        """Sets `dilated`; weights stay, and the backbone is frozen."""
        features = build(self.backbone, None, taps=self.taps, drops=drops)
        features.load_state_dict(self.features.state_dict(), assign=True)
        self.features = features.requires_grad_(False)
        self.dilated, self.frozen = drops, True

    def check_size(self, size: int, flag: str = "--size") -> None:
        """Raises a UserError that names the `flag` if `size` pixels do not reach the last tap."""
        try:
            self.level_shapes(size, size)
        except RuntimeError:
            raise UserError(f"{flag}: {size} pixels are too few for {self.backbone}") from None

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(C_l, h_l, w_l) of the levels of one image."""
        image = torch.empty(1, 3, height, width, device="meta")
        return [tuple(level.shape[1:]) for level in copy.deepcopy(self).to("meta")(image)]

    def unfreeze(self, frozen_stages: int = 0) -> None:
        """Lets the backbone learn, but for its first stages: all that so many taps depend on."""
        if frozen_stages >= len(self.taps):
            raise UserError(f"--frozen-stages {frozen_stages}: there are {len(self.taps)} stages")
        self.frozen = False
        network = copy.deepcopy(self).to("meta").requires_grad_()
        image = torch.empty(1, 3, SIDE, SIDE, device="meta", requires_grad=True)
        levels, weights = [image, *network(image)], list(network.parameters())
        staying, learning = (  # None of a weight that the level, or the image, does not depend on
            torch.autograd.grad(level.sum(), weights, retain_graph=True, allow_unused=True)
            for level in (levels[frozen_stages], levels[-1])
        )
        for parameter, stays, learns in zip(self.parameters(), staying, learning, strict=True):
            parameter.requires_grad_(learns is not None and stays is None)

    def train(self, mode: bool = True) -> "Hypercolumn":
        super().train(mode)
        self.features.eval()
        return self

    def spec(self) -> dict[str, Any]:
        """What identifies this extractor: its arguments and a fingerprint of the weights."""
        return {
            "backbone": self.backbone,
            "taps": self.taps,
            "context": self.context,
            "dilated": self.dilated,
            "fingerprint": fingerprint(self.features),
        }

    @staticmethod
    def as_map(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Hypercolumns (B, Z, h, w) on a grid of size (h, w): levels resampled, concatenated.

        The papers' form, to be read and to test the others by; nothing else computes it.
        """
        return torch.cat([resample(level, size) for level in levels], dim=1)

    @staticmethod
    def at_points(levels: Sequence[Tensor], points: Tensor) -> Tensor:
        """Hypercolumns (B, n, Z) at points (B, n, 2), see `read`: without a dense map."""
        return torch.cat([read(level.movedim(1, -1), points) for level in levels], dim=2)


def read(level: Tensor, where: Tensor | tuple[int, int]) -> Tensor:
    """A map (B, h, w, c), bilinear at places: on a grid (B, *grid, c), or at points (B, n, c).

    Its values lie at the centres of its pixels; beyond the outermost ones it is constant.

    Args:
        where: the grid's (height, width), or points (B, n, 2) floating point: (y, x) as shares of
            the image's height and width.
    """
    if not isinstance(where, Tensor):
        return resample(level.movedim(-1, 1), where).movedim(1, -1)
    level = level.float() if level.dtype.itemsize < 4 else level  # else shares do not sum to 1
    images, height, width, channels = level.shape
    y, y_shares = neighbours(where[..., 0], height)
    x, x_shares = neighbours(where[..., 1], width)
    image = torch.arange(images, device=level.device).view(-1, 1, 1, 1)
    rows = (image * height + y[..., :, None]) * width + x[..., None, :]  # (B, n, 2, 2)
    rows = rows.view(-1, 4)
    shares = (y_shares[..., :, None] * x_shares[..., None, :]).view(-1, 4).to(level.dtype)
    table = level.reshape(-1, channels)
    try:  # weighted sums of whole rows: with gradients, a third of the time of grid_sample
        found = F.embedding_bag(rows, table, per_sample_weights=shares, mode="sum")
    except NotImplementedError:  # MPS before torch 2.10
        found = (table[rows] * shares[:, :, None]).sum(1)
    return found.view(images, -1, channels)


def neighbours(share: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The two of `side` pixels around places (..) on an axis, given as shares of its length.

    They are (.., 2) int64; with them come their bilinear shares (.., 2), which sum to 1.
    """
    place = (share * side - 0.5).clamp(0, side - 1)
    first = place.floor()
    pixels = torch.stack([first, (first + 1).clamp(max=side - 1)], dim=-1)
    return pixels.long(), torch.stack([1 - (place - first), place - first], dim=-1)


def resample(level: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear, half-pixel centres, no antialiasing."""
    return F.interpolate(level, size, mode="bilinear", align_corners=False)


def surroundings(level: Tensor, context: str, finer: int = 1) -> Tensor:
    """Means of a level (B, C, h, w): over a window, (B, C, h, w), or over all of it, (B, C, 1, 1).

    By dilation the level may be so many times `finer` than the window was meant for.
    """
    if context in WHOLE:
        return level.mean((2, 3), keepdim=True)
    return box_mean(level, int(context) * finer | 1)  # made odd


def box_mean(values: Tensor, side: int) -> Tensor:
    """Mean of (B, C, h, w) over the square window around each place, without what lies outside.

    `side` is odd. Rows and columns in turn cost 2 `side`, not `side`^2.
    """
    rows = F.avg_pool2d(values, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2), count_include_pad=False)


def level_names(taps: Sequence[int | str], context: Sequence[str]) -> list[str]:
    """What the levels of a `Hypercolumn` are called in pictures and tables, in their order."""
    return [f"tap {t}" for t in taps] + [c if c in WHOLE else f"{c}×{c}" for c in context]
