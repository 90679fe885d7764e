"""Masks as polygons and run lengths: drawn again they are the masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path

from data.classes import VOID
from data.outlines import polygons, run_lengths


@given(arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, VOID])))
def test_the_pixels_inside_the_polygons_are_those_of_the_mask(mask):
    rows, columns = np.indices(mask.shape) + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    drawn = np.full(mask.size, VOID, dtype=np.uint8)
    for label, rings in polygons(mask):
        inside = np.sum([Path(ring).contains_points(centres) for ring in rings], axis=0) == 1
        assert inside.any() and (drawn[inside] == VOID).all()
        drawn[inside] = label
        low, high = ([side(ring, axis=0) for ring in rings] for side in (np.min, np.max))
        assert (np.array([low, high]) % 1 == 0).all(), "it ends where its pixels do"
        assert (low >= low[0]).all() and (high <= high[0]).all(), "the outline comes first"
    assert np.array_equal(drawn.reshape(mask.shape), mask)


def test_run_lengths_are_cocos():
    mask = np.array([[0, 1, 1], [0, 0, VOID]], dtype=np.uint8)
    coco = pytest.importorskip("pycocotools.mask")
    decoded = {label: coco.decode(code).tolist() for label, code in run_lengths(mask).items()}
    assert decoded == {0: [[1, 0, 0], [1, 1, 0]], 1: [[0, 1, 1], [0, 0, 0]]}
