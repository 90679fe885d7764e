"""Sizes: how an image and its mask are brought to the network's input, together."""

from collections.abc import Callable

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

MAX_ASPECT = 4  # longer side over `size`; a more elongated image shrinks further, so that memory stays bounded,
LEAST_SIDE = 32  # but no side below this, which the backbones need: only there is an image squashed

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
