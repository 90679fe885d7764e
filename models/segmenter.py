"""The whole network: image -> hypercolumn levels -> dense classifier -> logits -> class map at the original size."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn

CPU_BATCH = 2  # larger batches leave a CPU's caches and the allocator's reused memory, and take longer per image
STRIP = 1 << 22  # logits held at original resolution at a time: 16 MiB of float32, whatever the size of the photo


class Photo(Protocol):
    """What a prediction needs of an image: (3, h, w) uint8 with the shorter side resized, and its original size."""

    image: np.ndarray
    size: tuple[int, int]


AnyPhoto = TypeVar("AnyPhoto", bound=Photo)


class Segmenter(nn.Module):
    """Hypercolumn extractor and dense classifier, with what is needed to use them on an image.

    Args:
        hypercolumn, head: the two parts; the head's channels are the hypercolumn's.
        size: shorter side of the input images, in pixels.
        stride: the logits' grid is the input size over this, rounded up, in each direction.
        names: class names, C of them; colours: their RGB colours, 0..255.

    Attributes:
        trained_on: the images that the head has been trained on, in words, to be stated beside every score.
    """

    def __init__(
        self,
        hypercolumn: Hypercolumn,
        head: DenseClassifier,
        size: int,
        stride: int,
        names: Sequence[str],
        colours: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.hypercolumn, self.head = hypercolumn, head
        self.size, self.stride = size, stride
        self.trained_on = "nothing"
        self.names, self.colours = list(names), [list(colour) for colour in colours]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the logits for a batch (B, 3, H, W)."""
        height, width = images.shape[-2:]
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB, uint8 0..255 or float 0..1 -> logits (B, C, ceil(H / stride), ceil(W / stride))."""
        return self.head.on_levels(self.hypercolumn(images), self.grid(images))

    @torch.inference_mode()
    def predict(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Class maps of photos, each at its original size; those of one size go through together.

        Dropout is off for the call; a module in training mode comes back in training mode.

        Returns:
            (height, width) uint8 class ids each, in the order of the photos.
        """
        was_training, device = self.training, self.hypercolumn.mean.device
        maps: list[np.ndarray | None] = [None] * len(photos)
        try:
            self.eval()
            for indices in same_size([photo.image for photo in photos], device):
                images = torch.from_numpy(np.stack([photos[index].image for index in indices]))
                for index, logits in zip(indices, self(images.to(device))):
                    maps[index] = argmax_at(logits, photos[index].size).cpu().numpy()
        finally:
            self.train(was_training)
        return maps

    def predict_all(self, batches: Iterable[Sequence[AnyPhoto]]) -> Iterator[tuple[AnyPhoto, np.ndarray]]:
        """Each photo of the batches with its class map, one after the other; see `predict`."""
        for photos in batches:
            yield from zip(photos, self.predict(photos))


def same_size(images: Sequence[np.ndarray], device: torch.device) -> Iterator[list[int]]:
    """Groups of indices of the images (3, h, w) that have one size: each group is a batch without padding.

    On a CPU a group has at most `CPU_BATCH` images.
    """

    def shape(index: int) -> tuple[int, ...]:
        return images[index].shape

    for _, group in groupby(sorted(range(len(images)), key=shape), key=shape):
        indices = list(group)
        at_once = CPU_BATCH if device.type == "cpu" else len(indices)
        for start in range(0, len(indices), at_once):
            yield indices[start : start + at_once]


def argmax_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The most likely class at a larger (or smaller) size: bilinear logits, then argmax, strip by strip of rows.

    Equals `F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(channel)`, without holding the
    logits of a whole large photo.

    Args:
        logits: (C, h, w) floating point.
        size: (H, W).

    Returns:
        (H, W) uint8.
    """
    (channels, source_height, _), (height, width) = logits.shape, size
    places = ((torch.arange(height, device=logits.device) + 0.5) * (source_height / height) - 0.5).clamp(min=0)
    above = places.long().clamp(max=source_height - 1)
    below = (above + 1).clamp(max=source_height - 1)
    share = (places - above).to(logits.dtype).view(-1, 1)
    strips = []
    for rows in torch.arange(height, device=logits.device).split(max(1, STRIP // (channels * width))):
        strip = torch.lerp(logits[:, above[rows]], logits[:, below[rows]], share[rows])
        strip = F.interpolate(strip[None], (len(rows), width), mode="bilinear", align_corners=False)[0]
        strips.append(strip.argmax(0).to(torch.uint8))
    return torch.cat(strips)
