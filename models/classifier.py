"""The shallow classifier: fully connected, the same as 1x1 convolutions, and fast on levels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hypercolumn import resample, sample_level

STRIP = 1 << 19  # hidden values in a strip of the grid: 2 MiB of float32 stay in the CPU's cache

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}

Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)


class Standardise(nn.Module):
    """x = (x - mean) / std per channel, the course's first layer; both are buffers.

    A constant feature (std 0, or rounding of its mean) is only centred: divided by 1.

    Args:
        mean, std: (Z,) float.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        mean, std = torch.as_tensor(mean).float(), torch.as_tensor(std).float()
        is_constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", torch.where(is_constant, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z) or (B, Z, h, w) -> the same shape."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)


@dataclass(frozen=True)
class HiddenLayers:
    """What a classifier has between its features and its logits.

    Attributes:
        widths: of the layers; without any, the classifier is linear.
        activation: a name in `ACTIVATIONS`.
        dropout: probability of dropping a hidden unit in training.
    """

    widths: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    dropout: float = 0.5

    def __str__(self) -> str:
        if not self.widths:
            return "linear"
        widths = " -> ".join(map(str, self.widths))
        return f"{widths}, {self.activation}, dropout {self.dropout:g}"

    def layers(
        self,
        features: int,
        classes: int,
        linear: Callable[[int, int], nn.Module],
        dropout: type[nn.Module],
    ) -> nn.Sequential:
        """The layers, from `features` channels to `classes` logits."""
        layers = []
        for width in self.widths:
            activation = ACTIVATIONS[self.activation]()
            layers += [linear(features, width), activation, dropout(self.dropout)]
            features = width
        return nn.Sequential(*layers, linear(features, classes))


class FCClassifier(nn.Module):
    """Hypercolumns (N, Z) -> logits (N, C): standardisation, then linear layers.

    Args:
        mean, std: (Z,) moments of the sampled features.
        classes: C.
        hidden: its hidden layers; by default the course's, so that 3 linear layers are there.
    """

    def __init__(
        self, mean: Tensor, std: Tensor, classes: int, hidden: HiddenLayers = HiddenLayers()
    ):
        super().__init__()
        self.classes, self.hidden = classes, hidden
        self.standardise = Standardise(mean, std)
        self.layers = hidden.layers(len(mean), classes, nn.Linear, nn.Dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z) float -> (N, C) logits."""
        return self.layers(self.standardise(x))


class DenseClassifier(nn.Module):
    """The same classifier as 1x1 convolutions: at every pixel equal to its `FCClassifier`.

    `forward` is the textbook form on a dense map. `on_grid` and `at_points` give the same from the
    levels, much faster: a 1x1 convolution commutes with bilinear resampling (whose weights sum
    to 1), so the first layer is split by level, works at the resolution of each coarse level, and
    only its `hidden` channels are brought to the grid, or to the points, and added.

    In training, dropout drops a hidden unit in a whole image: neighbouring pixels are too alike for
    anything less to be noise (Tompson et al., "Efficient Object Localization Using Convolutional
    Networks", CVPR 2015). A unit that is dropped is not computed.

    Args:
        channels: channels of each level; Z is their sum.
        mean, std, classes, hidden: as for `FCClassifier`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        mean: Tensor,
        std: Tensor,
        classes: int,
        hidden: HiddenLayers = HiddenLayers(),
    ):
        super().__init__()
        self.channels, self.classes, self.hidden = list(channels), classes, hidden
        self.activation = ACTIVATIONS[hidden.activation]()
        self.standardise = Standardise(mean, std)
        convolution = partial(nn.Conv2d, kernel_size=1)
        self.layers = hidden.layers(sum(channels), classes, convolution, nn.Dropout2d)

    @classmethod
    def from_fc(cls, fc: FCClassifier, channels: Sequence[int]) -> "DenseClassifier":
        """Turns every linear layer (out, in) into a 1x1 convolution (out, in, 1, 1)."""
        dense = cls(channels, fc.standardise.mean, fc.standardise.std, fc.classes, fc.hidden)
        shapes = {key: value.shape for key, value in dense.state_dict().items()}
        dense.load_state_dict({k: v.view(shapes[k]) for k, v in fc.state_dict().items()})
        return dense

    def renew_last_layer(self, classes: int, seed: int) -> None:
        """Gives the head another number of classes; its last layer starts at random."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers[-1] = nn.Conv2d(self.layers[-1].in_channels, classes, 1)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """Hypercolumn map (B, Z, h, w) float -> logits (B, C, h, w)."""
        return self.layers(self.standardise(x))

    def on_grid(
        self,
        levels: Sequence[Tensor],
        size: tuple[int, int],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """`forward(Hypercolumn.as_map(levels, size))`, to rounding, without that map.

        Args:
            levels: (B, C_l, h_l, w_l) each.
            size: (h, w) of the grid.
            generators: for dropout, one per image, on the CPU; None means torch's global one.

        Returns:
            Logits (B, C, h, w).
        """

        def to_grid(level: Tensor) -> Tensor:
            return channels_last(resample(level, size))

        logits = []
        for image, layers in self._images(levels, generators):
            if image[0].device.type == "cpu" and not torch.is_grad_enabled():
                logits.append(self._in_strips(image, size, layers))
            else:
                x = self._first_layer(image, layers[0], size[0] * size[1], to_grid)
                logits.append(self._other_layers(x, layers))
        return torch.cat(logits).permute(0, 3, 1, 2)

    def at_points(
        self,
        levels: Sequence[Tensor],
        points: Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """`forward` of the hypercolumns at n points of each image, to rounding.

        Args:
            levels, generators: as for `on_grid`.
            points: (B, n, 2), (y, x) as shares of height and width.

        Returns:
            Logits (B, C, n).
        """
        logits = []
        for (image, layers), place in zip(self._images(levels, generators), points.split(1)):
            at_place = partial(sample_level, points=place)
            x = self._first_layer(image, layers[0], points.shape[1], at_place)
            logits.append(self._other_layers(x, layers))
        return torch.cat(logits).transpose(1, 2)

    def _images(
        self, levels: Sequence[Tensor], generators: Sequence[torch.Generator] | None
    ) -> Iterator[tuple[tuple[Tensor, ...], list[Layer]]]:
        """The levels (1, C_l, h_l, w_l) of each image, and its layers.

        Dropout leaves other units to each image, so each has its own, smaller layers.
        """
        images = zip(*(level.split(1) for level in levels))
        for image, generator in zip(images, generators or [None] * len(levels[0])):
            yield image, self._layers(generator)

    def _layers(self, generator: torch.Generator | None) -> list[Layer]:
        """The layers; in training without the hidden units that dropout drops in one image."""
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        layers = [(conv.weight.flatten(1), conv.bias) for conv in convolutions]
        dropout = self.hidden.dropout
        if not self.training or not dropout:
            return layers
        for index in range(len(layers) - 1):
            (weight, bias), (following, following_bias) = layers[index : index + 2]
            kept = torch.rand(len(bias), generator=generator) >= dropout
            kept[0] |= not kept.any()  # no map without channels can be resampled
            kept = kept.nonzero().squeeze(1).to(bias.device)  # nonzero waits for a GPU's queue
            layers[index] = weight[kept], bias[kept]
            layers[index + 1] = following[:, kept] / (1 - dropout), following_bias
        return layers

    def _first_layer(
        self,
        levels: Sequence[Tensor],
        layer: Layer,
        places: int,
        read: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The first layer at some places of one image: (1, .., hidden).

        Args:
            levels: (1, C_l, h_l, w_l) each.
            places: how many there are.
            read: gives a map (1, n, h, w) at the places: (1, .., n).
        """
        weight, hidden = layer
        fine, coarse = self._by_resolution(levels, weight, places)
        for level, part, mean, std in fine:
            hidden = hidden + F.linear((read(level) - mean) / std, part)
        for term in coarse:
            hidden = hidden + read(term)
        return hidden

    def _by_resolution(
        self, levels: Sequence[Tensor], weight: Tensor, places: int
    ) -> tuple[list[tuple[Tensor, ...]], list[Tensor]]:
        """The first layer, but for its bias, on the levels that have fewer pixels than places.

        Returns:
            The finer levels, each with its columns of the weight, its means and its stds; and what
            the layer makes of the coarse ones, (1, hidden, h, w), one for each resolution.
        """
        of_levels = (
            tensor.split(self.channels, dim=-1)
            for tensor in (weight, self.standardise.mean, self.standardise.std)
        )
        fine, coarse = [], {}
        for level, part, mean, std in zip(levels, *of_levels):
            if level[0, 0].numel() >= places:
                fine.append((level, part, mean, std))
            else:
                term = F.linear((channels_last(level) - mean) / std, part)
                shape = level.shape[-2:]
                coarse[shape] = coarse[shape] + term if shape in coarse else term
        return fine, [term.permute(0, 3, 1, 2) for term in coarse.values()]

    def _in_strips(
        self, levels: Sequence[Tensor], size: tuple[int, int], layers: list[Layer]
    ) -> Tensor:
        """The logits of one image (1, h, w, C), a strip of rows at a time, without gradients.

        Whole hidden maps would go through main memory, which takes longer than the arithmetic.
        Upsampling is done across first, then down as a product with torch's own weights.
        """
        weight, bias = layers[0]
        levels, terms = self._by_resolution(levels, weight, size[0] * size[1])
        fine, coarse = [], []
        for level, part, mean, std in levels:
            x = channels_last(resample(level, size))[0]
            fine.append(((x - mean) / std, part))
        for term in terms:
            height = term.shape[2]
            across = channels_last(resample(term, (height, size[1])))[0]
            identity = torch.eye(height, dtype=term.dtype)[None, None]
            down = resample(identity, (size[0], height))[0, 0]
            coarse.append((down, across.flatten(1)))
        logits = []
        count = max(1, STRIP // (size[1] * len(bias)))
        for start in range(0, size[0], count):
            rows = slice(start, start + count)
            # Added to in place: a new map for each sum would take longer than the sum.
            hidden = bias.repeat(min(count, size[0] - start), size[1], 1)
            for level, part in fine:
                hidden += F.linear(level[rows], part)
            for down, across in coarse:
                used = down[rows].any(dim=0).nonzero()
                near = slice(int(used[0]), int(used[-1]) + 1)
                hidden += (down[rows, near] @ across[near]).view(-1, size[1], len(bias))
            logits.append(self._other_layers(hidden, layers))
        return torch.cat(logits)[None]

    def _other_layers(self, hidden: Tensor, layers: Sequence[Layer]) -> Tensor:
        """What follows the first of the layers, on its result (.., hidden): logits (.., C)."""
        for weight, bias in layers[1:]:
            hidden = F.linear(self.activation(hidden), weight, bias)
        return hidden


def channels_last(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C), a view."""
    return x.permute(0, 2, 3, 1)
