"""The store of sampled hypercolumns: what is written is read back, whole or not at all."""

import re

import numpy as np
import pytest

from data import DataError
from data.features import (
    BLOCK,
    Features,
    create_rows,
    finish_rows,
    moments,
    open_rows,
    read_features,
)

CHANNELS, CLASSES, ROWS = 5, 21, 57
NAMES = {*(f"{name}.npy" for name in Features._fields), "images.txt"}
IMAGES = ["2007_000032", "fåtölj"]


def rows(count: int = ROWS, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    features = rng.normal(1000, [0, 1e-3, 1, 10, 100], (count, CHANNELS)).astype(np.float32)
    labels, pixels = rng.integers(0, CLASSES, count), rng.integers(0, 9999, (count, 3))
    return features, labels, pixels, rng.random(count)


def write(folder, features, labels, pixels, areas, images=IMAGES) -> None:
    """As two processes would, each with every other row."""
    create_rows(folder, *features.shape)
    for start in (1, 0):
        opened = open_rows(folder)
        opened[start::2] = features[start::2]
        opened.flush()
    finish_rows(folder, labels, pixels, areas, *moments(open_rows(folder)), images)


@pytest.fixture
def store(tmp_path):
    """A finished store."""
    write(tmp_path / "store", *rows())
    return tmp_path / "store"


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read_back_with_its_moments(store):
    features, labels, pixels, areas = rows()
    found = read_features(store, CLASSES)
    assert isinstance(found.features, np.memmap) and found.features.dtype == np.float32
    assert np.array_equal(found.features, features)
    assert np.array_equal(found.labels, labels) and found.labels.dtype == np.uint8
    assert np.array_equal(found.pixels, pixels) and found.pixels.dtype == np.int64
    assert np.array_equal(found.areas, areas.astype(np.float32))
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, exact.std(0), rtol=1e-5, atol=1e-9)
    assert found.mean.dtype == found.std.dtype == np.float32
    assert (store / "images.txt").read_text(encoding="utf-8") == "2007_000032\nfåtölj\n"
    assert set(content(store)) == NAMES


def test_moments_of_several_blocks_are_those_of_all_rows():
    values = np.random.default_rng(0).normal(100, 0.1, (2 * BLOCK + 3, 2)).astype(np.float32)
    mean, std = moments(values)
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, values.astype(np.float64).std(0), rtol=1e-5)


def test_a_store_that_is_not_finished_leaves_the_old_one_and_a_finished_one_replaces_it(store):
    before = content(store)
    values = rows(9, seed=1)
    create_rows(store, 1000, CHANNELS)
    open_rows(store)[:500] = 1  # a process is killed here
    assert content(store).items() >= before.items()
    assert np.array_equal(read_features(store, CLASSES).features, rows()[0])
    write(store, *values, ["only"])
    assert set(content(store)) == NAMES
    assert np.array_equal(read_features(store, CLASSES).features, values[0])
    assert (store / "images.txt").read_text() == "only\n"


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
        ("labels", truncate, "/labels.npy: cannot be read"),
        ("std", lambda path: path.write_bytes(b""), "/std.npy: cannot be read"),
        (
            "labels",
            lambda path: replace(path, np.array([print]), allow_pickle=True),
            "/labels.npy: cannot be read",
        ),
        (
            "labels",
            lambda path: replace(path, np.zeros(9, np.uint8)),
            f": labels.npy has shape (9,), which does not go with features.npy ({ROWS}, 5)",
        ),
        (
            "pixels",
            lambda path: replace(path, np.zeros((ROWS, 2))),
            f": pixels.npy has shape ({ROWS}, 2)",
        ),
        ("mean", lambda path: replace(path, np.zeros(6)), ": mean.npy has shape (6,)"),
        ("std", lambda path: replace(path, np.full(5, np.nan)), ": mean.npy or std.npy is not"),
        (
            "labels",
            lambda path: replace(path, BAD_LABEL),
            f"/labels.npy: label {CLASSES} is outside the classes 0..{CLASSES - 1}",
        ),
    ],
)
def test_a_damaged_store_is_refused_in_a_line(store, name, damage, message):
    damage(store / f"{name}.npy")
    with pytest.raises(DataError, match=re.escape(f"{store}{message}")) as raised:
        read_features(store, CLASSES)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_single_feature_that_is_not_finite_is_noticed(store, value):
    before = content(store)
    values = rows()
    values[0][40, 2] = value
    with pytest.raises(DataError, match="the features are not all finite; are the backbone's"):
        write(store, *values)
    assert content(store).items() >= before.items()
