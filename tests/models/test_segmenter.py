"""The segmenter: grids, class maps at the original size, and the strip-wise argmax behind them."""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models import RunError
from models import segmenter as module
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn, pixel_centres, resample
from models.segmenter import CPU_BATCH, Segmenter, argmax_at, same_size, top_at

CLASSES = 4
CPU = torch.device("cpu")
SIZES = [((32, 45), (61, 83)), ((40, 32), (40, 32)), ((32, 45), (90, 127)), ((33, 33), (20, 21)), ((32, 45), (32, 45))]


class Picture(NamedTuple):
    image: np.ndarray
    size: tuple[int, int]


def pictures() -> list[Picture]:
    """Input sizes and original sizes of which some occur more than once, out of order."""
    rng = np.random.default_rng(0)
    return [Picture(rng.integers(0, 256, (3, *shape), dtype=np.uint8), size) for shape, size in SIZES]


@pytest.fixture(scope="module")
def hypercolumn():
    # Without the last tap: of images this small it has one or two values, too few for moments.
    return Hypercolumn("squeezenet1_1", "random", taps=[1, 2, 3], seed=1)


@pytest.fixture
def segmenter(hypercolumn):
    """Standardised by the moments of a picture, and with a last bias that gives every class a share of it."""
    levels = hypercolumn(torch.from_numpy(pictures()[0].image)[None])
    mean = torch.cat([level.mean((0, 2, 3)) for level in levels])
    std = torch.cat([level.std((0, 2, 3)) for level in levels])
    torch.manual_seed(0)
    head = DenseClassifier(hypercolumn.channels, mean, std, CLASSES, hidden=16)
    with torch.no_grad():
        head.layers[-1].bias -= head.eval().on_levels(levels, (16, 16)).mean((0, 2, 3))
    names, colours = [f"class {index}" for index in range(CLASSES)], [[index] * 3 for index in range(CLASSES)]
    return Segmenter(hypercolumn, head, size=32, stride=2, names=names, colours=colours)


def assert_most_likely(found, logits, size) -> None:
    """Each pixel's class has the largest of the interpolated logits, or one within rounding of it."""
    dense = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    chosen = dense.gather(0, torch.as_tensor(found).long()[None])[0]
    assert (dense.amax(0) - chosen).max() <= 1e-4


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("size", [(32, 32), (33, 45), (1, 99), (224, 301)])
def test_the_grid_is_the_input_over_the_stride_rounded_up(segmenter, size, stride):
    segmenter.stride = stride
    expected = math.ceil(size[0] / stride), math.ceil(size[1] / stride)
    assert segmenter.grid(torch.empty(2, 3, *size, device="meta")) == expected


@pytest.mark.parametrize(("size", "stride"), [((33, 45), 2), ((32, 37), 1), ((50, 32), 7)])
def test_forward_gives_logits_of_every_class_on_the_grid(segmenter, size, stride):
    segmenter.stride = stride
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    logits = segmenter.eval()(images)
    assert logits.shape == (2, CLASSES, *segmenter.grid(images))
    textbook = segmenter.head(Hypercolumn.as_map(segmenter.hypercolumn(images), segmenter.grid(images)))
    assert (logits - textbook).abs().max() <= 1e-4 * textbook.abs().max()


def test_gradients_reach_the_head_and_not_the_backbone(segmenter):
    segmenter.train()(torch.rand(1, 3, 32, 32)).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in segmenter.head.parameters())
    assert all(parameter.grad is None for parameter in segmenter.hypercolumn.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_predictions_of_mixed_sizes_are_those_of_each_image_alone(segmenter, training):
    photos = pictures()
    maps = segmenter.train(training).predict(photos)
    assert segmenter.training is training, "predict gives the mode back"
    assert segmenter.head.layers[2].training is training
    assert not segmenter.hypercolumn.features.training
    segmenter.eval()
    assert len(maps) == len(photos)
    for photo, found in zip(photos, maps):
        assert found.dtype == np.uint8 and found.shape == photo.size
        assert len(np.unique(found)) > 1, "a constant map would prove nothing"
        with torch.inference_mode():
            logits = segmenter(torch.from_numpy(photo.image)[None])[0]
        assert_most_likely(found, logits, photo.size)


def test_predictions_in_training_mode_use_no_dropout(segmenter):
    photos = pictures()[:1]
    expected = segmenter.eval().predict(photos)[0]
    assert np.array_equal(segmenter.train().predict(photos)[0], expected)


def test_photos_of_one_size_go_through_together(segmenter):
    with patch.object(Segmenter, "forward", autospec=True, side_effect=Segmenter.forward) as forward:
        segmenter.predict(pictures())
    shapes = sorted(tuple(call.args[1].shape) for call in forward.call_args_list)
    assert shapes == [(1, 3, 32, 45), (1, 3, 33, 33), (1, 3, 40, 32), (2, 3, 32, 45)]


def test_no_photos_give_no_maps(segmenter):
    assert segmenter.predict([]) == []


def test_predict_all_pairs_each_photo_with_its_map_in_order(segmenter):
    photos = pictures()
    expected = segmenter.predict(photos[:3]) + segmenter.predict(photos[3:])
    pairs = list(segmenter.predict_all(iter([photos[:3], photos[3:]])))
    assert len(pairs) == len(photos)
    for (photo, found), given_photo, given_map in zip(pairs, photos, expected):
        assert photo is given_photo
        assert np.array_equal(found, given_map)


@settings(max_examples=80, deadline=None)
@given(
    channels=st.integers(1, 6),
    source=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    target=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    strip=st.sampled_from([1, 60, 1000, 1 << 22]),
    seed=st.integers(0, 1000),
)
def test_argmax_equals_that_of_the_interpolated_logits(channels, source, target, strip, seed):
    logits = torch.randn(channels, *source, generator=torch.Generator().manual_seed(seed))
    with patch.object(module, "STRIP", strip):
        found = argmax_at(logits, target)
    assert found.dtype == torch.uint8 and found.shape == target
    assert_most_likely(found, logits, target)


def test_argmax_works_in_strips_of_bounded_size():
    logits = torch.randn(5, 20, 30, generator=torch.Generator().manual_seed(0))
    whole = argmax_at(logits, (90, 64))
    with (
        patch.object(module, "STRIP", 1000),
        patch.object(module.F, "interpolate", side_effect=F.interpolate) as interpolate,
    ):
        found = argmax_at(logits, (90, 64))
    rows = [call.args[1][0] for call in interpolate.call_args_list]
    assert sum(rows) == 90 and max(rows) * 64 * 5 <= 1000
    assert (found == whole).float().mean() > 0.999


@pytest.mark.parametrize("are_logits", [True, False])
def test_the_top_probability_is_that_of_the_interpolated_scores_in_strips_too(are_logits):
    scores = 3 * torch.randn(5, 20, 30, generator=torch.Generator().manual_seed(0))
    scores = scores if are_logits else scores.softmax(0)
    dense = F.interpolate(scores[None], (90, 64), mode="bilinear", align_corners=False)[0]
    with patch.object(module, "STRIP", 1000), patch.object(module.F, "interpolate", side_effect=F.interpolate) as made:
        classes, top = top_at(scores, (90, 64), are_logits)
    assert max(call.args[1][0] for call in made.call_args_list) * 64 * 5 <= 1000
    torch.testing.assert_close(top, (dense.softmax(0) if are_logits else dense).amax(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(classes, argmax_at(scores, (90, 64)))
    assert classes.dtype == torch.uint8 and top.dtype == torch.float32


@given(kinds=st.lists(st.integers(0, 3), max_size=12))
def test_groups_hold_every_index_once_and_one_size_each(kinds):
    shapes = [(3, 4, 5), (3, 5, 4), (3, 4, 4), (3, 8, 2)]
    images = [np.empty(shapes[kind], dtype=np.uint8) for kind in kinds]
    for device in (CPU, torch.device("cuda")):
        groups = list(same_size(images, device))
        assert sorted(index for group in groups for index in group) == list(range(len(images)))
        assert all(group and len({images[index].shape for index in group}) == 1 for group in groups)
        if device == CPU:
            assert all(len(group) <= CPU_BATCH for group in groups)
            assert len(groups) == sum(-(-kinds.count(kind) // CPU_BATCH) for kind in set(kinds)), "no group too many"
        else:
            assert len(groups) == len(set(kinds)), "a GPU takes all images of one size at once"


def all_points(size, images=1) -> torch.Tensor:
    """The centres of all pixels, row by row, for each image: (B, h * w, 2)."""
    pixels = torch.cartesian_prod(*map(torch.arange, size))
    return pixel_centres(pixels, size).expand(images, -1, -1)


def head_gradients(segmenter, logits) -> list[torch.Tensor]:
    """For a sum of logits (B, C, n) that weighs each differently."""
    factors = torch.linspace(-1, 2, logits.numel()).view_as(logits)
    return torch.autograd.grad((logits * factors).sum(), [*segmenter.head.parameters()])


@pytest.mark.parametrize(("size", "stride"), [((33, 45), 1), ((33, 46), 2), ((32, 33), 2), ((34, 47), 3)])
def test_logits_at_all_pixels_are_the_resampled_ones_with_their_gradients(segmenter, size, stride):
    segmenter.eval().stride = stride
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    grid = segmenter.grid(images)
    expected = resample(segmenter(images), size).flatten(2)
    found = segmenter.logits_at(segmenter.hypercolumn(images), grid, all_points(size, images=2))
    assert found.shape == (2, CLASSES, size[0] * size[1])
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    for ours, theirs in zip(head_gradients(segmenter, found), head_gradients(segmenter, expected)):
        assert theirs.abs().max() > 0
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("count", [3, 40, 400, 3000], ids=lambda count: f"{count} points")
def test_the_head_at_points_is_the_head_on_hypercolumns_with_all_gradients(segmenter, count):
    """More points or fewer than a level has values; in training, with the same units dropped."""
    segmenter = copy.deepcopy(segmenter).train()
    segmenter.hypercolumn.unfreeze()
    images = torch.randint(0, 256, (2, 3, 70, 93), dtype=torch.uint8)
    points = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(4)) * 1.2 - 0.1  # some outside
    learning = [*segmenter.parameters()]

    def logits_and_gradients(head: Callable) -> list[torch.Tensor]:
        torch.manual_seed(7)
        logits = head(segmenter.hypercolumn(images))
        factors = torch.linspace(-1, 2, logits.numel()).view_as(logits)
        return [logits, *torch.autograd.grad((logits * factors).sum(), learning)]

    def textbook(levels: list[torch.Tensor]) -> torch.Tensor:
        columns = segmenter.hypercolumn.at_points(levels, points)
        return segmenter.head(columns.transpose(1, 2).unsqueeze(-1)).squeeze(-1)

    found = logits_and_gradients(lambda levels: segmenter.head.at_points(levels, points))
    assert found[0].shape == (2, CLASSES, count)
    for ours, theirs in zip(found, logits_and_gradients(textbook)):
        assert theirs.abs().max() > 0
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_logits_at_take_other_places_in_each_image(segmenter):
    images, size = torch.randint(0, 256, (2, 3, 33, 46), dtype=torch.uint8), (33, 46)
    pixels = torch.tensor([[[0, 0], [32, 45], [16, 3]], [[0, 45], [32, 0], [31, 44]]])
    with torch.no_grad():
        dense = resample(segmenter.eval()(images), size)
        found = segmenter.logits_at(segmenter.hypercolumn(images), segmenter.grid(images), pixel_centres(pixels, size))
    expected = torch.stack([image[:, y, x] for image, (y, x) in zip(dense, pixels.mT)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_low_precision_moves_no_place(segmenter, amp):
    images, size = torch.randint(0, 256, (1, 3, 97, 111), dtype=torch.uint8), (97, 111)
    segmenter.eval().speed_up(amp)
    with torch.no_grad():
        with segmenter.autocast():
            levels = segmenter.hypercolumn(images)
        expected = resample(segmenter.logits(levels, segmenter.grid(images)), size).flatten(2)
        found = segmenter.logits_at(levels, segmenter.grid(images), all_points(size))
    # Rounding alone moves the logits by a hundredth of their spread, a tenth of a pixel by a twentieth.
    assert (found - expected).square().mean().sqrt() <= 0.02 * expected.std()


def test_full_precision_is_the_default_and_changes_nothing(segmenter):
    images = torch.randint(0, 256, (2, 3, 33, 45), dtype=torch.uint8)
    with torch.no_grad():
        before = segmenter.eval()(images)
        assert segmenter.speed_up() == segmenter.speed_up("off") == "exact float32"
        assert torch.equal(segmenter(images), before)
        segmenter.speed_up("bf16")
        assert not torch.equal(segmenter(images), before)
        segmenter.speed_up("off")
        assert torch.equal(segmenter(images), before)


@pytest.mark.parametrize(("amp", "least"), [("bf16", 0.95), ("fp16", 0.99)])
def test_low_precision_predicts_nearly_the_same(segmenter, amp, least):
    photos = pictures()
    expected = segmenter.predict(photos)
    assert segmenter.speed_up(amp) == f"autocast to {amp}"
    found = segmenter.predict(photos)
    same = np.concatenate([(ours == theirs).ravel() for ours, theirs in zip(found, expected)])
    assert least <= same.mean() < 1
    with torch.no_grad():
        assert segmenter(torch.from_numpy(photos[0].image)[None]).dtype == torch.float32


def test_a_device_without_autocast_is_named(segmenter):
    other = copy.deepcopy(segmenter).to("meta")
    with pytest.raises(RunError, match="^--amp bf16: not available on meta; leave --amp out$"):
        other.speed_up("bf16")
    assert other.speed_up() == "exact float32"


def test_compiling_is_tried_first_and_a_failure_is_one_line(segmenter, monkeypatch):
    def broken(function, **options):
        raise RuntimeError("no C++ compiler. Set CXX\nand more lines")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(RunError, match=r"^--compile: no working compiler here \(no C\+\+ compiler\); leave it out$"):
        segmenter.speed_up(compiled=True)


def test_the_backbone_is_compiled_for_all_sizes_and_gives_the_same(hypercolumn, segmenter, monkeypatch):
    compiled = []

    def compile_nothing(function, **options):
        compiled.append((getattr(function, "__self__", None), options))
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    images = torch.randint(0, 256, (1, 3, 33, 45), dtype=torch.uint8)
    with torch.no_grad():
        before = segmenter.eval()(images)
        segmenter.hypercolumn = copy.deepcopy(hypercolumn)
        assert segmenter.speed_up("off", compiled=True) == "exact float32, compiled"
        assert torch.equal(segmenter(images), before)
    assert compiled[-1] == (segmenter.hypercolumn, {"dynamic": True})
