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

CHANNELS, ROWS = 5, 2 * BLOCK + 3
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(1000, [0, 1e-3, 1, 10, 100], (ROWS, CHANNELS)).astype(np.float32)
OTHERS = {
    "labels": RANDOM.integers(0, 21, ROWS, np.uint8),
    "pixels": RANDOM.integers(0, 9999, (ROWS, 3)),
    "areas": RANDOM.random(ROWS, np.float32),
    "photos": np.arange(2, dtype=np.int64) - 1,
}
SPREAD = np.float32([0, 0, 0, 20, 0])  # std of the features anywhere in the images


@pytest.fixture
def store(tmp_path):
    """A finished store, written as two processes would, each with every other row."""
    create_rows(tmp_path, ROWS, CHANNELS)
    for start in (1, 0):
        opened = open_rows(tmp_path)
        opened[start::2] = FEATURES[start::2]
        opened.flush()
    save_rows(tmp_path, **OTHERS, ids=["2007_000032", "fåtölj"], spread=SPREAD)
    return tmp_path


def test_what_is_written_is_read_back_with_its_moments(store):
    found = read_features(store)
    assert type(found.features) is np.ndarray, "nothing is mapped"
    for name, array in ({"features": FEATURES} | OTHERS).items():
        assert np.array_equal(getattr(found, name), array)
        assert getattr(found, name).dtype == array.dtype
    exact = FEATURES.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6)
    expected = exact.std(0)
    assert expected[3] < SPREAD[3]  # what hardly varies among the labelled pixels
    expected[3] = SPREAD[3]
    np.testing.assert_allclose(found.std, expected, rtol=1e-5, atol=1e-9)
    assert found.mean.dtype == found.std.dtype == np.float32
    assert (store / "images.txt").read_text(encoding="utf-8") == "2007_000032\nfåtölj\n"
    assert len([*store.iterdir()]) == len(Features._fields)  # images.txt, but no places


def test_a_disk_without_room_is_noticed_before_the_work(tmp_path, monkeypatch):
    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}")):
        create_rows(tmp_path, 10, CHANNELS)


def test_a_damaged_store_is_refused_in_a_line(store):
    path = store / "labels.npy"
    np.save(path, np.array([print]))  # to read it would run what it says
    for content in (path.read_bytes(), b"\x93NUMPY cut", None):
        path.unlink()
        if content:
            path.write_bytes(content)
        with pytest.raises(
            UserError, match=rf"^{store}: cannot be read \(.*\); run step 1 again: "
        ):
            read_features(store)


def test_areas_are_estimated_among_the_classes_with_a_label_there():
    # Image 0 has two labels of class 0 and one of class 2, image 1 one of class 1 alone; in image 2
    # the classifier sees nothing of class 0.
    images, labels = [0, 0, 0, 1, 2, 2], [0, 0, 2, 1, 0, 1]
    logits = np.zeros((3, 2, 3), dtype=np.float32)
    logits[0] = [0, 9, 0], [np.log(3), 0, 0]  # shares 1/2, 1/2 and 3/4, 1/4, whatever class 1 has
    logits[2] = [-50, 50, 0]
    found = estimate_areas(np.array(images), np.uint8(labels), logits, lambda places: places)
    assert found == pytest.approx([0.3125, 0.3125, 0.375, 1, LEAST_AREA, 1])
