"""The shallow classifier: fully connected on hypercolumns, the same as 1x1 convolutions, and its fast dense form."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.hypercolumn import resample, sample_level
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

    def on_levels(
        self, levels: Sequence[Tensor], size: tuple[int, int], generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """`forward(Hypercolumn.as_map(levels, size))`, to rounding, without ever building that map.

        In training the same random state drops the same units, and what is dropped is not computed. Under autocast the
        logits are float32 again.

        Args:
            levels: (B, C_l, h_l, w_l) each.
            size: (h, w) of the grid.
            generators: of each image, on the CPU, for dropout; None means torch's global one.

        Returns:
            Logits (B, C, h, w).
        """
        logits = self._by_image(levels, generators, lambda _, maps, layers: self._on_image(maps, size, layers))
        return logits.unflatten(-1, size).contiguous()

    def at_points(
        self, levels: Sequence[Tensor], points: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """`forward(Hypercolumn.at_points(levels, points))`, to rounding, at less than its cost.

        A level of fewer values than there are points passes the first layer before it is sampled, not after.

        Args:
            levels, generators: as for `on_levels`.
            points: (B, n, 2), (y, x) as fractions of height and width.

        Returns:
            Logits (B, C, n).
        """
        count = points.shape[1]
        sampled = [sample_level(lv, points).unsqueeze(-1) if lv[0, 0].numel() >= count else lv for lv in levels]
        return self._by_image(
            sampled, generators, lambda index, maps, layers: self._at_points(maps, points[index, None], layers)
        )

    def _by_image(
        self,
        levels: Sequence[Tensor],
        generators: Sequence[torch.Generator] | None,
        logits_of: Callable[[int, list[Tensor], list[tuple[Tensor, Tensor]]], Tensor],
    ) -> Tensor:
        """Logits (B, C, n), where logits_of(index, levels, layers) gives those of one image, (n, C).

        The layers are (weight, bias) with the standardisation and dropout in them.
        """
        first, _, drop_first, second, _, drop_second, last = self.layers
        device, dtype = first.weight.device.type, levels[0].dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        if generators and self.training:
            scales = torch.stack([self._draw_scales(generator) for generator in generators]).to(first.weight.device)
            first_scales, second_scales = scales.unbind(1)
        else:
            ones = first.weight.new_ones(len(levels[0]), self.hidden, 1, 1)
            first_scales, second_scales = (drop(ones).flatten(1) for drop in (drop_first, drop_second))
        logits = []
        with torch.autocast(device, enabled=False):
            (W1, b1), (W2, b2), (W3, b3) = ((layer.weight.flatten(1), layer.bias) for layer in (first, second, last))
            mean, std = self.standardise.mean, self.standardise.std
            if (
                dtype.itemsize >= 4
            ):  # the standardisation folds into the layer behind it: W' = W / std, b' = b - W' mean
                W1 = W1 / std
                b1 = b1 - W1 @ mean
            else:  # half precision is too coarse for what is large in them and cancels
                moments = zip(*(value.view(-1, 1, 1).split(self.channels) for value in (mean, std)))
                levels = [(level.float() - shift).div_(scale) for level, (shift, scale) in zip(levels, moments)]
            for index, (scale1, scale2) in enumerate(zip(first_scales, second_scales)):
                # A unit that is dropped in the whole image need not be computed, nor anything that comes of it.
                kept1, kept2 = (_kept(scale) if self.training else slice(None) for scale in (scale1, scale2))
                layers = [
                    (W1[kept1], b1[kept1]),
                    (W2[kept2][:, kept1] * scale1[kept1], b2[kept2]),
                    (W3[:, kept2] * scale2[kept2], b3),
                ]
                layers = [(weight.to(dtype), bias.to(dtype)) for weight, bias in layers]
                logits.append(logits_of(index, [level[index, None].to(dtype) for level in levels], layers))
        logits = torch.stack(logits).transpose(1, 2)
        return logits.float() if dtype in (torch.bfloat16, torch.float16) else logits

    def _draw_scales(self, generator: torch.Generator) -> Tensor:
        """Dropout's factors (2, hidden) of one image: 0 for a unit that is dropped, 1 / (1 - dropout) for others."""
        kept = torch.rand(2, self.hidden, generator=generator) >= self.dropout
        return kept.float() / (1 - self.dropout)

    def _on_image(self, levels: list[Tensor], size: tuple[int, int], layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits (h * w, C) of one image, from its levels (1, C_l, h_l, w_l) and (weight, bias) of the three layers."""
        (W1, b1), (W2, b2), (W3, b3) = layers
        fine, parts, coarse = [], [], []
        for level, part in zip(levels, W1.split(self.channels, dim=1)):
            if level.shape[-2] * level.shape[-1] >= size[0] * size[1]:
                fine.append(resample(level, size)[0].flatten(1).t())
                parts.append(part)
            else:
                hidden = (level[0].flatten(1).t() @ part.t()).unflatten(0, level.shape[-2:])
                across = bilinear(level.shape[-1], size[1], hidden.device, hidden.dtype).weights
                coarse.append((across @ hidden).flatten(1))
        tensors = [b1, W2, b2, W3, b3, *fine, *parts, *coarse]
        if not torch.is_grad_enabled():  # parameters would still ask for it, and have hidden maps kept
            tensors = [tensor.detach() for tensor in tensors]
        return StripHead.apply(size, len(fine), *tensors)

    def _at_points(self, levels: list[Tensor], points: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits (n, C) at points (1, n, 2) of one image, from its levels, some already there, (1, C_l, n, 1)."""
        (W1, b1), (W2, b2), (W3, b3) = layers
        terms: dict[tuple[int, int], Tensor] = {}  # of the first layer; levels of one resolution share theirs
        for level, part in zip(levels, W1.split(self.channels, dim=1)):
            shape, term = tuple(level.shape[-2:]), part @ level[0].flatten(1)
            terms[shape] = terms[shape] + term if shape in terms else term
        hidden = b1.unsqueeze(1) + terms.pop((points.shape[1], 1), 0)
        for shape, term in terms.items():
            hidden = hidden + sample_level(term.unflatten(-1, shape)[None], points)[0].to(hidden.dtype)
        second = torch.addmm(b2.unsqueeze(1), W2, hidden.relu()).relu()
        return torch.addmm(b3.unsqueeze(1), W3, second).t()


def _kept(scales: Tensor) -> Tensor:
    """Units (n,) that dropout leaves, by its factors (H,); one with factor 0 where it leaves none."""
    kept = scales.nonzero().squeeze(1)
    return kept if len(kept) else scales.new_zeros(1, dtype=torch.int64)


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
