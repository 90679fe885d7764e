"""How an image and its mask become the network's input: sizes, and augmentation in training."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from data.classes import VOID

MAX_ASPECT = 4  # longer side over `size`; a longer image shrinks further, so memory stays bounded,
LEAST_SIDE = 32  # but no side below this, which the backbones need: only then an image is squashed
GREY = (124, 116, 104)  # ImageNet's mean, which fills up crops

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
        height, width = image.shape[-2:]
        shape = list(resized_shape(height, width, self.size))
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
        image, mask = ResizeBoth(max(1, round(self.size * scale)))(image, mask)
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
        squares = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, *[self.crop] * 2)
        labels = torch.full([self.crop] * 2, VOID, dtype=torch.uint8)
        sources, targets = [], []
        for side in mask.shape:
            spare = side - self.crop
            start = torch.randint(min(0, spare), max(0, spare) + 1, (), generator=generator).item()
            sources.append(slice(max(0, start), min(side, start + self.crop)))
            targets.append(slice(max(0, -start), min(self.crop, side - start)))
        squares[:, targets[0], targets[1]] = image[:, sources[0], sources[1]]
        labels[targets[0], targets[1]] = mask[sources[0], sources[1]]
        return squares, labels
