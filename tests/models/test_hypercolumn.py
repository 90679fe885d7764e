"""Hypercolumns: the levels are torchvision's feature maps, and both ways to read them are bilinear sampling."""

import json
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import get_model

from models import RunError
from models.hypercolumn import Hypercolumn, pixel_centres, resample


@cache
def extractor(backbone: str) -> Hypercolumn:
    """Random weights, and for BatchNorm statistics of data unlike standard normal; shared: not to be changed."""
    hypercolumn = Hypercolumn(backbone, "random", seed=1).eval()
    torch.manual_seed(2)
    for layer in hypercolumn.features:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return hypercolumn


def photos(*size, batch=2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def assert_near(found, expected) -> None:
    """Equal to 1e-4 of the largest expected value."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def all_points(grid) -> torch.Tensor:
    """(1, h * w, 2): the centres of all pixels of a grid, row by row."""
    return pixel_centres(torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])), grid)[None]


def by_hand(level: np.ndarray, y: float, x: float) -> np.ndarray:
    """(C, h, w) read bilinearly at fractions of its height and width; its border goes on outside."""
    _, height, width = level.shape
    y, x = np.clip(y * height - 0.5, 0, height - 1), np.clip(x * width - 0.5, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = level[:, top, left] * (1 - x + left) + level[:, top, right] * (x - left)
    lower = level[:, bottom, left] * (1 - x + left) + level[:, bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


@pytest.mark.parametrize("backbone", ["vgg11", "vgg11_bn", "squeezenet1_1"])
def test_levels_are_what_torchvisions_model_gives_to_its_pooling_layers(backbone):
    hypercolumn, images = extractor(backbone), photos(37, 50)
    with torch.device("meta"):  # the classifier of a VGG, 0.5 GB, stays there: it comes after the features
        model = get_model(backbone, weights=None).eval()
    model.features.to_empty(device="cpu")
    model.features.load_state_dict(hypercolumn.features.state_dict())
    expected = []
    for layer in model.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_pre_hook(lambda _, inputs: expected.append(inputs[0].clone()))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images.float() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.inference_mode():
        last = model.features(normalised)
    if backbone == "squeezenet1_1":
        expected.append(last)
    levels = hypercolumn(images)
    assert [level.shape[1] for level in levels] == hypercolumn.channels
    assert len(levels) == len(expected)
    for found, theirs in zip(levels, expected):
        assert found.min() >= 0 and found.max() > 0, "taken after the ReLU"
        assert_near(found, theirs)


def test_bytes_and_floats_from_0_to_1_give_the_same_levels():
    hypercolumn, images = extractor("squeezenet1_1"), photos(33, 40)
    for found, expected in zip(hypercolumn(images), hypercolumn(images.float() / 255)):
        assert_near(found, expected)


def test_images_are_not_changed():
    for images in (photos(32, 32), photos(32, 32).float() / 255):
        before = images.clone()
        extractor("squeezenet1_1")(images)
        assert torch.equal(images, before)


@pytest.mark.parametrize("backbone", ["vgg11", "vgg13_bn", "squeezenet1_0", "squeezenet1_1"])
@pytest.mark.parametrize("size", [(33, 21), (32, 40)])
def test_points_equal_the_map_at_every_pixel(backbone, size):
    levels = extractor(backbone)(photos(*size))
    for grid in [(1, 1), (1, 9), (5, 7), size, (35, 41)]:
        dense = Hypercolumn.as_map(levels, grid)
        assert dense.shape == (2, extractor(backbone).Z, *grid)
        points = Hypercolumn.at_points(levels, all_points(grid).expand(2, -1, -1))
        assert_near(points, dense.flatten(2).transpose(1, 2))


def test_each_image_is_read_at_its_own_points():
    levels = extractor("squeezenet1_1")(photos(40, 33))
    points = torch.rand(2, 6, 2, generator=torch.Generator().manual_seed(0))
    together = Hypercolumn.at_points(levels, points)
    for index in range(2):
        alone = Hypercolumn.at_points([level[index : index + 1] for level in levels], points[index : index + 1])
        assert_near(together[index], alone[0])
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize(
    ("y", "x"), [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0), (1, 0.3), (0.01, 0.99), (0.5, 0.5), (0.37, 0.71), (0.3, 0.2)]
)
def test_points_are_bilinear_with_the_border_going_on_outside(y, x):
    levels = [torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)) for size in ((9, 7), (3, 5), (1, 1))]
    found = Hypercolumn.at_points(levels, torch.tensor([[[y, x]]], dtype=torch.float32))[0, 0]
    expected = np.concatenate([by_hand(level[0].double().numpy(), y, x) for level in levels])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_map_is_every_level_interpolated_and_concatenated():
    levels = extractor("vgg11")(photos(33, 38))
    for grid in [(33, 38), (16, 19), (17, 19), (1, 1), (40, 45)]:
        textbook = [F.interpolate(level, size=grid, mode="bilinear", align_corners=False) for level in levels]
        assert_near(Hypercolumn.as_map(levels, grid), torch.cat(textbook, dim=1))


def test_the_map_of_a_small_level_by_hand():
    level = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    assert resample(level, (4, 1)).flatten().tolist() == [2, 4, 8, 10]
    assert resample(level, (1, 4)).flatten().tolist() == [4, 5, 7, 8]


def test_pixel_centres_are_fractions_of_height_and_width():
    pixels = torch.tensor([[0, 0], [1, 3], [0, 2]])
    centres = pixel_centres(pixels, (2, 4))
    assert centres.tolist() == [[0.25, 0.125], [0.75, 0.875], [0.25, 0.625]]
    assert centres.dtype == torch.float32
    assert pixel_centres(pixels.expand(5, 3, 2), (2, 4)).shape == (5, 3, 2)
    assert pixel_centres(torch.tensor([0, 0]), (1, 1)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("backbone", ["vgg11", "squeezenet1_1"])
@pytest.mark.parametrize("taps", [[1], [2, 4], [3, 1, 3], [4]])
def test_chosen_taps_are_slices_of_all_of_them(backbone, taps):
    whole, chosen = extractor(backbone), Hypercolumn(backbone, weights=None, taps=taps).eval()
    chosen.features.load_state_dict(whole.features[: len(chosen.features)].state_dict())
    images, kept = photos(33, 40), sorted(set(taps))
    starts = np.cumsum([0, *whole.channels])
    channels = np.concatenate([np.arange(starts[tap - 1], starts[tap]) for tap in kept])
    assert chosen.taps == kept
    assert chosen.channels == [whole.channels[tap - 1] for tap in kept]
    assert chosen.Z == len(channels)
    assert_near(
        Hypercolumn.as_map(chosen(images), (7, 9)), Hypercolumn.as_map(whole(images), (7, 9))[:, torch.tensor(channels)]
    )


def test_the_backbone_ends_with_the_last_tap():
    lengths = [len(Hypercolumn("vgg11", weights=None, taps=[1, last]).features) for last in (1, 2, 3, 4, 5)]
    assert lengths == [2, 5, 10, 15, 20]


@pytest.mark.parametrize("taps", [[], [0], [-1, 2], [5], [1, 9]])
def test_taps_that_are_not_there_are_refused(taps):
    with pytest.raises(RunError, match="squeezenet1_1 has taps 1 to 4"):
        Hypercolumn("squeezenet1_1", weights=None, taps=taps)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(RunError, match="resnet18"):
        Hypercolumn("resnet18", weights=None)


def statistics(hypercolumn) -> dict[str, torch.Tensor]:
    return {
        name: value.clone()
        for name, value in hypercolumn.state_dict().items()
        if "running" in name or "num_batches" in name
    }


def test_a_frozen_backbone_has_no_gradient_and_keeps_its_statistics():
    hypercolumn = Hypercolumn("vgg11_bn", "random", taps=[1, 2])
    before = statistics(hypercolumn)
    assert len(before) == 6
    expected = hypercolumn.eval()(photos(32, 32))
    levels = hypercolumn.train()(photos(32, 32))
    assert hypercolumn.training and not any(layer.training for layer in hypercolumn.features)
    assert not any(parameter.requires_grad for parameter in hypercolumn.parameters())
    assert not any(level.requires_grad for level in levels)
    assert all(map(torch.equal, levels, expected))
    after = statistics(hypercolumn)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_unfrozen_backbone_is_trained_with_its_statistics_until_it_is_frozen_again():
    hypercolumn = Hypercolumn("vgg11_bn", "random", taps=[1, 2]).train()
    assert hypercolumn.unfreeze() is hypercolumn
    before = statistics(hypercolumn)
    sum(level.sum() for level in hypercolumn(photos(32, 32))).backward()
    for parameter in hypercolumn.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    assert hypercolumn.features[0].weight.grad.abs().max() > 0
    assert all(torch.equal(value, before[name]) for name, value in statistics(hypercolumn).items())
    hypercolumn.eval()
    assert not any(layer.training for layer in hypercolumn.features)
    hypercolumn.freeze().train()
    assert not any(layer.training for layer in hypercolumn.features)
    assert not hypercolumn(photos(32, 32))[-1].requires_grad


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_the_first_stages_may_stay_as_they_are(stages):
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1, 3, 4]).unfreeze(stages)
    learns = {name for name, parameter in hypercolumn.features.named_parameters() if parameter.requires_grad}
    after = [-1, 1, 7][stages]  # features[1], [7] and [12] are the taps
    assert learns == {n for n, _ in hypercolumn.features.named_parameters() if int(n.split(".")[0]) > after}
    levels = hypercolumn(photos(64, 64))
    assert [level.requires_grad for level in levels] == [place >= stages for place in range(3)]
    sum(level.sum() for level in levels[stages:]).backward()
    assert {n for n, parameter in hypercolumn.features.named_parameters() if parameter.grad is not None} == learns


def test_at_least_one_stage_has_to_learn():
    with pytest.raises(RunError, match="--frozen-stages 2: of 2 stages"):
        Hypercolumn("squeezenet1_1", "random", taps=[1, 2]).unfreeze(2)


@pytest.mark.parametrize("stages", [0, 1])
@pytest.mark.parametrize("backbone", ["squeezenet1_1", "vgg11_bn"])
def test_recomputing_keeps_less_and_changes_nothing(backbone, stages):
    hypercolumn = Hypercolumn(backbone, "random", context=["image"]).unfreeze(stages)
    learning = [parameter for parameter in hypercolumn.parameters() if parameter.requires_grad]
    results, kept = [], []

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[-1] += value.numel()
        return value

    for recompute in (False, True):
        hypercolumn.recompute = recompute
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            levels = hypercolumn(photos(64, 64))
        loss = sum(level.square().mean() for level in levels)
        results.append([*levels, *torch.autograd.grad(loss, learning)])
    assert all(map(torch.equal, *results))
    assert kept[1] < kept[0] / 2


def test_a_part_of_a_larger_module_stays_frozen_when_that_is_trained():
    whole = nn.ModuleDict({"hypercolumn": Hypercolumn("vgg11_bn", "random", taps=[1]), "head": nn.Conv2d(64, 2, 1)})
    before = statistics(whole)
    level = whole.train()["hypercolumn"](photos(32, 32))[0]
    whole["head"](level).sum().backward()
    assert whole["head"].weight.grad.abs().max() > 0
    assert all(torch.equal(value, before[name]) for name, value in statistics(whole).items())


@pytest.mark.parametrize("backbone", ["vgg11_bn", "squeezenet1_1"])
def test_a_batch_gives_what_its_images_give_alone(backbone):
    images = photos(35, 50)
    together = extractor(backbone)(images)
    for index in range(2):
        for found, expected in zip(together, extractor(backbone)(images[index : index + 1])):
            assert_near(found[index : index + 1], expected)


def test_spec_and_state_rebuild_the_extractor():
    original = Hypercolumn("squeezenet1_1", "random", taps=[3, 1], seed=4).eval()
    spec = json.loads(json.dumps(original.spec()))
    assert spec == original.spec()
    assert spec["taps"] == [1, 3]
    rebuilt = Hypercolumn(spec["backbone"], weights=None, taps=spec["taps"]).eval()
    rebuilt.load_state_dict(original.state_dict())
    assert rebuilt.spec() == spec
    assert all(map(torch.equal, rebuilt(photos(32, 32)), original(photos(32, 32))))
    assert Hypercolumn("squeezenet1_1", "random", taps=[3, 1], seed=5).spec() != spec


@pytest.mark.parametrize("size", [(37, 50), (33, 64), (101, 35)])
@pytest.mark.parametrize("backbone", ["vgg11", "squeezenet1_1"])
def test_shapes_of_levels_are_known_without_computing_them(backbone, size):
    levels = extractor(backbone)(photos(*size, batch=1))
    assert extractor(backbone).level_shapes(*size) == [tuple(level.shape[1:]) for level in levels]
