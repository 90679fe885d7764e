"""Polygons as pixels; the other shapes are judged with the forms that draw them."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats.rasterize import ellipse, outlined, polygons, turned

SIZE = 6, 8


def on_photo(area, size=SIZE) -> np.ndarray:
    """An area as a mask of its whole photo."""
    mask, ((left, top), inside) = np.zeros(size, dtype=bool), area
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return mask


def filled(*rings, size=SIZE) -> np.ndarray:
    return on_photo(polygons([np.array(ring, dtype=float) for ring in rings], size), size)


@pytest.mark.parametrize("right, expected", [(1.4, [1, 0, 0]), (1.6, [1, 1, 0])])
def test_a_pixel_counts_if_its_centre_is_inside(right, expected):
    assert filled([(0, 0), (right, 0), (right, 1), (0, 1)], size=(1, 3)).tolist() == [expected]


def test_what_lies_outside_the_image_is_cut_off():
    everything, beside = [(-9, -9), (99, -9), (99, 99), (-9, 99)], [(-9, 0), (-1, 0), (-1, 6)]
    for draw in (filled, lambda ring: on_photo(outlined(np.array(ring), [], SIZE))):
        assert draw(everything).all() and not draw(beside).any()


corner = st.tuples(st.integers(-3, 11), st.integers(-3, 9))


@given(st.lists(corner, min_size=3, max_size=3))
def test_a_centre_is_in_a_triangle_on_one_side_of_all_its_edges(corners):
    y, x = np.mgrid[:6, :8] + 0.5
    edges = zip(corners, corners[1:] + corners[:1])
    sides = np.array([(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for (x1, y1), (x2, y2) in edges])
    mask = filled(corners)
    assert mask[(sides > 0).all(0) | (sides < 0).all(0)].all()
    assert not mask[(sides > 0).any(0) & (sides < 0).any(0)].any()


@given(
    st.floats(0, 9), st.floats(0, 9), st.floats(0.5, 9), st.floats(0.5, 9), st.integers(-180, 180)
)
def test_a_centre_is_in_an_ellipse_if_it_is_not_too_far_from_both_foci(x, y, rx, ry, angle):
    radius, turn = max(rx, ry), np.radians(angle + (0 if rx > ry else 90))
    focus = np.sqrt(radius**2 - min(rx, ry) ** 2) * np.array([np.cos(turn), np.sin(turn)])
    centres = np.stack(np.mgrid[:6, :8][::-1] + 0.5, axis=-1) - (x, y)
    way = np.linalg.norm(centres - focus, axis=-1) + np.linalg.norm(centres + focus, axis=-1)
    mask = filled(turned(ellipse((x, y), (rx, ry)), angle))
    assert mask[way < 1.999 * radius].all() and not mask[way > 2.001 * radius].any()


def test_where_an_outline_goes_round_twice_is_outside():
    twice = [(0, 0), (8, 0), (8, 6), (0, 6), (0, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2)]
    expected = np.ones(SIZE, dtype=bool)
    expected[2:4, 2:4] = False
    assert np.array_equal(filled(twice), expected)


def test_a_small_shape_in_a_large_photo_needs_little_memory_and_a_huge_one_no_more_than_the_photo():
    ring = ellipse((2000, 1500), (10, 10))
    tracemalloc.start()
    for draw in (partial(polygons, [ring]), partial(outlined, ring, [])):
        corner, inside = draw((3000, 4000))
        assert max(inside.shape) <= 22 and corner == (1990, 1490)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert filled(ellipse((0, 0), (1e6, 1e6))).all()
