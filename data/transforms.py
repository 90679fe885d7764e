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

    def __call__(
        self,
        image: Tensor,
        mask: Tensor,
        generator: Generator,
        behind: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """image (3, H, W), mask (H, W), both uint8 -> image (3, crop, crop), mask (crop, crop).

        All that is random is drawn from the generator.

        Args:
            behind: such a square, in which the image is put; default: grey and void.
        """
        low, high = self.scale
        scale = low * (high / low) ** torch.rand((), generator=generator).item()
        image = ResizeImage(max(1, round(self.size * scale)))(image)
        mask = resize_mask(mask, image.shape[-2:])
        if self.flip and torch.rand((), generator=generator) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        (rows, to_rows), (columns, to_columns) = (
            self._overlap(side, generator) for side in mask.shape
        )
        image, mask = image[:, rows, columns], mask[rows, columns]
        if self.jitter:
            adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation
            changes = 1 + self.jitter * (2 * torch.rand(3, generator=generator) - 1)
            for index in torch.randperm(3, generator=generator).tolist():
                image = adjust[index](image, max(0.0, changes[index].item()))
        square, labels = behind or (
            torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, self.crop, self.crop),
            torch.full((self.crop, self.crop), VOID, dtype=torch.uint8),
        )
        square[:, to_rows, to_columns], labels[to_rows, to_columns] = image, mask
        return square, labels

    def _overlap(self, side: int, generator: Generator) -> tuple[slice, slice]:
        """What image and square share of their sides: the smaller lies anywhere in the larger."""
        spare, length = side - self.crop, min(side, self.crop)
        start = torch.randint(min(0, spare), max(0, spare) + 1, (), generator=generator).item()
        of_image, of_square = max(0, start), max(0, -start)
        return slice(of_image, of_image + length), slice(of_square, of_square + length)
