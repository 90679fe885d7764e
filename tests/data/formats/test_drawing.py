"""Polygons as arrays of pixels; the other shapes are judged with the forms that draw them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.drawing import ellipse, outlined, polygons, turned

SIZE = 6, 8


def test_a_square_covers_its_area_and_no_more():
    expected = np.zeros(SIZE, dtype=bool)
    expected[1:4, 2:7] = True
    assert np.array_equal(polygons([[(2, 1), (7, 1), (7, 4), (2, 4)]], SIZE), expected)


@pytest.mark.parametrize("right, expected", [(1.4, [1, 0, 0]), (1.6, [1, 1, 0])])
def test_a_pixel_counts_if_its_centre_is_inside(right, expected):
    inside = polygons([[(0, 0), (right, 0), (right, 1), (0, 1)]], (1, 3))
    assert inside.tolist() == [expected]


def test_what_lies_outside_the_image_is_cut_off():
    everything, beside = [(-9, -9), (99, -9), (99, 99), (-9, 99)], [(-9, 0), (-1, 0), (-1, 6)]
    for draw in (outlined, lambda ring, size: polygons([ring], size)):
        assert draw(everything, SIZE).all()
        assert not draw(beside, SIZE).any()
    assert ellipse((4, 3), (1e6, 1e6), SIZE).all()


corner = st.tuples(st.integers(-3, 11), st.integers(-3, 9))


@given(st.lists(corner, min_size=3, max_size=3))
def test_a_centre_is_in_a_triangle_on_one_side_of_all_its_edges(corners):
    y, x = np.mgrid[:6, :8] + 0.5
    edges = zip(corners, corners[1:] + corners[:1])
    sides = np.array([(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for (x1, y1), (x2, y2) in edges])
    mask = polygons([corners], SIZE)
    assert mask[(sides > 0).all(0) | (sides < 0).all(0)].all()
    assert not mask[(sides > 0).any(0) & (sides < 0).any(0)].any()


def test_turns_are_clockwise_where_y_points_down():
    assert np.allclose(turned([(3, 1)], (1, 1), 90), [(1, 3)])
    inside = ellipse((4, 4), (4, 0.8), (8, 8), 45)
    assert inside[1, 1] and inside[6, 6] and not (inside[1, 6] or inside[6, 1])


def test_where_an_outline_goes_round_twice_is_outside():
    twice = [(0, 0), (8, 0), (8, 6), (0, 6), (0, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2)]
    expected = np.ones(SIZE, dtype=bool)
    expected[2:4, 2:4] = False
    assert np.array_equal(polygons([twice], SIZE), expected)
