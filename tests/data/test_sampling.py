"""Sampled pixels: how many of which class, from where, and that only the seed and the id decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data.classes import VOID
from data.sampling import sample_pixels

MASK = np.zeros((20, 30), np.uint8)
MASK[2:12, 3:13] = 7
MASK[15, 10:13] = 20
MASK[:2] = VOID


def sampled(mask=MASK, per_class=5, seed=0, image_id="2007_000032"):
    return sample_pixels(mask, per_class, seed, image_id)


@pytest.mark.parametrize(
    "per_class, expected", [(1, [1, 1, 1]), (5, [5, 5, 3]), (100, [100, 100, 3]), (10**6, [437, 100, 3])]
)
def test_every_class_gives_as_many_as_asked_or_all_it_has(per_class, expected):
    pixels, labels = sampled(per_class=per_class)
    assert [(labels == label).sum() for label in (0, 7, 20)] == expected
    assert len(labels) == len(pixels) == sum(expected)
    assert (np.diff(labels.astype(int)) >= 0).all()  # classes ascending
    assert pixels.dtype == np.int64 and labels.dtype == np.uint8


@given(
    mask=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
        elements=st.sampled_from([0, 1, 5, 254, VOID]),
    ),
    per_class=st.integers(1, 12),
    seed=st.integers(0, 2**63),
)
def test_samples_are_distinct_labelled_as_the_mask_and_complete(mask, per_class, seed):
    pixels, labels = sampled(mask, per_class, seed)
    assert pixels.shape == (len(labels), 2)
    assert np.array_equal(mask[tuple(pixels.T)], labels)
    assert len({tuple(pixel) for pixel in pixels.tolist()}) == len(pixels)
    expected = {label: min(per_class, int((mask == label).sum())) for label in set(mask.ravel().tolist()) - {VOID}}
    assert {int(label): int((labels == label).sum()) for label in np.unique(labels)} == expected


@pytest.mark.parametrize("present", [[0, 7, 20], [3], [0], [254]])
def test_a_mask_without_void_keeps_its_last_class(present):
    # `np.unique(mask)[:-1]` takes the last value for void, and drops a class of every mask that has none.
    mask = np.array(present, np.uint8).repeat(4).reshape(len(present), 4)
    assert np.unique(sampled(mask)[1]).tolist() == present


def test_an_all_void_mask_gives_no_sample():
    pixels, labels = sampled(np.full((3, 4), VOID, np.uint8))
    assert pixels.shape == (0, 2) and pixels.dtype == np.int64
    assert labels.shape == (0,) and labels.dtype == np.uint8


def test_seed_and_id_alone_decide():
    first = sampled()[0]
    np.random.seed(1)
    sampled(image_id="another", per_class=1)
    assert np.array_equal(sampled(MASK.copy())[0], first)
    assert not np.array_equal(sampled(seed=1)[0], first)
    assert not np.array_equal(sampled(image_id="2007_000033")[0], first)


def test_ids_beyond_ascii_can_be_sampled():
    assert not np.array_equal(sampled(image_id="fåtölj")[0], sampled(image_id="fatolj")[0])


def test_pixels_are_chosen_uniformly():
    mask = np.zeros((5, 8), np.uint8)
    counts = np.zeros(mask.shape)
    for seed in range(1000):
        np.add.at(counts, tuple(sampled(mask, 10, seed)[0].T), 1)
    assert counts.sum() == 10_000
    # 250 expected of each pixel, standard deviation 13.7: five of them are beyond chance.
    assert abs(counts - 250).max() < 5 * 13.7
