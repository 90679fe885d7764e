"""The textbook network, which the project's is compared with: upsample, concatenate, then 1x1."""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.voc import Sample
from models.classifier import DenseClassifier
from models.segmenter import Segmenter


class Textbook(nn.Module):
    """A segmenter's function as the papers write it, on copies of its weights.

    Args:
        segmenter: on the CPU, its extractor with all taps, no context and no dilation.

    Attributes:
        features: torchvision's blocks, frozen, batch norm folded; called alone they are the bare
            backbone.
    """

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        blocks = deepcopy(segmenter.hypercolumn.features).to(memory_format=torch.contiguous_format)
        self.features, self.taps = nn.Sequential(*blocks).requires_grad_(False), blocks.ends
        self.head, self.stride = deepcopy(segmenter.head), segmenter.stride
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> what the backbone takes, float32."""
        return (images / 255 - self.mean) / self.std

    @torch.no_grad()
    def dense_map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> hypercolumns (B, Z, ceil(H / stride), ceil(W / stride))."""
        grid = [-(-side // self.stride) for side in images.shape[-2:]]
        x, levels = self.normalise(images), []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                levels.append(x)
        return torch.cat([upsample(level, grid) for level in levels], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> logits (B, C, ceil(H / stride), ceil(W / stride))."""
        return logits(self.head, self.dense_map(images))

    @torch.inference_mode()
    def predict(self, photo: Sample) -> list[Tensor]:
        """How probable the class ids are, and these, (height, width) as the photo; on the CPU."""
        logits = self.eval()(photo.image[None].to(self.mean.device))
        return [x.cpu() for x in upsample(logits.softmax(1), photo.mask.shape)[0].max(0)]

    def columns(self, photo: Sample, pixels: Tensor) -> Tensor:
        """Hypercolumns (n, Z) of the grid cells in which pixels (n, 2) of the mask lie."""
        dense = self.dense_map(photo.image[None].to(self.mean.device))[0]
        y, x = (pixels * torch.tensor(dense.shape[1:]) // torch.tensor(photo.mask.shape)).T
        return dense[:, y, x].T.cpu()


def logits(head: DenseClassifier, columns: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
    """Hypercolumns (B, Z, h, w) -> (B, C, h, w), layer after layer, `Dropout2d` written out.

    Of each hidden layer `kept` are the units (B, n) that dropout keeps; () is all.
    """
    x = (columns - head.mean.view(-1, 1, 1)) / head.std.view(-1, 1, 1)
    for index, layer in enumerate(head.layers[:-1]):
        x = head.activate(layer(x))
        if kept:
            is_kept = torch.zeros(x.shape[:2], dtype=x.dtype).scatter(1, kept[index], 1)
            x = x * is_kept[:, :, None, None] * x.shape[1] / kept[index].shape[1]
    return head.layers[-1](x)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
