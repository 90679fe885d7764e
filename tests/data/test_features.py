"""The store of sampled hypercolumns: what is written is read back."""

import errno
import os
import re

import numpy as np
import pytest

from data import UserError
from data.features import (
    BLOCK,
    LEAST_AREA,
    Features,
    create_rows,
    estimate_areas,
    open_rows,
    read_features,
    save_rows,
)

CHANNELS, CLASSES, ROWS = 5, 21, 2 * BLOCK + 3
NAMES = {*(f"{name}.npy" for name in Features._fields[:-1]), "images.txt"}
IMAGES = ["2007_000032", "fåtölj"]
PHOTOS = np.arange(2, dtype=np.int64) - 1


SPREAD = np.float32([0, 0, 0, 20, 0])  # std of the features anywhere in the images


def rows() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    features = rng.normal(1000, [0, 1e-3, 1, 10, 100], (ROWS, CHANNELS)).astype(np.float32)
    labels, pixels = rng.integers(0, CLASSES, ROWS, np.uint8), rng.integers(0, 9999, (ROWS, 3))
    return features, labels, pixels, rng.random(ROWS, np.float32)


@pytest.fixture
def store(tmp_path):
    """A finished store, written as two processes would, each with every other row."""
    folder, (features, *others) = tmp_path / "store", rows()
    folder.mkdir()
    create_rows(folder, *features.shape)
    for start in (1, 0):
        opened = open_rows(folder)
        opened[start::2] = features[start::2]
        opened.flush()
    save_rows(folder, *others, IMAGES, PHOTOS, SPREAD)
    return folder


def test_what_is_written_is_read_back_with_its_moments(store):
    features, labels, pixels, areas = rows()
    found = read_features(store)
    assert type(found.features) is np.ndarray and found.features.dtype == np.float32
    assert np.array_equal(found.features, features)
    assert np.array_equal(found.labels, labels) and found.labels.dtype == np.uint8
    assert np.array_equal(found.pixels, pixels) and found.pixels.dtype == np.int64
    assert np.array_equal(found.areas, areas) and np.array_equal(found.photos, PHOTOS)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6)
    expected = exact.std(0)
    assert expected[3] < SPREAD[3]  # what hardly varies among the labelled pixels
    expected[3] = SPREAD[3]
    np.testing.assert_allclose(found.std, expected, rtol=1e-5, atol=1e-9)
    assert found.mean.dtype == found.std.dtype == np.float32
    assert (store / "images.txt").read_text(encoding="utf-8") == "2007_000032\nfåtölj\n"
    assert {path.name for path in store.iterdir()} == NAMES


def test_a_disk_without_room_is_noticed_before_the_work(tmp_path, monkeypatch):
    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}")):
        create_rows(tmp_path, 10, CHANNELS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pixels", None, "pixels.npy"),
        ("features", b"\x93NUMPY cut", "cannot be read"),
        ("labels", np.array([print]), "cannot be read"),
        ("labels", np.zeros(9, np.uint8), f"labels.npy has shape (9,), not ({ROWS},); run step 1"),
    ],
)
def test_a_damaged_store_is_refused_in_a_line(store, name, content, message):
    path = store / f"{name}.npy"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read_features(store)
    line = str(raised.value)
    assert line.startswith(f"{store}: ") and "run step 1 again" in line and "\n" not in line


def test_areas_are_estimated_among_the_classes_with_a_label_there():
    # Image 0 has two labels of class 0 and one of class 2, image 1 one of class 1 alone; in image 2
    # the classifier sees nothing of class 0.
    images, labels = [0, 0, 0, 1, 2, 2], [0, 0, 2, 1, 0, 1]
    logits = np.zeros((3, 2, 3), dtype=np.float32)
    logits[0] = [0, 9, 0], [np.log(3), 0, 0]  # shares 1/2, 1/2 and 3/4, 1/4, whatever class 1 has
    logits[2] = [-50, 50, 0]
    pixels = np.stack([images, images, images], axis=1)
    store = Features(*[np.empty(0)] * 7, logits)._replace(labels=np.uint8(labels), pixels=pixels)
    found = estimate_areas(store, lambda places: places)
    assert found == pytest.approx([0.3125, 0.3125, 0.375, 1, LEAST_AREA, 1])
