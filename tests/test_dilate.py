"""Dilation: the last levels at the resolution before the last poolings, with the same weights, seeing the same."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import RunError
from models.checkpoint import load_extractor, save_extractor
from models.hypercolumn import Hypercolumn


def picture(side: int = 128) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("backbone, strides", [("squeezenet1_1", [2, 4, 8, 8]), ("vgg11_bn", [1, 2, 4, 8, 8])])
def test_the_last_level_has_the_resolution_of_the_one_before(backbone, strides):
    hypercolumn = Hypercolumn(backbone, "random", dilated=1, context=["3"])
    levels = hypercolumn(picture())
    for level, stride in zip(levels, strides):
        assert abs(level.shape[-1] - 128 / stride) <= 1
    assert levels[-2].shape == levels[-1].shape
    assert [tuple(level.shape[1:]) for level in levels] == hypercolumn.level_shapes(128, 128)


def test_behind_a_pool_of_stride_1_kernels_see_the_same_places_as_before():
    """VGG11's last level, made of its fourth through a pool of 3x3: at every other place as without dilation."""
    plain, dilated = Hypercolumn("vgg11", "random", seed=1), Hypercolumn("vgg11", "random", seed=1, dilated=1)
    assert not any(isinstance(layer, nn.MaxPool2d) and layer.stride == 1 for layer in plain.features)
    fourth, found = dilated(picture(160))[-2:]
    before = F.max_pool2d(fourth, 3, stride=2, padding=1)
    first, _, second, _ = (layer for layer in plain.features[16:20])
    expected = F.relu(second(F.relu(first(before))))
    inner = slice(2, -2)  # beyond, the two differ in what the padding stands for
    assert expected.abs().max() > 0
    torch.testing.assert_close(
        found[..., ::2, ::2][..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-4
    )


def test_dilation_can_be_changed_and_changed_back_and_is_saved(tmp_path):
    hypercolumn = Hypercolumn("squeezenet1_1", "random", seed=3, context=["image", "5"]).eval()
    before, weights = hypercolumn(picture()), hypercolumn.spec()["fingerprint"]
    hypercolumn.dilate(2)
    dilated = hypercolumn(picture())
    assert [level.shape[-1] for level in dilated[:4]] == [63, 31, 31, 31]
    assert hypercolumn.spec()["fingerprint"] == weights and hypercolumn.spec()["dilated"] == 2
    assert not any(level.requires_grad for level in dilated)
    save_extractor(tmp_path / "backbone.pt", hypercolumn)
    assert all(map(torch.equal, load_extractor(tmp_path / "backbone.pt")(picture()), dilated))
    hypercolumn.dilate(0)
    assert all(map(torch.equal, hypercolumn(picture()), before))


def test_more_poolings_than_there_are_is_refused():
    with pytest.raises(RunError, match="--dilate 2: there are 1 pooling layers before the last tap"):
        Hypercolumn("squeezenet1_1", "random", taps=[1, 2], dilated=2)


def test_dilate_as_a_flag(drawn, in_process, in_turn, tmp_path):
    data, run = ("--data", drawn), ("--run", tmp_path)
    backbone = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48", "--workers", "0")
    in_turn(
        ("sample_features.py", *data, *run, *backbone, "--dilate", "1"),
        ("train_cls.py", *run, "--epochs", "2", "--hidden", "8"),
        ("train_seg.py", *data, *run, "--epochs", "1", "--limit", "2", "--val-limit", "1", "--workers", "0"),
    )
    for flags, words in (((), "last 1 poolings dilated"), (("--dilate", "0"), "one view of each image;")):
        in_turn(("evaluate.py", *data, *run, "--limit", "2", "--workers", "0", *flags))
        assert words in json.loads((tmp_path / "4_eval" / "metrics.json").read_text())["protocol"]
    in_turn(("visualize.py", *data, *run, "--limit", "1", "--workers", "0", "--dilate", "2"))
    done = in_process("evaluate.py", *data, *run, "--dilate", "7")
    assert done.returncode == 2 and "--dilate 7: there are 3 pooling layers" in done.stderr
    done = in_process("sample_features.py", *data, *run, *backbone, "--resume")
    assert done.returncode == 0, done.stderr
    done = in_process("train_seg.py", *data, *run)
    assert done.returncode == 2 and "1 poolings dilated" in done.stderr
