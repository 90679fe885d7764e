"""The classifier: one function in three forms, fully connected, dense, and dense on the levels."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.classifier import DenseClassifier, FCClassifier, Standardise
from models.hypercolumn import Hypercolumn
from models.strips import StripHead

CLASSES = 5


def classifier(channels=12, hidden=16, seed=0, dropout=0.5) -> FCClassifier:
    torch.manual_seed(seed)
    return FCClassifier(torch.randn(channels), torch.rand(channels) + 0.5, CLASSES, hidden, dropout).eval()


def relative(found, expected) -> float:
    """Largest difference, relative to the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@cache
def real_levels(backbone, size) -> list[torch.Tensor]:
    """The levels of a random image."""
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    return Hypercolumn(backbone, "random").eval()(image)


def dense_for(levels, dtype) -> DenseClassifier:
    """A random dense classifier with the true moments of the levels, as step 2 makes it."""
    columns = [level.transpose(0, 1).flatten(1) for level in levels]
    mean, std = torch.cat([part.mean(1) for part in columns]), torch.cat([part.std(1) for part in columns])
    torch.manual_seed(1)
    fc = FCClassifier(mean, std, CLASSES, hidden=16)
    return DenseClassifier.from_fc(fc, [level.shape[1] for level in levels]).eval().to(dtype)


def near_zero(x) -> torch.Tensor:
    """Pixels (B, h, w) with a unit so near 0 that rounding decides whether a ReLU lets its gradient through."""
    return (x.abs() < 1e-5).any(dim=1)


def test_logits_have_a_row_for_each_hypercolumn():
    assert classifier()(torch.randn(7, 12)).shape == (7, CLASSES)
    assert classifier()(torch.randn(0, 12)).shape == (0, CLASSES)


def test_layers_are_three_linear_ones_with_relu_and_dropout_between():
    fc = FCClassifier(torch.zeros(12), torch.ones(12), CLASSES, hidden=16, dropout=0.3)
    between = [nn.ReLU, nn.Dropout]
    assert [type(layer) for layer in fc.layers] == [nn.Linear, *between, nn.Linear, *between, nn.Linear]
    shapes = [tuple(layer.weight.shape) for layer in fc.layers if isinstance(layer, nn.Linear)]
    assert shapes == [(16, 12), (16, 16), (CLASSES, 16)]
    assert [layer.p for layer in fc.layers if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_dense_layers_are_plain_1x1_convolutions():
    dense = DenseClassifier([4, 8], torch.zeros(12), torch.ones(12), CLASSES, hidden=16)
    between = [nn.ReLU, nn.Dropout2d]
    assert [type(layer) for layer in dense.layers] == [nn.Conv2d, *between, nn.Conv2d, *between, nn.Conv2d]
    for layer in dense.layers:
        if isinstance(layer, nn.Conv2d):
            settings = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
            assert settings == ((1, 1), (1, 1), (0, 0), (1, 1), 1)
            assert layer.bias is not None
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in dense.modules())


@pytest.mark.parametrize("dense", [False, True], ids=["fc", "dense"])
def test_moments_are_saved_but_not_trained(dense):
    model = DenseClassifier.from_fc(classifier(), [4, 8]) if dense else classifier()
    moments = {"standardise.mean", "standardise.std"}
    assert moments <= set(model.state_dict())
    assert not moments & {name for name, _ in model.named_parameters()}
    assert len(list(model.parameters())) == 6


def test_standardised_features_have_mean_0_and_std_1():
    x = torch.randn(1000, 3) * torch.tensor([0.01, 1.0, 300.0]) + torch.tensor([-5.0, 0.0, 70.0])
    y = Standardise(x.mean(0), x.std(0))(x)
    assert y.mean(0).abs().max() < 1e-3
    assert (y.std(0) - 1).abs().max() < 1e-3
    assert torch.equal(Standardise(x.mean(0), x.std(0))(x.T[None, :, :, None])[0, :, :, 0].T, y)


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 0.0), (5.0, 0.0), (5.0, 1e-7), (-1e4, 1e-3), (0.0, 1e-30), (0.0, 1e-45)]
)
def test_a_constant_feature_is_only_centred(mean, std):
    standardise = Standardise(torch.tensor([mean, 1.0]), torch.tensor([std, 2.0]))
    assert standardise(torch.tensor([[mean + 3.0, 5.0]])).tolist() == [[3.0, 2.0]]


def test_a_small_but_honest_std_is_divided_by():
    assert Standardise(torch.tensor([0.5]), torch.tensor([1e-4]))(torch.tensor([[0.5002]])).item() == pytest.approx(
        2, rel=1e-3
    )


@pytest.mark.parametrize("std", [0.0, 1e-45, 1e-20, 1e-9])
def test_tiny_stds_give_finite_logits_and_gradients_in_every_form(std):
    fc = FCClassifier(torch.zeros(12), torch.full((12,), std), CLASSES, hidden=8).eval()
    dense = DenseClassifier.from_fc(fc, [4, 8])
    levels = [torch.rand(1, 4, 6, 6), torch.rand(1, 8, 3, 3)]
    results = [fc(torch.rand(3, 12)), dense(Hypercolumn.as_map(levels, (4, 4))), dense.on_levels(levels, (4, 4))]
    sum(result.sum() for result in results).backward()
    gradients = [parameter.grad for parameter in (*fc.parameters(), *dense.parameters())]
    assert all(value.isfinite().all() for value in results + gradients)


def test_logits_are_raw():
    logits = classifier()(torch.randn(200, 12) * 3)
    assert (logits < 0).any(), "a ReLU or a softmax would leave no negative logit"
    assert (logits > 0).any(), "a log-softmax would leave no positive one"
    assert ((logits.sum(1) - 1).abs() > 1e-3).float().mean() > 0.9, "rows of a softmax sum to 1"


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (13, 3), (8, 8)])
def test_dense_equals_fully_connected_at_every_pixel(size):
    fc = classifier(seed=3)
    x = torch.randn(2, 12, *size)
    dense = DenseClassifier.from_fc(fc, [4, 8]).eval()(x)
    expected = fc(x.permute(0, 2, 3, 1).reshape(-1, 12)).view(2, *size, CLASSES).permute(0, 3, 1, 2)
    assert dense.shape == (2, CLASSES, *size)
    assert relative(dense, expected) <= 1e-5


def test_dense_is_a_copy_with_the_same_settings():
    fc = classifier(hidden=9, dropout=0.2)
    dense = DenseClassifier.from_fc(fc, (4, 8))
    assert (dense.channels, dense.hidden, dense.dropout) == ([4, 8], 9, 0.2)
    assert [layer.p for layer in dense.layers if isinstance(layer, nn.Dropout2d)] == [0.2, 0.2]
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    with torch.no_grad():
        for value in fc.state_dict().values():
            value.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=["f32", "f64"])
@pytest.mark.parametrize("backbone", ["vgg11", "vgg16_bn", "squeezenet1_1"])
@pytest.mark.parametrize(
    "grid",
    [
        (24, 37),  # finer than all levels
        (21, 35),  # the finest level of a VGG
        (10, 17),  # the finest of the SqueezeNet, the second of a VGG
        (11, 18),  # between levels
        (25, 3),  # finer one way and coarser the other
        (1, 2),
        (1, 1),  # coarser than all
    ],
)
def test_on_levels_equals_forward_on_the_map_with_its_gradients(backbone, grid, dtype, tolerance):
    dense = dense_for(real_levels(backbone, (21, 35)), dtype)
    at_kink = []
    for index in (1, 4):
        dense.layers[index].register_forward_pre_hook(lambda _, inputs: at_kink.append(near_zero(inputs[0])))
    results = []
    for on_levels in (False, True):
        levels = [level.detach().to(dtype).requires_grad_() for level in real_levels(backbone, (21, 35))]
        logits = dense.on_levels(levels, grid) if on_levels else dense(Hypercolumn.as_map(levels, grid))
        target = torch.arange(logits[:, 0].numel()).view_as(logits[:, 0]) % CLASSES
        target[at_kink[0] | at_kink[1]] = -100
        loss = F.cross_entropy(logits, target, ignore_index=-100)
        results.append([logits.detach(), *torch.autograd.grad(loss, [*dense.parameters(), *levels])])
    expected, found = results
    assert found[0].shape == (2, CLASSES, *grid)
    assert len(found) == len(expected) == 1 + 6 + len(levels)
    for ours, theirs in zip(found, expected):
        assert theirs.abs().max() > 0
        assert relative(ours, theirs) <= tolerance


def test_on_levels_leaves_the_levels_as_they_were():
    levels = [torch.randn(1, 4, 6, 6), torch.randn(1, 8, 3, 3)]
    before = [level.clone() for level in levels]
    DenseClassifier.from_fc(classifier(), [4, 8]).on_levels(levels, (6, 6))
    assert all(map(torch.equal, levels, before))


def test_dropout_is_off_in_eval_and_on_in_training():
    x, levels = torch.randn(4, 12), [torch.randn(4, 4, 6, 6), torch.randn(4, 8, 3, 3)]
    fc = classifier()
    dense = DenseClassifier.from_fc(fc, [4, 8])
    for model, call in ((fc, lambda: fc(x)), (dense, lambda: dense.on_levels(levels, (6, 6)))):
        model.eval()
        assert torch.equal(call(), call())
        model.train()
        assert not torch.equal(call(), call())


def test_dropout_drops_whole_channels_of_an_image_in_the_dense_form():
    dense = DenseClassifier.from_fc(classifier(hidden=64), [4, 8]).train()
    seen = []
    dense.layers[2].register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0].clone(), output)))
    torch.manual_seed(0)
    dense.on_levels([torch.randn(2, 4, 6, 6), torch.randn(2, 8, 3, 3)], (5, 5))
    dense(torch.randn(2, 12, 5, 5))
    assert len(seen) == 2
    for before, after in seen:
        dropped = (after == 0).all(dim=(2, 3)) & (before > 0).any(dim=(2, 3))
        assert 0.2 < dropped.float().mean() < 0.8
        assert not torch.equal(dropped[0], dropped[1]), "each image has its own mask"
        kept = ~dropped
        assert torch.equal(after[kept], before[kept] * 2)


def small_levels(seed=0) -> list[torch.Tensor]:
    """Two images' levels for `classifier()`, finer and coarser than a grid of (6, 7)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 9, 8, generator=generator), torch.randn(2, 8, 3, 4, generator=generator)]


def trained_on(dense, logits) -> list[torch.Tensor]:
    """The logits, then the gradients of the parameters for a loss that weighs each logit differently."""
    factors = torch.linspace(-1, 2, logits.numel()).view_as(logits)
    return [logits.detach(), *torch.autograd.grad((logits * factors).sum(), [*dense.parameters()])]


@pytest.mark.parametrize("dropout", [0.5, 0.2, 0.0])
def test_in_training_on_levels_drops_the_units_that_forward_drops(dropout):
    dense = DenseClassifier.from_fc(classifier(hidden=64, dropout=dropout), [4, 8]).double().train()
    levels, grid = [level.double() for level in small_levels()], (6, 7)
    torch.manual_seed(3)
    expected = trained_on(dense, dense(Hypercolumn.as_map(levels, grid)))
    after = torch.get_rng_state()
    torch.manual_seed(3)
    found = trained_on(dense, dense.on_levels(levels, grid))
    for ours, theirs in zip(found, expected):
        assert theirs.abs().max() > 0
        assert relative(ours, theirs) <= 1e-10
    assert torch.equal(torch.get_rng_state(), after), "what is drawn next is the same too"
    if dropout:
        assert relative(trained_on(dense, dense.on_levels(levels, grid))[0], expected[0]) > 0.01, "other units"


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_under_autocast_logits_and_gradients_are_float32_and_near_the_exact_ones(dtype, training):
    dense = DenseClassifier.from_fc(classifier(hidden=32), [4, 8]).train(training)
    results = []
    for enabled in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype, enabled=enabled):
            logits = dense.on_levels(small_levels(), (6, 7))
        results.append(trained_on(dense, logits))
    for index, (ours, theirs) in enumerate(zip(results[1], results[0])):
        assert ours.dtype == torch.float32 and ours.isfinite().all()
        assert 0 < relative(ours, theirs) <= (0.1 if index else 0.02), "a gradient jumps where a unit is near 0"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)], ids=["bf16", "fp16"])
def test_large_means_and_dead_channels_do_no_harm_in_low_precision(dtype, tolerance):
    levels = [torch.rand(1, 4, 6, 6) + 50, torch.rand(1, 8, 3, 3) + 50]
    mean, std = torch.full((12,), 50.5), torch.full((12,), 0.3)
    levels[0][:, 3], mean[3], std[3] = 0, 1e-7, 1e-6
    torch.manual_seed(0)
    dense = DenseClassifier([4, 8], mean, std, CLASSES, hidden=16).eval()
    expected = dense.on_levels(levels, (6, 6))
    with torch.autocast("cpu", dtype):
        assert relative(dense.on_levels(levels, (6, 6)), expected) < tolerance


def test_what_is_dropped_in_an_image_is_not_computed(monkeypatch):
    dense = DenseClassifier.from_fc(classifier(hidden=64), [4, 8]).train()
    shapes, forward = [], StripHead.forward

    def note(ctx, *arguments):
        shapes.append(arguments[3].shape)
        return forward(ctx, *arguments)

    monkeypatch.setattr(StripHead, "forward", staticmethod(note))
    dense.on_levels(small_levels(), (6, 7))
    assert len(set(shapes)) == len(shapes) == len(small_levels()[0]), "each image has its own units"
    assert all(10 < width < 54 for shape in shapes for width in shape)
    dense.eval().on_levels(small_levels(), (6, 7))
    assert set(shapes[len(small_levels()[0]) :]) == {(64, 64)}


def test_an_image_may_lose_all_its_units():
    dense = DenseClassifier.from_fc(classifier(hidden=4, dropout=0.999), [4, 8]).train()
    found, expected = dense.on_levels(small_levels(), (6, 7)), dense.layers[-1].bias.view(1, -1, 1, 1)
    assert torch.equal(found, expected.expand_as(found))
    assert all(value.isfinite().all() for value in trained_on(dense, found)[1:])
