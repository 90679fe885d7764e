"""The shallow classifier: fully connected on hypercolumns, the same as 1x1 convolutions, and its fast dense form."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hypercolumn import resample
from models.strips import StripHead, bilinear


class Standardise(nn.Module):
    """x = (x - mean) / std per channel, the course's first layer; mean and std are buffers, not parameters.

    A constant feature (std 0, or too small for a float32 to tell from rounding) is only centred: divided by 1.

    Args:
        mean, std: (Z,) float.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        mean, std = torch.as_tensor(mean).float(), torch.as_tensor(std).float()
        constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", torch.where(constant, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z) or (B, Z, h, w), channels in dimension 1 -> the same shape."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)


class FCClassifier(nn.Module):
    """Hypercolumns (N, Z) -> logits (N, C): standardisation, then 3 linear layers with ReLU and dropout between.

    Args:
        mean, std: (Z,) moments of the sampled features.
        classes: C.
        hidden: width of the two hidden layers.
        dropout: probability of dropping a hidden unit in training.
    """

    def __init__(self, mean: Tensor, std: Tensor, classes: int, hidden: int = 256, dropout: float = 0.5):
        super().__init__()
        self.classes = classes
        self.standardise = Standardise(mean, std)
        self.layers = _layers(nn.Linear, nn.Dropout, len(mean), hidden, classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z) float -> (N, C) logits."""
        return self.layers(self.standardise(x))


class DenseClassifier(nn.Module):
    """The same classifier as 1x1 convolutions: at every pixel equal to the `FCClassifier` it is made from.

    `forward` is the textbook form on a dense map. `on_levels` is the same function of the levels, much faster: a 1x1
    convolution commutes with bilinear resampling (whose weights sum to 1), so the first layer is split by level, works
    at each level's own resolution, and only its `hidden` channels are brought to the grid and added.

    In training, dropout drops a hidden unit in a whole image at once: neighbouring pixels are too alike for anything
    less to be noise (Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015), and it
    costs nothing.

    Args:
        channels: channels of each level; Z is their sum.
        mean, std: (Z,) moments of the sampled features.
        classes, hidden, dropout: as for `FCClassifier`.
    """

    def __init__(
        self, channels: Sequence[int], mean: Tensor, std: Tensor, classes: int, hidden: int = 256, dropout: float = 0.5
    ):
        super().__init__()
        self.channels, self.hidden, self.dropout = list(channels), hidden, dropout
        self.standardise = Standardise(mean, std)
        self.layers = _layers(_conv1x1, nn.Dropout2d, sum(channels), hidden, classes, dropout)

    @classmethod
    def from_fc(cls, fc: FCClassifier, channels: Sequence[int]) -> "DenseClassifier":
        """Turns every linear layer (out, in) into a 1x1 convolution (out, in, 1, 1) with the same weights."""
        first, last, dropout = fc.layers[0], fc.layers[-1], fc.layers[2]
        dense = cls(channels, fc.standardise.mean, fc.standardise.std, last.out_features, first.out_features, dropout.p)
        dense.load_state_dict(
            {
                key: value[..., None, None] if key.startswith("layers") and value.ndim == 2 else value
                for key, value in fc.state_dict().items()
            }
        )
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """Hypercolumn map (B, Z, h, w) float -> logits (B, C, h, w)."""
        return self.layers(self.standardise(x))

    def on_levels(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """`forward(Hypercolumn.as_map(levels, size))`, to rounding, without ever building that map.

        In training the same random state drops the same units. Under autocast the logits are float32 again.

        Args:
            levels: (B, C_l, h_l, w_l) each.
            size: (h, w) of the grid.

        Returns:
            Logits (B, C, h, w).
        """
        first, _, drop_first, second, _, drop_second, last = self.layers
        # The standardisation folds into the layer behind it: W' = W / std, b' = b - W' mean.
        weight = first.weight.flatten(1) / self.standardise.std
        bias = first.bias - weight @ self.standardise.mean
        fine, parts, coarse = [], [], []
        for level, part in zip(levels, weight.split(self.channels, dim=1)):
            if level.shape[-2] * level.shape[-1] >= size[0] * size[1]:
                fine.append(resample(level, size).permute(0, 2, 3, 1).flatten(1, 2))
                parts.append(part)
            else:
                hidden = F.linear(level.permute(0, 2, 3, 1), part)
                across = bilinear(level.shape[-1], size[1], hidden.device, hidden.dtype).weights
                coarse.append((across @ hidden).flatten(2))
        # Dropping a unit in a whole image is dropping a column of the next layer's weights for that image.
        ones = weight.new_ones(len(levels[0]), self.hidden, 1, 1)
        seconds = second.weight.flatten(1) * drop_first(ones).flatten(1).unsqueeze(1)
        lasts = last.weight.flatten(1) * drop_second(ones).flatten(1).unsqueeze(1)

        device, dtype = weight.device.type, levels[0].dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        logits = []
        with torch.autocast(device, enabled=False):
            for W2, W3, *image in zip(*(values.to(dtype).unbind() for values in (seconds, lasts, *fine, *coarse))):
                tensors = [*image[: len(fine)], *parts, *image[len(fine) :]]
                rest = [value.to(dtype) for value in (bias, W2, second.bias, W3, last.bias, *tensors)]
                if not torch.is_grad_enabled():  # parameters would still ask for it, and have hidden maps kept
                    rest = [value.detach() for value in rest]
                logits.append(StripHead.apply(size, len(fine), *rest))
        logits = torch.stack(logits).transpose(1, 2).unflatten(-1, size).contiguous()
        return logits.float() if dtype in (torch.bfloat16, torch.float16) else logits


def _layers(
    linear: Callable[[int, int], nn.Module],
    drop: Callable[[float], nn.Module],
    inputs: int,
    hidden: int,
    classes: int,
    dropout: float,
) -> nn.Sequential:
    return nn.Sequential(
        linear(inputs, hidden),
        nn.ReLU(inplace=True),
        drop(dropout),
        linear(hidden, hidden),
        nn.ReLU(inplace=True),
        drop(dropout),
        linear(hidden, classes),
    )


def _conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=1)
