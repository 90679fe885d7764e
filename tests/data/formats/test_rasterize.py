"""Polygons as pixels; the other shapes are judged with the forms that draw them."""

import tracemalloc
from functools import partial

import numpy as np

from data.formats.rasterize import ellipse, outlined, polygons

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
