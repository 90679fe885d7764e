"""The measurement of few labels: its rows are those of the steps, its pixels those of the masks."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from data.classes import VOID
from data.voc import VOCFolder
from models.run.recipes import RECIPES
from tests import few_labels
from tests.conftest import BACKBONE, DATA, blank
from tests.scripts.processes import metrics, table

QUICK = {"sample_features": " ".join([*DATA, *BACKBONE]), "train_cls": "--epochs 3 --hidden 8"}


def test_a_few_pixels_of_each_class_go_through_the_steps(street, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", blank)
    monkeypatch.setitem(RECIPES, "quick", QUICK)
    monkeypatch.setattr(few_labels, "SEEDS", (1,))
    flags = ("--data", "shapes", "--out", "few", "--per-class", "1", "8")
    monkeypatch.setattr(sys, "argv", ["few_labels", *flags])
    few_labels.main()
    rows, full = table("few/few_labels.csv"), VOCFolder(Path("shapes"), "train")
    present = [len({*np.unique(full.mask(index))} - {VOID}) for index in range(18)]
    assert int(rows[0]["pixels"]) == sum(present) < int(rows[1]["pixels"]) <= 8 * sum(present)
    assert float(rows[1]["miou"]) == pytest.approx(metrics("few/run")["miou"])
    few_labels.draw(full, 8, 1, 3.0, Path("strokes"))
    for place in ("few/data", "strokes"):
        sparse = VOCFolder(Path(place), "train")
        assert sparse.ids == full.ids
        for index in range(18):
            drawn, mask = sparse.mask(index), full.mask(index)
            assert np.array_equal(np.where(drawn == VOID, mask, drawn), mask)
            assert {*np.unique(drawn)} - {VOID} == {*np.unique(mask)} - {VOID}
