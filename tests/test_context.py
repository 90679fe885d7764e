"""Context: means of the last level over the image, its quadrants and windows, as levels like the others."""

import json

import pytest
import torch

from models.checkpoint import load_extractor, load_segmenter, save_extractor
from models.classifier import DenseClassifier, FCClassifier
from models.hypercolumn import Hypercolumn, pixel_centres, surroundings

CONTEXT = ["image", "quadrants", "3", "11"]


@pytest.fixture(scope="module")
def hypercolumn() -> Hypercolumn:
    return Hypercolumn("squeezenet1_1", "random", taps=[1, 3], seed=1, context=CONTEXT).eval()


@pytest.fixture(scope="module")
def levels(hypercolumn) -> list[torch.Tensor]:
    images = torch.randint(0, 256, (2, 3, 70, 93), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return hypercolumn(images)


@pytest.mark.parametrize("side", [1, 3, 5, 11])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 7)])
def test_a_window_gives_the_mean_of_what_of_it_lies_in_the_image(side, size):
    level, reach = torch.randn(2, 3, *size, dtype=torch.float64), side // 2
    found = surroundings(level, str(side))
    assert found.shape == level.shape
    for y, x in torch.cartesian_prod(*map(torch.arange, size)).tolist():
        window = level[:, :, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        torch.testing.assert_close(found[:, :, y, x], window.mean((2, 3)))


def test_image_and_quadrants_are_means():
    level = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(surroundings(level, "image")[:, :, 0, 0], level.mean((2, 3)))
    quadrants = surroundings(level, "quadrants")
    assert quadrants.shape == (2, 3, 2, 2)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = level[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        torch.testing.assert_close(quadrants[:, :, row, column], part.mean((2, 3)))


def test_context_comes_after_the_taps_and_is_of_the_last(hypercolumn, levels):
    plain = Hypercolumn("squeezenet1_1", "random", taps=[1, 3], seed=1)
    assert hypercolumn.channels == [64, 256, 256, 256, 256, 256] and hypercolumn.Z == plain.Z + 4 * 256
    assert [level.shape[1] for level in levels] == hypercolumn.channels
    assert hypercolumn.level_shapes(70, 93) == [tuple(level.shape[1:]) for level in levels]
    for level, what in zip(levels[2:], CONTEXT):
        assert torch.equal(level, surroundings(levels[1], what))


def test_points_and_dense_maps_agree_with_context_too(hypercolumn, levels):
    grid = (9, 13)
    points = pixel_centres(torch.cartesian_prod(*map(torch.arange, grid)), grid).expand(2, -1, -1)
    dense = hypercolumn.as_map(levels, grid).flatten(2).transpose(1, 2)
    torch.testing.assert_close(hypercolumn.at_points(levels, points), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(9, 13), (35, 47), (1, 1)])
def test_the_fast_head_takes_context_as_it_takes_other_levels(grid, hypercolumn, levels):
    torch.manual_seed(0)
    columns = hypercolumn.as_map(levels, (9, 13)).transpose(0, 1).flatten(1)
    fc = FCClassifier(columns.mean(1), columns.std(1), 5, hidden=16)
    dense = DenseClassifier.from_fc(fc, hypercolumn.channels).eval()
    expected = dense(hypercolumn.as_map(levels, grid))
    torch.testing.assert_close(dense.on_levels(levels, grid), expected, rtol=1e-3, atol=1e-4)


def test_an_extractor_comes_back_with_its_context(hypercolumn, tmp_path):
    save_extractor(tmp_path / "backbone.pt", hypercolumn)
    assert load_extractor(tmp_path / "backbone.pt").spec() == hypercolumn.spec()
    assert json.loads(json.dumps(hypercolumn.spec()))["context"] == CONTEXT


def test_the_street_with_context(drawn, in_process, tmp_path):
    run = tmp_path / "run"
    for step in (
        ("sample_features.py", "--data", drawn, "--run", run, "--backbone", "squeezenet1_1", "--weights", "random")
        + ("--size", "48", "--context", "image,3"),
        ("train_cls.py", "--run", run, "--epochs", "1", "--hidden", "8"),
        ("train_seg.py", "--data", drawn, "--run", run, "--epochs", "1", "--limit", "4", "--cache", "1"),
        ("evaluate.py", "--data", drawn, "--run", run, "--limit", "2"),
    ):
        done = in_process(*step)
        assert done.returncode == 0, done.stderr
        assert step[0] != "sample_features.py" or "Z = 64+128+256+512+512+512 = 1984" in done.stdout
    assert load_segmenter(run / "3_seg" / "best.pt")[0].hypercolumn.context == ["image", "3"]
    plain = ("sample_features.py", "--data", drawn, "--run", run, "--backbone", "squeezenet1_1", "--weights", "random")
    assert in_process(*plain, "--size", "48").returncode == 0
    done = in_process("evaluate.py", "--data", drawn, "--run", run)
    assert done.returncode == 2 and "context image,3" in done.stderr and "context none" in done.stderr


@pytest.mark.parametrize(
    "context", ["everything", "4", "image,", "0", "-3", "image,image", "5,05", "99999999999999999999999"]
)
def test_context_that_makes_no_sense_is_refused(context, in_process, tmp_path):
    done = in_process("sample_features.py", "--run", tmp_path, "--context", context)
    assert done.returncode == 2 and "argument --context: " in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_window_covers_the_same_on_a_finer_level():
    level = torch.randn(1, 2, 40, 40)
    assert torch.equal(surroundings(level, "5", 2), surroundings(level, "11"))
    assert torch.equal(surroundings(level, "1", 4), surroundings(level, "5"))
    assert torch.equal(surroundings(level, "image", 2), surroundings(level, "image"))
