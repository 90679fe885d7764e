"""The measurement of few labels is the pipeline, many heads at a time."""

import sys

import pytest

from models import strokes
from tests import few_labels
from tests.conftest import DATA
from tests.scripts.processes import metrics, table

NETWORK = ("--backbone", "squeezenet1_1", "--weights", "random")


def test_its_heads_score_as_those_of_the_five_steps(street, succeeds, monkeypatch, capsys):
    smaller = {"SIZE": 48, "STRIDE": 2, "SEEDS": (0,), "enough_steps": lambda pixels, images: 8}
    for name, value in smaller.items():
        monkeypatch.setattr(few_labels, name, value)
    monkeypatch.setattr(strokes, "EPOCHS", 1)
    flags = ("--split", "train", "--data", "shapes", "--out", "few", "--per-class", "2", "20")
    flags += ("--known-areas",)  # areas as step 1 has them of whole masks
    monkeypatch.setattr(sys, "argv", ["few_labels", *NETWORK, *flags])
    few_labels.main()
    rows = table("few/few_labels.csv")
    assert [(row["images"], row["per_class"]) for row in rows] == [("18", "2"), ("18", "20")]
    assert int(rows[0]["pixels"]) < int(rows[1]["pixels"]) / 5

    recipe = ("--run", "r", "--recipe", "quick")
    succeeds("sample_features.py", *recipe, *DATA, *NETWORK, "--size", 48)
    succeeds("train_cls.py", *recipe, "--epochs", 1, "--min-steps", 8)
    succeeds("evaluate.py", *recipe, *DATA)
    assert float(rows[1]["miou"]) == pytest.approx(metrics("r")["miou"], abs=1e-3)
    assert metrics("r")["miou"] > 0.01
