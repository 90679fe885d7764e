"""The benchmark: its sides agree, it would notice if not, and every row is timed."""

import pytest
import torch

pytest.importorskip("resource", reason="it reads the peak of memory in Unix's way")

from tests import benchmark

IMAGES, CPU = 2, torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark.prepare(folder, "squeezenet1_1", IMAGES, size=48, drawn=64)
    return folder


OUTPUTS = {"logits", "gradients"}
PARTS = {None: set(), "head.layers.1.weight": OUTPUTS, "features.0.weight": OUTPUTS | {"features"}}


@pytest.mark.parametrize("part, differs", PARTS.items())
def test_the_sides_agree_and_a_difference_in_any_part_is_noticed(folder, part, differs, capsys):
    work = benchmark.Work(folder, IMAGES, CPU)
    if part:
        with torch.no_grad():
            work.textbook.get_parameter(part)[0].mul_(1.1)
    exact = benchmark.exactness(work)
    assert {name for name in exact if exact[name] > benchmark.TOLERANCE} == differs
    assert benchmark.report([{"name": "a row"}], exact) == bool(differs)
    assert ("more than 0.0001 apart: logits" in capsys.readouterr().err) == bool(differs)


def test_every_row_is_timed_on_all_sides(folder):
    rows = benchmark.measure(folder, IMAGES, CPU, 1, with_peaks=False)
    assert {"sample", "predict", "train_step", "train_step_pixels"} < {row["name"] for row in rows}
    assert all(len(row) == 6 and min([*row.values()][1:]) > 0 for row in rows)
