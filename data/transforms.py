"""How an image and its mask become the network's input: sizes, and augmentation in training."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from data.classes import VOID

MAX_ASPECT = 4  # longer side over `size`; a longer image shrinks further, so memory stays bounded,
LEAST_SIDE = 32  # but no side below this, which the backbones need: only then an image is squashed
PADDING = {tv_tensors.Image: (124, 116, 104), tv_tensors.Mask: VOID}  # the mean of ImageNet; void

Transform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[Tensor, Tensor]]


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `size` and the aspect ratio kept, in whole pixels.

    An image longer than `MAX_ASPECT` times its width, or wider, gets its longer side at
    `MAX_ASPECT * size` instead.
    """
    scale = min(size / min(height, width), MAX_ASPECT * size / max(height, width))
    least = min(size, LEAST_SIDE)
    return max(least, round(height * scale)), max(least, round(width * scale))


class ResizeImage:
    """Resizes the image so that its shorter side is `size`; the mask keeps its original size."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (3, H, W), mask (H, W), both uint8 -> image (3, h, w), mask as it came."""
        shape = list(resized_shape(*image.shape[-2:], self.size))
        return F.resize_image(image, shape, antialias=True), mask


class ResizeBoth(ResizeImage):
    """Resizes image and mask alike; the mask by exact nearest neighbour at pixel centres."""

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (3, H, W), mask (H, W), both uint8 -> image (3, h, w), mask (h, w)."""
        image, _ = super().__call__(image, mask)
        # v2.Resize takes the legacy nearest neighbour for masks, off by up to half a pixel.
        exact = InterpolationMode.NEAREST_EXACT
        return image, F.resize_image(mask[None], list(image.shape[-2:]), interpolation=exact)[0]


class Augment:
    """Random scale, square crop, flip and colour of a training image, by torch's global generator.

    Args:
        size: shorter side, in pixels, at scale 1.
        crop: side of the square that is cut out, in pixels; void fills up a smaller image.
        scale: smallest and largest scale; between them the logarithm is uniform.
        flip: mirrors each image with probability 1/2.
        jitter: brightness, contrast and saturation change by up to this share; not the hue, which
            would take as long as all else together.
    """

    def __init__(
        self,
        size: int,
        crop: int,
        scale: tuple[float, float] = (1.0, 1.0),
        flip: bool = False,
        jitter: float = 0.0,
    ):
        self.size, self.scale = size, scale
        steps: list[v2.Transform] = [v2.RandomHorizontalFlip()] if flip else []
        steps.append(v2.RandomCrop(crop, pad_if_needed=True, fill=PADDING))
        if jitter:
            steps.append(v2.ColorJitter(jitter, jitter, jitter))
        self.steps = v2.Compose(steps)

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """image (3, H, W), mask (H, W), both uint8 -> image (3, crop, crop), mask (crop, crop)."""
        low, high = self.scale
        scale = low * (high / low) ** torch.rand(()).item()
        image, mask = ResizeBoth(max(1, round(self.size * scale)))(image, mask)
        image, mask = self.steps(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)
