"""The textbook network, which the project's own is compared with: every level upsampled, all stacked, then 1x1."""

from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.voc import Sample
from models.backbones import empty_features, find_taps
from models.segmenter import Segmenter


class Textbook(nn.Module):
    """A segmenter's function as the papers write it, on copies of its weights, in torchvision's contiguous layout.

    Args:
        segmenter: on the CPU, its extractor with all taps.

    Attributes:
        features: torchvision's own `features`, frozen; called alone they are the bare backbone.
    """

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        hypercolumn = segmenter.hypercolumn
        self.features = empty_features(hypercolumn.backbone).to_empty(device="cpu").requires_grad_(False)
        self.features.load_state_dict(hypercolumn.features.state_dict())
        self.taps, self.stride = find_taps(hypercolumn.backbone, self.features), segmenter.stride
        self.head = deepcopy(segmenter.head)
        self.register_buffer("mean", hypercolumn.mean.clone())
        self.register_buffer("std", hypercolumn.std.clone())

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> what the backbone takes, float32, contiguous."""
        return ((images / 255 - self.mean) / self.std).contiguous()

    @torch.no_grad()
    def dense_map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> hypercolumns (B, Z, ceil(H / stride), ceil(W / stride)) float32."""
        grid = [-(-side // self.stride) for side in images.shape[-2:]]
        x, levels = self.normalise(images), []
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self.taps:
                levels.append(F.interpolate(x, size=grid, mode="bilinear", align_corners=False))
        return torch.cat(levels, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> logits (B, C, ceil(H / stride), ceil(W / stride))."""
        return self.head(self.dense_map(images))

    @torch.inference_mode()
    def predict(self, photo: Sample) -> np.ndarray:
        """(height, width) class ids at the photo's original size."""
        logits = self.eval()(torch.from_numpy(photo.image)[None].to(self.mean.device))
        return F.interpolate(logits, size=photo.size, mode="bilinear", align_corners=False)[0].argmax(0).cpu().numpy()

    @torch.inference_mode()
    def columns(self, sample: Sample, pixels: np.ndarray) -> np.ndarray:
        """Hypercolumns (n, Z) of the grid cells in which the pixels (n, 2: y, x in the original image) lie."""
        dense = self.dense_map(torch.from_numpy(sample.image)[None].to(self.mean.device))[0]
        y, x = (pixels * dense.shape[1:] // sample.size).T
        return dense[:, y, x].T.cpu().numpy()

    @torch.no_grad()
    def near_kinks(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Pixels (B, *size) that draw on a hidden unit so near 0 that rounding decides what its ReLU lets through."""
        x = self.head.standardise(self.dense_map(images))
        near = torch.zeros_like(x[:, :1], dtype=torch.bool)
        for layer in self.head.eval().layers:
            if isinstance(layer, nn.ReLU):
                near |= (x.abs() < 1e-5).any(dim=1, keepdim=True)
            x = layer(x)
        return F.interpolate(near.float(), size=size, mode="bilinear", align_corners=False)[:, 0] > 0
