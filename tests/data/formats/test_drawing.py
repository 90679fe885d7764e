"""Polygons and run lengths as arrays of pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.drawing import polygon, runs

SIZE = 6, 8


def test_a_square_covers_its_area_and_no_more():
    expected = np.zeros(SIZE, dtype=bool)
    expected[1:4, 2:7] = True
    assert np.array_equal(polygon([(2, 1), (7, 1), (7, 4), (2, 4)], SIZE), expected)


def test_a_pixel_counts_if_its_centre_is_inside():
    assert polygon([(0, 0), (1.4, 0), (1.4, 1), (0, 1)], (1, 3)).tolist() == [[True, False, False]]
    assert polygon([(0, 0), (1.6, 0), (1.6, 1), (0, 1)], (1, 3)).tolist() == [[True, True, False]]


def test_what_lies_outside_the_image_is_cut_off():
    assert polygon([(-9, -9), (99, -9), (99, 99), (-9, 99)], SIZE).all()
    assert not polygon([(-9, 0), (-1, 0), (-1, 6), (-9, 6)], SIZE).any()


@given(st.lists(st.tuples(st.integers(-3, 11), st.integers(-3, 9)), min_size=3, max_size=3))
def test_a_centre_is_in_a_triangle_on_one_side_of_all_its_edges(corners):
    y, x = np.mgrid[:6, :8] + 0.5
    edges = zip(corners, corners[1:] + corners[:1])
    sides = np.array([(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for (x1, y1), (x2, y2) in edges])
    drawn = polygon(corners, SIZE)
    assert drawn[(sides > 0).all(0) | (sides < 0).all(0)].all()
    assert not drawn[(sides > 0).any(0) & (sides < 0).any(0)].any()


def test_where_an_outline_goes_round_twice_is_outside():
    twice = [(0, 0), (8, 0), (8, 6), (0, 6), (0, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2)]
    expected = np.ones(SIZE, dtype=bool)
    expected[2:4, 2:4] = False
    assert np.array_equal(polygon(twice, SIZE), expected)


@pytest.mark.parametrize(
    "order, expected", [("C", [[0, 1, 1], [1, 0, 0]]), ("F", [[0, 1, 0], [1, 1, 0]])]
)
def test_runs_start_outside(order, expected):
    assert runs([1, 3, 2], (2, 3), order).astype(int).tolist() == expected


def test_runs_must_fill_the_shape():
    with pytest.raises(ValueError):
        runs([1, 3], (2, 3), "C")
