"""A shape takes the memory of its own box; what is drawn there is judged with the forms."""

import tracemalloc
from functools import partial

from data.formats.rasterize import ellipse, outlined, polygons


def test_a_small_shape_in_a_large_photo_needs_little_memory_and_a_huge_one_no_more_than_the_photo():
    ring = ellipse((2000, 1500), (10, 10))
    tracemalloc.start()
    for draw in (partial(polygons, [ring]), partial(outlined, ring, [])):
        corner, inside = draw((3000, 4000))
        assert max(inside.shape) <= 22 and corner == (1990, 1490)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    corner, inside = polygons([ellipse((0, 0), (1e6, 1e6))], (6, 8))
    assert corner == (0, 0) and inside.shape == (6, 8) and inside.all()
