"""Hypercolumns: the levels are torchvision's maps and their context; points and map agree."""

from itertools import product
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from data import UserError
from models.hypercolumn import Hypercolumn, level_names, read, surroundings
from tests.models.conftest import SMALL, assert_near, noise


def test_those_of_vgg11_are_the_course_sheets():
    assert Hypercolumn("vgg11", None).Z == 1472


def test_half_of_the_least_side_would_be_too_few_pixels_for_the_last_tap():
    assert len(Hypercolumn(SMALL, "random", context=["half"])(noise(32, 200))) == 5


@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_points_are_bilinear_and_each_image_has_its_own(points, size):
    levels = [torch.randn(2, 3, *shape, dtype=torch.float64) for shape in (size, size[::-1])]
    places = torch.tensor([points, points[::-1]], dtype=torch.float64)
    at = 2 * places.flip(-1)[:, None] - 1  # x, y from -1 to 1
    how = {"padding_mode": "border", "align_corners": False}
    expected = torch.cat([F.grid_sample(level, at, **how)[:, :, 0] for level in levels], dim=1)
    found = Hypercolumn.at_points(levels, places).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    low = [level.bfloat16() for level in levels]  # is read at the same places
    exact = Hypercolumn.at_points([level.float() for level in low], places)
    assert torch.equal(Hypercolumn.at_points(low, places), exact)


def test_a_device_without_embedding_bag_reads_the_same(monkeypatch):
    level, points = torch.randn(2, 5, 7, 3, requires_grad=True), torch.rand(2, 9, 2)
    found = []
    for _ in range(2):
        values = read(level, points)
        found.append((values, *torch.autograd.grad(values.square().sum(), level)))
        monkeypatch.setattr(F, "embedding_bag", mock.Mock(side_effect=NotImplementedError))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("taps", [[], [0], [-1, 2], [5], ["b14"], ["b0"]])
def test_taps_that_do_not_exist_are_refused(taps):
    line = "^--taps .*: squeezenet1_1 has taps 1 to 4 and blocks b1 to b13$"
    with pytest.raises(UserError, match=line):
        Hypercolumn(SMALL, None, taps)


@settings(max_examples=20)
@given(height=st.integers(1, 7), width=st.integers(1, 7), side=st.sampled_from([1, 3, 11]))
def test_contexts_are_means_over_the_part_of_them_inside_the_image(height, width, side):
    level, before = torch.randn(2, 3, height, width, dtype=torch.float64), side // 2
    found, whole = (surroundings(level, context) for context in (str(side), "image"))
    assert whole.allclose(F.adaptive_avg_pool2d(level, 1))
    for y, x in product(range(height), range(width)):
        rows, columns = (slice(max(0, at - before), at + before + 1) for at in (y, x))
        assert found[..., y, x].allclose(level[..., rows, columns].mean((2, 3)))


def test_context_levels_follow_the_taps_whatever_the_dtype_of_the_image():
    context = ["image", "3", "half"]
    hypercolumn = Hypercolumn(SMALL, "random", [1, 3], context=context, dilated=1).eval()
    images = noise(64, 94, 2)
    levels = hypercolumn(images)
    for found, expected in zip(hypercolumn(images.float() / 255), levels):
        assert_near(found, expected)
    assert [level.shape[1] for level in levels] == hypercolumn.channels == [64, *4 * [256]]
    assert hypercolumn.level_shapes(64, 94) == [tuple(level.shape[1:]) for level in levels]
    for level, what in zip(levels[2:], ["image", "7"]):  # of a level twice as fine
        assert torch.equal(level, surroundings(levels[1], what))
    half = F.avg_pool2d(images / 255, 2)
    assert_near(levels[4], hypercolumn(half)[1].mean((2, 3), keepdim=True))
    names = level_names(hypercolumn.taps, hypercolumn.context)
    assert names == ["tap 1", "tap 3", "image", "3×3", "half"]

    spec = hypercolumn.spec()
    for dilated, side in ((0, 7), (1, 15)):
        hypercolumn.dilate(dilated)
        assert hypercolumn.spec() == {**spec, "dilated": dilated}
        assert hypercolumn(images)[3].shape[2] == side
    assert all(map(torch.equal, hypercolumn(images), levels)), "dilation is changed and undone"
