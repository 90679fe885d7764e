"""The benchmark: its sides agree, it would notice if not, and every row is timed."""

import re

import pytest
import torch

pytest.importorskip("resource", reason="it reads the peak of memory in Unix's way")

from data.features import open_rows
from tests import benchmark, benchmark_sides

CPU = torch.device("cpu")
IMAGES, SIZE, DRAWN = 2, 64, 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark_sides.prepare(folder, 7, SIZE, DRAWN)
    return folder


@pytest.fixture
def work(folder, request):
    backbone = getattr(request, "param", "vgg11")
    return benchmark_sides.Work(folder, IMAGES, CPU, backbone)


@pytest.mark.parametrize(
    "part, differs",
    [
        (None, set()),
        ("head.layers.1.weight", {"logits", "gradients"}),
        ("features.0.weight", {"logits", "gradients", "features"}),
    ],
)
def test_the_sides_agree_and_a_difference_in_any_part_is_noticed(work, part, differs):
    if part:
        with torch.no_grad():
            work.textbook.get_parameter(part)[0].mul_(1.1)
    found = benchmark_sides.exactness(work)
    assert {name for name in found if found[name] > benchmark.TOLERANCE} == differs


@pytest.mark.parametrize("work", ["resnet18", "mobilenet_v2"], indirect=True)
def test_the_sides_of_the_other_backbones_agree(work):
    # In float64: the features of so small a picture hardly vary, which enlarges rounding.
    work.segmenter.double(), work.textbook.double()
    assert max(benchmark_sides.exactness(work).values()) < benchmark.TOLERANCE


def test_both_sides_of_step_1_store_the_same_hypercolumns(work):
    stores = []
    for side in ("ours", "naive"):
        work.calls["sample"][side]()
        stores.append(torch.tensor(open_rows(work.place)))
    ours, textbook = stores
    assert ours.shape[0] > 2 and ours.std(0).max() > 0
    assert torch.corrcoef(torch.stack([ours.flatten(), textbook.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize(
    "work, row",
    [("vgg11", "train_step_pixels_batch"), ("resnet18", "train_step_resnet18")],
    indirect=["work"],
)
def test_a_training_step_changes_the_head_alone(work, row):
    for side, network in (("ours", work.segmenter), ("naive", work.textbook)):
        before = {key: value.clone() for key, value in network.state_dict().items()}
        work.calls[row][side]()
        after = network.state_dict()
        changed = {key for key in after if not torch.equal(before[key], after[key])}
        assert changed == {f"head.{key}" for key, _ in network.head.named_parameters()}


def test_every_row_is_timed_on_all_sides(tmp_path, capsys):
    rows, exact = benchmark.measure(tmp_path, CPU, 1, IMAGES, SIZE, DRAWN, with_peaks=False)
    assert {"sample", "predict", "train_step", "train_step_pixels"} < {row["name"] for row in rows}
    assert {"predict_resnet18", "train_step_mobilenet_v2"} < {row["name"] for row in rows}
    assert all(row[name] > 0 for row in rows for name in benchmark.SECONDS)
    assert benchmark.report(rows, exact) == 0
    assert re.search(r"\npredict +0\.", capsys.readouterr().out)
    for value in (2e-4, float("nan")):
        assert benchmark.report(rows, exact | {"gradients": value}) == 1
        assert capsys.readouterr().err == "benchmark: more than 0.0001 apart: gradients\n"
