"""How an image and its mask are brought to the network's input, together: sizes, and for training chance."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from data.classes import VOID

MAX_ASPECT = 4  # longer side over `size`; a more elongated image shrinks further, so that memory stays bounded,
LEAST_SIDE = 32  # but no side below this, which the backbones need: only there is an image squashed
PADDING = {tv_tensors.Image: (124, 116, 104), tv_tensors.Mask: VOID}  # ImageNet's mean colour: 0 once normalised

Transform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[Tensor, Tensor]]


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `size` and the aspect ratio kept, in whole pixels.

    An image more elongated than `MAX_ASPECT` gets its longer side at `MAX_ASPECT * size` instead.
    """
    scale = min(size / min(height, width), MAX_ASPECT * size / max(height, width))
    least = min(size, LEAST_SIDE)
    return max(least, round(height * scale)), max(least, round(width * scale))


class ResizeImage:
    """Resizes the image so that its shorter side is `size`; the mask keeps its original size (sampling, scoring)."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (3, H, W) uint8, mask (H, W) uint8 -> image (3, h, w) uint8, mask as it came."""
        return F.resize_image(image, list(resized_shape(*image.shape[-2:], self.size)), antialias=True), mask


class ResizeBoth(ResizeImage):
    """Resizes image and mask to the same size; the mask by nearest neighbour at pixel centres (training)."""

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (3, H, W) uint8, mask (H, W) uint8 -> image (3, h, w) uint8, mask (h, w) uint8."""
        image, _ = super().__call__(image, mask)
        # v2.Resize takes the legacy nearest neighbour for masks, off by up to half a pixel: name the exact one.
        mask = F.resize_image(mask[None], list(image.shape[-2:]), interpolation=InterpolationMode.NEAREST_EXACT)
        return image, mask[0]


class Augment:
    """What chance does to a training image: scale, crop, flip and colour, by torch's global random state.

    Args:
        size: shorter side, in pixels, at scale 1.
        scale: smallest and largest scale; between them the logarithm is uniform.
        crop: side of a square cut out at random, filled up with void where the image is smaller; None means all of it.
        flip: mirrors every other image.
        jitter: brightness, contrast and saturation change by up to this share; the hue by up to a sixth of it.
    """

    def __init__(self, size: int, scale: tuple[float, float], crop: int | None, flip: bool, jitter: float):
        self.size, self.scale = size, scale
        steps: list[v2.Transform] = [v2.RandomHorizontalFlip()] if flip else []
        if crop:
            steps.append(v2.RandomCrop(crop, pad_if_needed=True, fill=PADDING))
        if jitter:
            steps.append(v2.ColorJitter(jitter, jitter, jitter, jitter / 6))
        self.steps = v2.Compose(steps) if steps else None

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (3, H, W) uint8, mask (H, W) uint8 -> image (3, h, w) uint8, mask (h, w) uint8."""
        low, high = self.scale
        scale = low * (high / low) ** torch.rand(()).item()
        image, mask = ResizeBoth(max(1, round(self.size * scale)))(image, mask)
        return self.steps(tv_tensors.Image(image), tv_tensors.Mask(mask)) if self.steps else (image, mask)
