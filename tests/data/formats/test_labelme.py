"""LabelMe's JSON: its shapes as LabelMe draws them."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import VOID
from data.formats import labelme
from tests.data.formats import DRAWN, find, only_mask, photo


def encoded(inside) -> str:
    file = io.BytesIO()
    Image.fromarray(np.array(inside, dtype=np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label: str, points, shape_type: str | None = "polygon", mask: str | None = None) -> dict:
    """A shape as LabelMe 5.5 writes it."""
    points = [[float(x), float(y)] for x, y in points]
    usual = {"label": label, "points": points, "group_id": None, "description": "", "flags": {}}
    return usual | {"shape_type": shape_type, "mask": mask}


def annotate(root: Path, *shapes: dict) -> None:
    """The photo and its JSON file."""
    photo(root / "a.jpg")
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.jpg"}
    content |= {"imageData": None, "imageHeight": 4, "imageWidth": 6}
    (root / "a.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


SQUARE = [(1, 1), (3, 1), (3, 2), (1, 2)]


@pytest.mark.parametrize(
    "drawn",
    [
        *(
            shape("cat", SQUARE, kind)
            for kind in ("polygon", None, "oriented_rectangle", "rotation")
        ),
        shape("cat", [(1, 1), (3, 2)], "rectangle"),
        shape("cat", [(3.9, 2.9), (1.9, 1.9)], "rectangle"),
        shape("cat", [(1, 1), (3, 2)], "mask", encoded(np.ones((2, 3)))),
    ],
    ids=lambda drawn: str(drawn["shape_type"]),
)
def test_areas_are_drawn_as_labelme_draws_them(drawn, tmp_path):
    annotate(tmp_path, drawn)
    assert only_mask(labelme, tmp_path) == DRAWN


def test_circles_have_a_centre_and_a_point_on_the_edge(tmp_path):
    annotate(tmp_path, shape("cat", [(2, 1), (3, 1)], "circle"))
    outlined = [[0, 1, 1, 1, 0, 0]] * 3 + [[0] * 6]
    assert only_mask(labelme, tmp_path) == outlined


def test_a_mask_has_a_shape_within_its_box(tmp_path):
    annotate(tmp_path, shape("cat", [(2, 1), (4, 2)], "mask", encoded([[1, 0, 1], [0, 1, 0]])))
    assert only_mask(labelme, tmp_path)[1:3] == [[0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]


def test_later_shapes_lie_on_earlier_ones_and_names_number_themselves(tmp_path):
    annotate(
        tmp_path,
        shape("dog", [(0, 0), (5, 1)], "rectangle"),
        shape("__ignore__", [(0, 1), (5, 1)], "rectangle"),
        shape("cat", [(1, 0), (1, 3)], "rectangle"),
        shape("_background_", [(5, 0), (5, 3)], "rectangle"),
    )
    assert list(find(labelme, tmp_path).classes) == ["_background_", "cat", "dog"]
    last = [0, 1, 0, 0, 0, 0]
    mask = [[2, 1, 2, 2, 2, 0], [VOID, 1, VOID, VOID, VOID, 0], last, last]
    assert only_mask(labelme, tmp_path) == mask
    listed = dict.fromkeys(["background", "dog"])
    assert only_mask(labelme, tmp_path, classes=listed, unknown=0)[0] == [1, 0, 1, 1, 1, 0]
