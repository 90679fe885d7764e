"""The shallow classifier: fully connected to be read and trained on, dense to be fast.

`FCClassifier` is the form of the papers. `DenseClassifier` is the same function on the levels of a
`Hypercolumn`, for prediction, training and export; tests/models/test_classifier.py shows that both
are equal, gradients included.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hypercolumn import read

ACTIVATIONS = ("relu", "gelu", "leaky_relu", "tanh")  # of torch.nn.functional


class Classifier(nn.Module):
    """What both forms have: the standardisation, as buffers, and layers, by default three.

    A constant feature (std 0, or rounding of its mean) is only centred: divided by 1.

    Args:
        mean, std: (Z,) moments of the sampled features.
        classes: C.
        widths: of the hidden layers; () is a linear classifier.
        activation: between layers, one of `ACTIVATIONS`.
        dropout: share of the hidden units that training leaves out.
        input_dropout: of the fully connected form, share of the features that training replaces by
            their mean.
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        classes: int,
        widths: Sequence[int] = (256, 256),
        activation: str = "relu",
        dropout: float = 0.5,
        input_dropout: float = 0.0,
    ):
        super().__init__()
        self.widths, self.activation = tuple(widths), activation
        self.dropout, self.input_dropout = dropout, input_dropout
        self.activate = getattr(F, activation)
        mean, std = mean.float(), std.float()
        is_constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", torch.where(is_constant, 1.0, std))
        ends = pairwise([len(mean), *widths, classes])
        self.layers = nn.ModuleList(self.layer(inputs, outputs) for inputs, outputs in ends)

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        """A new layer, with random weights."""
        return nn.Linear(inputs, outputs)


class FCClassifier(Classifier):
    """Hypercolumns -> logits, as step 2 trains it."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z) -> (N, C)."""
        x = (x - self.mean) / self.std
        if self.training and self.input_dropout:  # F.dropout takes four times as long on a CPU
            x = x * (torch.rand_like(x) >= self.input_dropout) / (1 - self.input_dropout)
        for layer in self.layers[:-1]:
            x = F.dropout(self.activate(layer(x)), self.dropout, self.training)
        return self.layers[-1](x)


class DenseClassifier(Classifier):
    """The same as 1x1 convolutions, on the levels.

    A 1x1 convolution commutes with bilinear resampling, whose weights sum to 1. So the first one is
    split by level: on a level with fewer pixels than there are places it works before the level is
    read, and only its `widths[0]` channels are.

    Args:
        channels: of each level; Z is their sum.
        arguments, options: see `Classifier`.

    Attributes:
        read_first: for each level whether it is read before the first layer works on it; None
            leaves it to their sizes. `models.export` sets it, where these are not known.
    """

    def __init__(self, channels: Sequence[int], *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.channels = list(channels)
        self.read_first: Sequence[bool] | None = None

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        """A new 1x1 convolution: a linear layer at each pixel."""
        return nn.Conv2d(inputs, outputs, 1)

    @classmethod
    def from_fc(cls, fc: FCClassifier, channels: Sequence[int]) -> "DenseClassifier":
        """Turns every fully connected layer (out, in) into a 1x1 convolution (out, in, 1, 1)."""
        classes = fc.layers[-1].out_features
        dense = cls(channels, fc.mean, fc.std, classes, fc.widths, fc.activation, fc.dropout)
        with torch.no_grad():
            for convolution, layer in zip(dense.layers, fc.layers):
                convolution.weight.copy_(layer.weight.view(*layer.weight.shape, 1, 1))
                convolution.bias.copy_(layer.bias)
        return dense.to(fc.mean.device)

    def forward(
        self, levels: Sequence[Tensor], where: Tensor | tuple[int, int], kept: Sequence[Tensor] = ()
    ) -> Tensor:
        """The logits (B, C, h, w) on a grid, or (B, C, n) at points of the images.

        Args:
            levels: (B, C_l, h_l, w_l) each.
            where: a grid (h, w), or points (B, n, 2): (y, x) as shares of height and width.
            kept: in training, the hidden units of each image that dropout keeps, (B, k) int64 a
                layer; () keeps all. A unit is left out in a whole image: neighbouring pixels are
                too alike for anything less to be noise (Tompson et al., "Efficient Object
                Localization Using Convolutional Networks", CVPR 2015). It is not computed.
        """
        (weight, bias), *others = self.kept_layers(kept)
        places = where.shape[1] if isinstance(where, Tensor) else where[0] * where[1]
        # In place it takes a map less, but its gradient is slow: autograd copies what views share.
        add = Tensor.add if torch.is_grad_enabled() else Tensor.add_
        terms: dict[str, Tensor] = {}  # sums of levels of one size; as text, for torch.export
        columns = zip(weight.split(self.channels, -1), self.mean.split(self.channels))
        for index, (level, (weight, mean)) in enumerate(zip(levels, columns)):
            x = level.movedim(1, -1)
            is_fine = (
                self.read_first[index] if self.read_first else x.shape[1] * x.shape[2] >= places
            )
            size = "read" if is_fine else str(x.shape[1:3])
            term = linear((read(x, where) if is_fine else x) - mean, weight, bias)
            terms[size] = add(terms[size], term) if size in terms else term
            bias = None  # once is enough
        x = terms.pop("read", None)
        while terms:  # each is freed once it is added
            term = read(terms.pop(next(iter(terms))), where)
            x = term if x is None else add(x, term)
        for weight, bias in others:
            x = linear(self.activate(x), weight, bias)
        return x.movedim(-1, 1)

    def kept_layers(self, kept: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Weights (out, in) and bias (out,) of each layer, for features less their mean.

        With `kept`, of each image: weights (B, out, in) between units that are kept, larger by the
        share that is not.
        """
        layers = [(layer.weight.flatten(1), layer.bias) for layer in self.layers]
        layers[0] = layers[0][0] / self.std, layers[0][1]
        for index, units in enumerate(kept):
            (weight, bias), (following, its_bias) = layers[index : index + 2]
            if index:
                weight = weight.gather(1, units[:, :, None].expand(-1, -1, weight.shape[2]))
            else:
                weight = F.embedding(units, weight)
            layers[index] = weight, F.embedding(units, bias[:, None])[:, :, 0]
            following = F.embedding(units, following.mT * (len(bias) / units.shape[1])).mT
            layers[index + 1] = following, its_bias
        return layers


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` of (B, .., in), also with weights (B, out, in), or biases, of each image."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    rows, weight = x.flatten(1, -2), weight.mT
    if bias is None:
        return torch.bmm(rows, weight).view(*x.shape[:-1], -1)
    return torch.baddbmm(bias[..., None, :], rows, weight).view(*x.shape[:-1], -1)


@torch.inference_mode()
def largest_difference(fc: FCClassifier, dense: DenseClassifier, features: Tensor) -> float:
    """The largest difference of the two forms' logits for (n, Z), over the largest logit."""
    expected = fc.eval()(features)
    levels = features.T[None, :, :, None].split(dense.channels, dim=1)  # maps (1, C_l, n, 1)
    found = dense.eval()(levels, (len(features), 1))[0, :, :, 0].T
    return ((found - expected).abs().max() / expected.abs().max()).item()
