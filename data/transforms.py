"""How an image and its mask become the network's input: sizes, and augmentation in training."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from data.classes import VOID

DEFAULT_SIZE = 224  # shorter side of the network's input
MAX_ASPECT = 4  # longer side over `size`; a longer image shrinks further, so memory stays bounded,
LEAST_SIDE = 32  # but no side below this, which the backbones need: only then an image is squashed
GREY = (124, 116, 104)  # ImageNet's mean, which fills up crops


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `size` and the aspect ratio kept, in whole pixels.

    An image longer than `MAX_ASPECT` times its width, or wider, gets its longer side at
    `MAX_ASPECT * size` instead.
    """
    scale = min(size / min(height, width), MAX_ASPECT * size / max(height, width))
    least = min(size, LEAST_SIDE)
    return max(least, round(height * scale)), max(least, round(width * scale))


class ResizeImage:
    """An image (3, H, W) uint8 with its shorter side at `size`: see `resized_shape`."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        return F.resize_image(image, list(resized_shape(height, width, self.size)), antialias=True)


def resize_mask(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """A mask (H, W) uint8 at (height, width): the nearest pixel by pixel centres."""
    # v2.Resize takes the legacy nearest neighbour for masks, off by up to half a pixel.
    return F.resize_image(mask[None], list(shape), interpolation=InterpolationMode.NEAREST_EXACT)[0]


class Augment:
    """Random scale, square crop, flip and colour of a training image.

    Args:
        size: shorter side, in pixels, at scale 1.
        crop: side of the square that is cut out, in pixels; a smaller image lies somewhere in it,
            the rest of which is grey and void.
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
        self.size, self.crop, self.scale, self.flip, self.jitter = size, crop, scale, flip, jitter

    def __call__(self, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """image (3, H, W), mask (H, W), both uint8 -> image (3, crop, crop), mask (crop, crop).

        All that is random is drawn from the generator.
        """
        low, high = self.scale
        scale = low * (high / low) ** torch.rand((), generator=generator).item()
        image = ResizeImage(max(1, round(self.size * scale)))(image)
        mask = resize_mask(mask, image.shape[-2:])
        if self.flip and torch.rand((), generator=generator) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        image, mask = self._cut(image, mask, generator)
        if self.jitter:
            adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation
            changes = 1 + self.jitter * (2 * torch.rand(3, generator=generator) - 1)
            for index in torch.randperm(3, generator=generator).tolist():
                image = adjust[index](image, max(0.0, changes[index].item()))
        return image, mask

    def _cut(self, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """A square anywhere in image and mask, or where they are smaller, around them."""
        spares = [side - self.crop for side in mask.shape]
        top, left = (
            torch.randint(min(0, spare), max(0, spare) + 1, (), generator=generator).item()
            for spare in spares
        )
        rows, columns = (slice(max(0, start), start + self.crop) for start in (top, left))
        image, mask = image[:, rows, columns], mask[None, rows, columns]
        above, before = max(0, -top), max(0, -left)
        height, width = mask.shape[1:]
        around = [before, above, self.crop - before - width, self.crop - above - height]
        return F.pad(image, around, fill=list(GREY)), F.pad(mask, around, fill=[VOID])[0]
