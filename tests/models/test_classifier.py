"""The classifier: one function in three forms, fully connected, 1x1, and fast on the levels."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.classifier import DenseClassifier, FCClassifier, Standardise
from models.hypercolumn import Hypercolumn, pixel_centres

CLASSES, HIDDEN = 5, 16
SEEDS = (11, 12)  # of the dropout of two images


def assert_equal(found, expected, tolerance=1e-8) -> None:
    """Equal to a share of the largest expected value, which is not 0."""
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def head_for(channels, mean=None, std=None, hidden=HIDDEN, dropout=0.3) -> DenseClassifier:
    torch.manual_seed(1)
    mean = torch.randn(sum(channels)) if mean is None else mean
    std = torch.rand(sum(channels)) + 0.5 if std is None else std
    return DenseClassifier(channels, mean, std, CLASSES, hidden, dropout).double().eval()


def textbook(head: DenseClassifier, columns: Tensor) -> Tensor:
    """The logits of hypercolumns (B, Z, h, w), dropout written out where the head is in training."""
    x = head.standardise(columns)
    first, _, _, second, _, _, third = head.layers
    factors = torch.ones(len(x), 2, head.hidden, dtype=x.dtype)
    if head.training:
        for image, generator in enumerate(generators()):
            drawn = torch.stack([torch.rand(head.hidden, generator=generator) for _ in range(2)])
            factors[image] = (drawn >= head.dropout) / (1 - head.dropout)
    x = first(x).relu() * factors[:, 0, :, None, None]
    return third(second(x).relu() * factors[:, 1, :, None, None])


def with_gradients(logits: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Logits (B, C, ..) and gradients of a sum that weighs each of them differently."""
    factors = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view(logits.shape)
    return [logits.detach(), *torch.autograd.grad((logits * factors).sum(), parameters)]


@cache
def network(backbone: str) -> tuple[Hypercolumn, DenseClassifier]:
    """An unfrozen extractor and a head with the moments of its levels, in float64; shared."""
    hypercolumn = Hypercolumn(backbone, "random", seed=1).double()
    levels = hypercolumn(images(96, 90))
    mean, std = (torch.cat([getattr(x, of)((0, 2, 3)) for x in levels]) for of in ("mean", "std"))
    hypercolumn.unfreeze()
    return hypercolumn, head_for(hypercolumn.channels, mean, std)


def images(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)


# Standardisation and the fully connected form


def test_standardised_features_have_mean_0_and_std_1():
    features = torch.randn(50, 3) * torch.tensor([1.0, 10, 0.1]) + torch.tensor([5.0, -3, 0])
    standardise = Standardise(features.mean(0), features.std(0, correction=0))
    for found in (standardise(features), standardise(features.T[None, :, :, None])[0, :, :, 0].T):
        torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.std(0, correction=0), torch.ones(3))
    assert not list(standardise.parameters()) and len(standardise.state_dict()) == 2


def test_a_constant_feature_is_only_centred():
    mean, std = torch.tensor([0.0, 1000.0, 7.0, 0.0]), torch.tensor([0.0, 1e-4, 0.5, 1e-9])
    standardise = Standardise(mean, std)  # 1e-4 of 1000 is rounding, 1e-9 around 0 is not
    assert standardise.std.tolist() == [1, 1, 0.5, pytest.approx(1e-9)]
    assert standardise(torch.tensor([[2.0, 1001.0, 7.5, 0.0]])).tolist() == [[2, 1, 1, 0]]


def test_both_forms_have_three_layers_with_relu_and_dropout_between():
    fc = FCClassifier(torch.zeros(12), torch.ones(12), CLASSES, HIDDEN, dropout=0.3)
    dense = DenseClassifier.from_fc(fc, [4, 8])
    for head, layer, drop in ((fc, nn.Linear, nn.Dropout), (dense, nn.Conv2d, nn.Dropout2d)):
        kinds = [type(module) for module in head.layers]
        assert kinds == [layer, nn.ReLU, drop, layer, nn.ReLU, drop, layer]
        assert head.layers[2].p == head.layers[5].p == 0.3
    assert (dense.hidden, dense.dropout, dense.channels) == (HIDDEN, 0.3, [4, 8])


def test_the_1x1_convolutions_are_the_fully_connected_layers():
    torch.manual_seed(0)
    fc = FCClassifier(torch.randn(12), torch.rand(12) + 0.5, CLASSES, HIDDEN).double().eval()
    dense = DenseClassifier.from_fc(fc, [4, 8]).double().eval()
    for (name, found), expected in zip(dense.state_dict().items(), fc.state_dict().values()):
        assert torch.equal(found.flatten(), expected.flatten()), name
    x = torch.randn(2, 12, 3, 4, dtype=torch.float64)
    expected = fc(x.permute(0, 2, 3, 1).reshape(-1, 12)).view(2, 3, 4, CLASSES)
    assert_equal(dense(x).permute(0, 2, 3, 1), expected, 1e-12)


# The fast form


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("backbone", ["vgg11", "vgg11_bn", "squeezenet1_1"])
def test_grid_and_points_equal_the_textbook_with_all_gradients(backbone, training):
    hypercolumn, head = network(backbone)
    hypercolumn.train(training), head.train(training)
    learning = [*head.parameters(), *hypercolumn.parameters()]
    for size, stride in (((33, 45), 1), ((34, 47), 3)):
        grid = tuple(-(-side // stride) for side in size)
        levels = hypercolumn(images(*size))
        found = head.on_grid(levels, grid, generators())
        expected = with_gradients(textbook(head, hypercolumn.as_map(levels, grid)), learning)
        for ours, theirs in zip(with_gradients(found, learning), expected, strict=True):
            assert_equal(ours, theirs)
            levels = hypercolumn(images(*size))  # the graph of the levels is used up
            break
        found = with_gradients(head.on_grid(levels, grid, generators()), learning)
        for ours, theirs in zip(found, expected, strict=True):
            assert_equal(ours, theirs)

        centres = pixel_centres(torch.cartesian_prod(*map(torch.arange, grid)), grid).double()
        points = centres.expand(2, -1, -1)
        found = head.at_points(hypercolumn(images(*size)), points, generators())
        expected = [expected[0].flatten(2), *expected[1:]]
        for ours, theirs in zip(with_gradients(found, learning), expected, strict=True):
            assert_equal(ours, theirs, 1e-5)  # the centres have been float32
        with torch.no_grad():
            assert_equal(head.on_grid(hypercolumn(images(*size)), grid, generators()).flatten(2), expected[0])
