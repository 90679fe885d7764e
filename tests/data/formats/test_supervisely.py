"""Supervisely's JSON: bitmaps, polygons with holes, rectangles."""

import base64
import io
import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.formats import annotations, supervisely
from data.formats.source import Options

find = partial(annotations.find, supervisely)
META = {
    "classes": [
        {"title": "dog", "shape": "any", "color": "#00FF01", "geometry_config": {}, "id": 1},
        {"title": "cat", "shape": "any", "color": "#FF0000", "geometry_config": {}, "id": 2},
    ]
}


def thing(kind: str, label: str = "dog", **geometry) -> dict:
    usual = {"id": 1, "classId": 1, "description": "", "labelerLogin": "me", "tags": []}
    return usual | {"geometryType": kind, "classTitle": label} | geometry


def bitmap(inside, origin: tuple[int, int], label: str = "dog", alpha: bool = True) -> dict:
    """A bitmap as a PNG whose transparent colour is outside, as Supervisely saves it, or grey."""
    image = Image.fromarray(np.array(inside, dtype=np.uint8))
    if alpha:
        image.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    image.save(file, "PNG", **({"transparency": 0} if alpha else {}))
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return thing("bitmap", label, bitmap={"data": data, "origin": list(origin)})


def area(kind: str, exterior: list, interior: list = (), label: str = "dog") -> dict:
    return thing(kind, label, points={"exterior": exterior, "interior": list(interior)})


@pytest.fixture
def root(tmp_path) -> Path:
    for folder in ("ds/img", "ds/ann"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "meta.json").write_text(json.dumps(META))
    Image.new("RGB", (6, 4)).save(tmp_path / "ds/img/a.jpg")
    return tmp_path


def write(root: Path, *things: dict) -> None:
    content = {"description": "", "tags": [], "size": {"height": 4, "width": 6}, "objects": things}
    (root / "ds/ann/a.jpg.json").write_text(json.dumps(content))


def mask_of(root: Path) -> list:
    return find(root, Options()).pairs["ds_a"].mask().tolist()


DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]


@pytest.mark.parametrize(
    "drawn",
    [
        bitmap(np.ones((2, 3)), (1, 1)),
        area("polygon", [[1, 1], [3, 1], [3, 2], [1, 2]]),
        area("rectangle", [[1, 1], [3, 2]]),
        area("rectangle", [[3, 2], [1, 1]]),
    ],
)
def test_areas_have_their_class(drawn, root):
    write(root, drawn)
    source = find(root, Options())
    assert source.classes == {"background": None, "dog": (0, 255, 1), "cat": (255, 0, 0)}
    assert source.pairs["ds_a"].photo == root / "ds/img/a.jpg"
    assert mask_of(root) == DRAWN


def test_later_objects_show_through_the_holes_of_none(root):
    ring = area("polygon", [[0, 0], [4, 0], [4, 3], [0, 3]], [[[1, 1], [3, 1], [3, 2], [1, 2]]])
    write(root, area("rectangle", [[2, 0], [5, 3]], label="cat"), ring)
    edge = [1, 1, 1, 1, 1, 2]
    assert mask_of(root) == [edge, [1, 0, 2, 2, 1, 2], [1, 0, 2, 2, 1, 2], edge]


@pytest.mark.parametrize("alpha", [True, False])
def test_a_bitmap_has_a_shape_within_its_box(alpha, root):
    write(root, bitmap([[1, 0, 1], [0, 1, 0]], (2, 1), alpha=alpha))
    assert mask_of(root) == [[0] * 6, [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0], [0] * 6]


@pytest.mark.parametrize("gone", ["meta.json", "ds/ann/a.jpg.json"])
def test_other_folders_are_of_another_form(gone, root):
    write(root)
    (root / gone).unlink()
    assert find(root, Options()) is None
