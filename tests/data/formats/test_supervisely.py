"""Supervisely's JSON: bitmaps, polygons with holes, rectangles."""

import base64
import tracemalloc
import zlib
from pathlib import Path

import pytest

from data import UserError
from data.formats import supervisely
from tests.data.formats import DRAWN, find, only_mask, photo, png, write

CLASSES = [{"title": "dog", "color": "#00FF01"}, {"title": "cat", "color": "#FF0000"}]


def bitmap(content: bytes, *origin: int) -> dict:
    data = base64.b64encode(zlib.compress(content, 1)).decode()
    bits = {"data": data, "origin": origin}
    return {"geometryType": "bitmap", "classTitle": "dog", "bitmap": bits}


def area(kind: str, exterior: list, interior: list = (), label: str = "dog") -> dict:
    points = {"exterior": exterior, "interior": interior}
    return {"geometryType": kind, "classTitle": label, "points": points}


def annotate(root: Path, *things: dict) -> Path:
    photo(root / "ds/img/a.jpg")
    write(root / "meta.json", {"classes": CLASSES})
    write(root / "ds/ann/a.jpg.json", {"size": {"height": 4, "width": 6}, "objects": things})
    return root


AREAS = [bitmap(png([[1] * 3] * 2, clear), 1, 1) for clear in (True, False)]
AREAS += [area("polygon", [[1, 1], [3, 1], [3, 2], [1, 2]])]
AREAS += [area("rectangle", ends) for ends in ([[1, 1], [3, 2]], [[3, 2], [1, 1]])]


@pytest.mark.parametrize("drawn", AREAS)
def test_areas_have_their_class(drawn, tmp_path):
    source = find(supervisely, annotate(tmp_path, drawn))
    assert source.classes == {"background": None, "dog": (0, 255, 1), "cat": (255, 0, 0)}
    assert source.pairs["ds_a"].photo == tmp_path / "ds/img/a.jpg"
    assert only_mask(supervisely, tmp_path) == DRAWN
    inner = tmp_path / "ds" / "datasets" / "inner"  # a set within a set
    inner.mkdir(parents=True)
    for name in ("img", "ann"):
        (tmp_path / "ds" / name).rename(inner / name)
    assert only_mask(supervisely, tmp_path) == DRAWN


def test_earlier_objects_show_through_holes(tmp_path):
    ring = area("polygon", [[0, 0], [4, 0], [4, 3], [0, 3]], [[[1, 1], [3, 1], [3, 2], [1, 2]]])
    annotate(tmp_path, area("rectangle", [[2, 0], [5, 3]], label="cat"), ring)
    edge = [1, 1, 1, 1, 1, 2]
    mask = [edge, [1, 0, 2, 2, 1, 2], [1, 0, 2, 2, 1, 2], edge]
    assert only_mask(supervisely, tmp_path) == mask


def test_a_bitmap_has_a_shape_within_its_box_and_bounds(tmp_path):
    """It is cut off at the photo, and refused where it grows without end."""
    annotate(tmp_path, bitmap(png([[1, 0, 1], [0, 1, 0]], clear=True), 4, -1))
    assert only_mask(supervisely, tmp_path) == [[0] * 5 + [1], *[[0] * 6] * 3]
    annotate(tmp_path, bitmap(bytes(3 * 10**8), 0, 0))
    tracemalloc.start()
    with pytest.raises(UserError, match="a.jpg.json: not Supervisely JSON as it is known here"):
        only_mask(supervisely, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2.5e8
    tracemalloc.stop()


def test_a_folder_of_a_project_alone_lacks_colours_and_one_without_objects_is_no_such_form(
    tmp_path,
):
    annotate(tmp_path, AREAS[2])
    assert find(supervisely, tmp_path / "ds").classes == {"background": None, "dog": None}
    (tmp_path / "ds/ann/a.jpg.json").unlink()
    assert find(supervisely, tmp_path) is None
