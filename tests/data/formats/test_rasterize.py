"""Polygons and strokes as pixels; the other shapes are judged with the forms that draw them."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

from data.formats.rasterize import ellipse, outlined, polygons, stroke

SIZE = 6, 8


def on_photo(area, size=SIZE) -> np.ndarray:
    """An area as a mask of its whole photo."""
    mask, ((left, top), inside) = np.zeros(size, dtype=bool), area
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return mask


def filled(*rings, size=SIZE) -> np.ndarray:
    return on_photo(polygons([np.array(ring, dtype=float) for ring in rings], size), size)


def test_what_lies_outside_the_image_is_cut_off():
    everything, beside = [(-9, -9), (99, -9), (99, 99), (-9, 99)], [(-9, 0), (-1, 0), (-1, 6)]
    for draw in (filled, lambda ring: on_photo(outlined(np.array(ring), [], SIZE))):
        assert draw(everything).all() and not draw(beside).any()


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


@pytest.mark.parametrize("width", [1.0, 3.0, 5.0])
def test_a_stroke_is_all_pixels_near_its_line_and_has_no_gap(width):
    start, end = np.array([3.2, 4.1]), np.array([24.7, 17.3])
    found = on_photo(stroke([np.array([start, end])], width, (20, 30)), (20, 30))
    for y, x in np.ndindex(found.shape):
        steps = np.linspace(start, end, 2000)  # points of the line
        near = np.hypot(*(steps - (x + 0.5, y + 0.5)).T).min()
        if abs(near - max(width / 2, 0.5**0.5)) > 0.01:
            assert found[y, x] == (near < max(width / 2, 0.5**0.5))
    columns = np.flatnonzero(found.any(axis=0))
    assert (np.diff(columns) == 1).all() and len(columns) >= 21
