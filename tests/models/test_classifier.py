"""The classifier: one function in three forms, fully connected, 1x1, and fast on the levels."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.classifier import (
    ACTIVATIONS,
    DenseClassifier,
    FCClassifier,
    HiddenLayers,
    Standardise,
)
from models.hypercolumn import Hypercolumn

CLASSES = 5
HIDDEN = HiddenLayers((16, 16), dropout=0.3)
SEEDS = (11, 12)  # of the dropout of two images


def assert_equal(found, expected, tolerance=1e-8) -> None:
    """Equal to a share of the largest expected value, which is not 0."""
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def head_for(channels, mean=None, std=None, hidden=HIDDEN) -> DenseClassifier:
    torch.manual_seed(1)
    mean = torch.randn(sum(channels)) if mean is None else mean
    std = torch.rand(sum(channels)) + 0.5 if std is None else std
    return DenseClassifier(channels, mean, std, CLASSES, hidden).double().eval()


def textbook(head: DenseClassifier, columns: Tensor) -> Tensor:
    """The logits of hypercolumns (B, Z, h, w), with dropout written out."""
    x, drawn = head.standardise(columns), generators()
    for layer in head.layers:
        if not isinstance(layer, nn.Dropout2d):
            x = layer(x)
        elif head.training:
            kept = [torch.rand(x.shape[1], generator=generator) >= layer.p for generator in drawn]
            x = x * torch.stack(kept)[:, :, None, None] / (1 - layer.p)
    return x


def with_gradients(logits: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Logits (B, C, ..) and gradients of a sum that weighs each of them differently."""
    factors = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view(logits.shape)
    return [logits.detach(), *torch.autograd.grad((logits * factors).sum(), parameters)]


@cache
def network(backbone: str) -> tuple[Hypercolumn, DenseClassifier]:
    """An unfrozen extractor and a head with the moments of its levels, in float64; shared."""
    hypercolumn = Hypercolumn(backbone, "random", seed=1).double()
    levels = hypercolumn(images(64, 70))
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


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "hidden",
    [HiddenLayers((7,) * depth, dropout=0.3) for depth in range(10)]
    + [HiddenLayers((9, 6), activation, dropout=0.3) for activation in ACTIVATIONS],
    ids=str,
)
def test_heads_of_any_depth_and_activation_are_the_same_in_all_forms(hidden, training):
    torch.manual_seed(3)
    moments = torch.randn(12), torch.rand(12) + 0.5
    fc = FCClassifier(*moments, CLASSES, hidden).double().eval()
    assert sum(isinstance(layer, nn.Linear) for layer in fc.layers) == len(hidden.widths) + 1
    dense = DenseClassifier.from_fc(fc, [4, 8]).double().train(training)
    levels = [torch.randn(2, 4, 8, 8).double(), torch.randn(2, 8, 4, 4).double()]
    columns = Hypercolumn.as_map(levels, (8, 8))
    expected = textbook(dense, columns)
    if not training:
        flat = columns.movedim(1, -1).flatten(0, 2)
        assert_equal(fc(flat), expected.movedim(1, -1).flatten(0, 2))
        with torch.inference_mode():  # strip by strip
            assert_equal(dense.on_grid(levels, (8, 8)), expected)
    assert_equal(dense.on_grid(levels, (8, 8), generators()), expected)
    points = torch.tensor([[[1.5, 6.5], [4.5, 0.5]]] * 2).double() / 8
    found = dense.at_points(levels, points, generators())
    assert_equal(found, expected[:, :, [1, 4], [6, 0]])


def test_a_constant_feature_is_only_centred():
    mean, std = torch.tensor([0.0, 1000.0, 7.0, 0.0]), torch.tensor([0.0, 1e-4, 0.5, 1e-9])
    standardise = Standardise(mean, std)  # 1e-4 of 1000 is rounding, 1e-9 around 0 is not
    assert standardise.std.tolist() == [1, 1, 0.5, pytest.approx(1e-9)]
    assert standardise(torch.tensor([[2.0, 1001.0, 7.5, 0.0]])).tolist() == [[2, 1, 1, 0]]


def test_both_forms_have_three_layers_with_relu_and_dropout_between():
    fc = FCClassifier(torch.zeros(12), torch.ones(12), CLASSES, HIDDEN)
    dense = DenseClassifier.from_fc(fc, [4, 8])
    for head, layer, drop in ((fc, nn.Linear, nn.Dropout), (dense, nn.Conv2d, nn.Dropout2d)):
        kinds = [type(module) for module in head.layers]
        assert kinds == [layer, nn.ReLU, drop, layer, nn.ReLU, drop, layer]
        assert head.layers[2].p == head.layers[5].p == 0.3
    assert (dense.hidden, dense.channels) == (HIDDEN, [4, 8])


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
    head.train(training)
    learning = [*head.parameters(), *hypercolumn.parameters()]
    for size, stride in (((33, 35), 1), ((34, 47), 3)):
        grid = tuple(-(-side // stride) for side in size)
        centres = torch.cartesian_prod(*map(torch.arange, grid)).double() + 0.5
        points = (centres / torch.tensor(grid)).expand(2, -1, -1)

        def on_grid(levels, grid=grid):
            return head.on_grid(levels, grid, generators())

        def at_points(levels, grid=grid, points=points):
            return head.at_points(levels, points, generators()).unflatten(2, grid)

        columns = hypercolumn.as_map(hypercolumn(images(*size)), grid)
        expected = with_gradients(textbook(head, columns), learning)
        for form in (on_grid, at_points):
            found = with_gradients(form(hypercolumn(images(*size))), learning)
            for ours, theirs in zip(found, expected, strict=True):
                assert_equal(ours, theirs)
            with torch.no_grad():  # on the CPU in strips
                assert_equal(form(hypercolumn(images(*size))), expected[0])


shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    shapes=st.lists(shapes, min_size=1, max_size=4),
    training=st.booleans(),
)
def test_any_levels_on_any_grid_give_the_textbooks_logits(grid, shapes, training):
    head = head_for([shape[0] for shape in shapes]).train(training)
    levels = [torch.randn(2, *shape, dtype=torch.float64) for shape in shapes]
    expected = textbook(head, Hypercolumn.as_map(levels, grid))
    assert_equal(head.on_grid(levels, grid, generators()), expected)
    with torch.no_grad():
        assert_equal(head.on_grid(levels, grid, generators()), expected)


def test_a_grid_of_many_strips_gives_the_textbooks_logits():
    head = head_for([2, 3])
    levels = [torch.randn(1, 2, 301, 90).double(), torch.randn(1, 3, 17, 23).double()]
    with torch.no_grad():
        found = head.on_grid(levels, (601, 131))  # 79 thousand places, 33 thousand in a strip
        assert_equal(found, textbook(head, Hypercolumn.as_map(levels, (601, 131))))


def test_each_image_has_its_own_points():
    head, levels = head_for([4]), [torch.randn(2, 4, 5, 6).double()]
    points = torch.rand(2, 7, 2).double()
    together = head.at_points(levels, points)
    for image in range(2):
        alone = head.at_points([levels[0][[image]]], points[[image]])
        assert_equal(together[[image]], alone)
    assert not torch.allclose(together[0], together[1])


def test_without_generators_dropout_follows_torchs_own():
    head, levels = head_for([4]).train(), [torch.randn(2, 4, 5, 6).double()]

    def logits(seed):
        torch.manual_seed(seed)
        return head.on_grid(levels, (5, 6))

    assert torch.equal(logits(0), logits(0)) and not torch.equal(logits(0), logits(1))
    head.eval()
    assert torch.equal(logits(0), logits(1))


def test_an_image_may_lose_all_of_its_units():
    head = head_for([4, 8], hidden=HiddenLayers((4, 4), dropout=0.999)).train()
    levels = [torch.randn(2, 4, 9, 8).double(), torch.randn(2, 8, 3, 4).double()]
    for logits in (head.on_grid(levels, (6, 7)), head.at_points(levels, torch.rand(2, 30, 2))):
        assert logits.flatten(2).shape[:2] == (2, CLASSES)
        assert all(value.isfinite().all() for value in with_gradients(logits, [*head.parameters()]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_low_precision_is_close_also_where_means_are_large(dtype, tolerance):
    mean, std = torch.full((12,), 50.5), torch.full((12,), 0.3)
    head = head_for([4, 8], mean, std).float()
    levels = [torch.rand(1, 4, 6, 6) + 50, torch.rand(1, 8, 3, 3) + 50]
    points = torch.rand(1, 20, 2)
    forms = (lambda: head.on_grid(levels, (6, 6)), lambda: head.at_points(levels, points))
    for form in forms:
        for enabled in (torch.no_grad, torch.enable_grad):
            with enabled():
                expected = form()
                with torch.autocast("cpu", dtype):
                    found = form()
            assert not torch.equal(found.float(), expected)
            assert_equal(found, expected, tolerance)
