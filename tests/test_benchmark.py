"""The benchmark: every row is timed."""

import pytest
import torch

pytest.importorskip("resource", reason="it reads the peak of memory in Unix's way")

from tests import benchmark


def test_every_row_is_timed_on_all_sides(tmp_path, capsys):
    benchmark.prepare(tmp_path, "squeezenet1_1", 2, size=48, drawn=64)
    rows = benchmark.measure(tmp_path, 2, torch.device("cpu"), 1, with_peaks=False)
    assert {"sample", "predict", "train_step", "train_step_pixels"} < {row["name"] for row in rows}
    assert all(len(row) == 6 and min([*row.values()][1:]) > 0 for row in rows)
    assert "\ntrain_step_pixels_batch  ours s " in capsys.readouterr().out
