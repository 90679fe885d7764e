"""Sparse labels in steps 1 and 2: a first classifier says what areas they stand for."""

import numpy as np
import pytest
import torch

from data.classes import VOID
from data.features import estimate_areas, read_features
from data.sampling import KEPT, sample_pixels
from models.checkpoint import load_segmenter
from tests.conftest import BACKBONE, DATA, change_masks
from tests.scripts.processes import facts, log

FEATURES = "sparse/1_features"


def a_pixel_of_each_class(mask: np.ndarray) -> np.ndarray:
    sparse, (places, labels, _) = np.full_like(mask, VOID), sample_pixels(mask, 1, 0, "x")
    sparse[tuple(places.T)] = labels
    return sparse


def test_step_2_takes_the_areas_that_a_first_classifier_estimates(street, succeeds):
    change_masks("shapes", a_pixel_of_each_class)
    succeeds("sample_features.py", "--run", "sparse", *DATA, *BACKBONE)
    store = read_features(street / FEATURES)
    assert store.places.shape == (18, KEPT, store.features.shape[1])
    assert store.areas == pytest.approx(1 / np.bincount(store.pixels[:, 0])[store.pixels[:, 0]])

    def train(areas: float) -> str:
        flags = ("--epochs", 20, "--lr", 0.02, "--hidden", 16, "--area-weight", areas)
        return facts(succeeds("train_cls.py", "--run", "sparse", *flags))["training"]

    assert "twice" not in train(0)
    assert "20 epochs of 1 step, twice, as sparse labels tell no areas" in train(1)
    expected = log("sparse/2_cls")
    (street / FEATURES / "places.npy").rename(street / "places.npy")
    assert "twice" not in train(1)
    assert log("sparse/2_cls")[-1]["loss"] != pytest.approx(expected[-1]["loss"], rel=1e-2)
    head = load_segmenter(street / "sparse/2_cls/dense.pt")[0].head

    @torch.inference_mode()
    def first(places: torch.Tensor) -> torch.Tensor:
        levels = places.T[None, :, :, None].split(head.channels, dim=1)
        return head.eval()(levels, (len(places), 1))[0, :, :, 0].T

    known = store.pixels[:, 0], store.labels, store.places
    np.save(street / FEATURES / "areas.npy", estimate_areas(*known, first))
    train(1)
    names = "loss", "accuracy"
    for row, first_row in zip(log("sparse/2_cls"), expected, strict=True):
        values = [first_row[name] for name in names]
        assert [row[name] for name in names] == pytest.approx(values, rel=1e-3)


def test_masks_that_are_drawn_in_full_need_no_estimate(walked):
    assert not (walked.place / "run/1_features/places.npy").exists()
