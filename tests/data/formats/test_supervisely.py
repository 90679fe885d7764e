"""Supervisely's JSON: bitmaps, polygons with holes, rectangles."""

import base64
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.formats import supervisely
from tests.data.formats import DRAWN, find, only_mask, photo
from tests.data.formats import write as write_file

DOG = {"title": "dog", "shape": "any", "color": "#00FF01", "geometry_config": {}, "id": 1}
META = {"classes": [DOG, DOG | {"title": "cat", "color": "#FF0000", "id": 2}]}


def thing(kind: str, label: str = "dog", **geometry) -> dict:
    usual = {"id": 1, "classId": 1, "description": "", "labelerLogin": "me", "tags": []}
    return usual | {"geometryType": kind, "classTitle": label} | geometry


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def bitmap(inside, origin: tuple[int, int], alpha: bool = True) -> dict:
    """A bitmap as a PNG whose transparent colour is outside, as Supervisely saves it, or grey."""
    image = Image.fromarray(np.array(inside, dtype=np.uint8))
    if alpha:
        image.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    image.save(file, "PNG", **({"transparency": 0} if alpha else {}))
    return thing("bitmap", bitmap={"data": packed(file.getvalue()), "origin": list(origin)})


def area(kind: str, exterior: list, interior: list = (), label: str = "dog") -> dict:
    return thing(kind, label, points={"exterior": exterior, "interior": list(interior)})


def write(root: Path, *things: dict) -> Path:
    """The photo, and the files about it."""
    photo(root / "ds/img/a.jpg")
    write_file(root / "meta.json", META)
    content = {"description": "", "tags": [], "size": {"height": 4, "width": 6}, "objects": things}
    write_file(root / "ds/ann/a.jpg.json", content)
    return root


@pytest.mark.parametrize(
    "drawn",
    [
        bitmap(np.ones((2, 3)), (1, 1)),
        bitmap(np.ones((2, 3)), (1, 1), alpha=False),
        area("polygon", [[1, 1], [3, 1], [3, 2], [1, 2]]),
        area("rectangle", [[1, 1], [3, 2]]),
        area("rectangle", [[3, 2], [1, 1]]),
    ],
)
def test_areas_have_their_class(drawn, tmp_path):
    source = find(supervisely, write(tmp_path, drawn))
    assert source.classes == {"background": None, "dog": (0, 255, 1), "cat": (255, 0, 0)}
    assert source.pairs["a"].photo == tmp_path / "ds/img/a.jpg"
    assert only_mask(supervisely, tmp_path) == DRAWN


def test_earlier_objects_show_through_holes(tmp_path):
    ring = area("polygon", [[0, 0], [4, 0], [4, 3], [0, 3]], [[[1, 1], [3, 1], [3, 2], [1, 2]]])
    write(tmp_path, area("rectangle", [[2, 0], [5, 3]], label="cat"), ring)
    edge = [1, 1, 1, 1, 1, 2]
    mask = [edge, [1, 0, 2, 2, 1, 2], [1, 0, 2, 2, 1, 2], edge]
    assert only_mask(supervisely, tmp_path) == mask


def test_a_bitmap_has_a_shape_within_its_box_and_is_cut_off_at_the_photo(tmp_path):
    write(tmp_path, bitmap([[1, 0, 1], [0, 1, 0]], (4, -1)))
    assert only_mask(supervisely, tmp_path) == [[0] * 5 + [1], *[[0] * 6] * 3]


def test_a_bitmap_that_grows_without_end_is_refused(tmp_path):
    zeros = {"data": packed(bytes(3 * 10**8)), "origin": [0, 0]}
    write(tmp_path, thing("bitmap", bitmap=zeros))
    with pytest.raises(UserError, match="a.jpg.json: not Supervisely JSON as it is known here"):
        only_mask(supervisely, tmp_path)


@pytest.mark.parametrize("gone", ["meta.json", "ds/ann/a.jpg.json"])
def test_other_folders_are_of_another_form(gone, tmp_path):
    (write(tmp_path) / gone).unlink()
    assert find(supervisely, tmp_path) is None
