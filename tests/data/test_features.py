"""The store of sampled hypercolumns: what is written is read back."""

import errno
import os
import re

import numpy as np
import pytest

from data import UserError
from data.features import (
    BLOCK,
    Features,
    create_rows,
    moments,
    open_rows,
    read_features,
    save_rows,
)

CHANNELS, CLASSES, ROWS = 5, 21, 57
NAMES = {*(f"{name}.npy" for name in Features._fields), "images.txt"}
IMAGES = ["2007_000032", "fåtölj"]


def rows(count: int = ROWS, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    features = rng.normal(1000, [0, 1e-3, 1, 10, 100], (count, CHANNELS)).astype(np.float32)
    labels, pixels = rng.integers(0, CLASSES, count, np.uint8), rng.integers(0, 9999, (count, 3))
    return features, labels, pixels, rng.random(count, np.float32)


def write(folder, features, labels, pixels, areas, images=IMAGES) -> None:
    """As two processes would, each with every other row."""
    create_rows(folder, *features.shape)
    for start in (1, 0):
        opened = open_rows(folder)
        opened[start::2] = features[start::2]
        opened.flush()
    save_rows(folder, labels, pixels, areas, *moments(open_rows(folder)), images)


@pytest.fixture
def store(tmp_path):
    """A finished store."""
    write(tmp_path / "store", *rows())
    return tmp_path / "store"


def test_what_is_written_is_read_back_with_its_moments(store):
    features, labels, pixels, areas = rows()
    found = read_features(store, CLASSES)
    assert type(found.features) is np.ndarray and found.features.dtype == np.float32
    assert np.array_equal(found.features, features)
    assert np.array_equal(found.labels, labels) and found.labels.dtype == np.uint8
    assert np.array_equal(found.pixels, pixels) and found.pixels.dtype == np.int64
    assert np.array_equal(found.areas, areas)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, exact.std(0), rtol=1e-5, atol=1e-9)
    assert found.mean.dtype == found.std.dtype == np.float32
    assert (store / "images.txt").read_text(encoding="utf-8") == "2007_000032\nfåtölj\n"
    assert {path.name for path in store.iterdir()} == NAMES


def test_moments_of_several_blocks_are_those_of_all_rows():
    values = np.random.default_rng(0).normal(100, 0.1, (2 * BLOCK + 3, 2)).astype(np.float32)
    mean, std = moments(values)
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, values.astype(np.float64).std(0), rtol=1e-5)


def test_a_disk_without_room_is_noticed_before_the_work(tmp_path, monkeypatch):
    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}")):
        create_rows(tmp_path, 10, CHANNELS)


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def replace(path, array, **options) -> None:
    np.save(path, array, **options)


BAD_LABEL = np.where(np.arange(ROWS) == 5, CLASSES, 0)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("pixels", lambda path: path.unlink(), "/pixels.npy: no such file; run step 1 again"),
        ("features", truncate, "/features.npy: cannot be read"),
        ("std", lambda path: path.write_bytes(b""), "/std.npy: cannot be read"),
        (
            "labels",
            lambda path: replace(path, np.array([print]), allow_pickle=True),
            "/labels.npy: cannot be read",
        ),
        (
            "labels",
            lambda path: replace(path, np.zeros(9, np.uint8)),
            f": labels.npy has shape (9,), not ({ROWS},); run step 1 again",
        ),
        (
            "pixels",
            lambda path: replace(path, np.zeros((ROWS, 2))),
            f": pixels.npy has shape ({ROWS}, 2)",
        ),
        ("mean", lambda path: replace(path, np.zeros(6)), ": mean.npy has shape (6,)"),
        (
            "labels",
            lambda path: replace(path, BAD_LABEL),
            f"/labels.npy: label {CLASSES} is outside the classes 0..{CLASSES - 1}",
        ),
    ],
)
def test_a_damaged_store_is_refused_in_a_line(store, name, damage, message):
    damage(store / f"{name}.npy")
    with pytest.raises(UserError, match=re.escape(f"{store}{message}")) as raised:
        read_features(store, CLASSES)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_single_feature_that_is_not_finite_is_noticed(value):
    features = rows()[0]
    features[40, 2] = value
    with pytest.raises(UserError, match="the features are not all finite; are the backbone's"):
        moments(features)
