"""The store of sampled hypercolumns: what is written is read back."""

from functools import partial

import numpy as np
import pytest

from data import UserError
from data.features import LEAST_AREA, Features, estimate_areas, read_features, save_features

RANDOM = np.random.default_rng(0)
STORE = Features(
    features=RANDOM.random((7, 5), np.float32),
    labels=RANDOM.integers(0, 21, 7, np.uint8),
    pixels=RANDOM.integers(0, 9999, (7, 3)),
    areas=RANDOM.random(7, np.float32),
    mean=RANDOM.random(5, np.float32),
    std=RANDOM.random(5, np.float32),
    photos=np.arange(2, dtype=np.int64) - 1,
    places=RANDOM.random((2, 8, 5), np.float32),
)


def test_what_is_written_is_read_back(tmp_path):
    save_features(tmp_path, STORE)
    found = read_features(tmp_path)
    assert type(found.features) is np.ndarray, "nothing is mapped"
    for written, read in zip(STORE, found, strict=True):
        assert np.array_equal(written, read) and written.dtype == read.dtype
    (tmp_path / "places.npy").unlink()  # which only sparse labels have
    assert read_features(tmp_path).places is None


def test_a_damaged_store_is_refused_in_a_line(tmp_path):
    save_features(tmp_path, STORE)
    path, message = tmp_path / "labels.npy", rf"^{tmp_path}: cannot be read \(.*\); run step 1 "
    save_code = partial(np.save, path, np.array([print] * 7))  # to read it would run what it says
    for spoil in (save_code, partial(path.write_bytes, b"\x93NUMPY cut"), path.unlink):
        spoil()
        with pytest.raises(UserError, match=message):
            read_features(tmp_path)


def test_areas_are_estimated_among_the_classes_with_a_label_there():
    # Image 0 has two labels of class 0 and one of class 2, image 1 one of class 1 alone; in image 2
    # the classifier sees nothing of class 0.
    images, labels = [0, 0, 0, 1, 2, 2], [0, 0, 2, 1, 0, 1]
    logits = np.zeros((3, 2, 3), dtype=np.float32)
    logits[0] = [0, 9, 0], [np.log(3), 0, 0]  # shares 1/2, 1/2 and 3/4, 1/4, whatever class 1 has
    logits[2] = [-50, 50, 0]
    found = estimate_areas(np.array(images), np.uint8(labels), logits, lambda places: places)
    assert found == pytest.approx([0.3125, 0.3125, 0.375, 1, LEAST_AREA, 1])
