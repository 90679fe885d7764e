"""LabelMe's JSON: its shapes as LabelMe draws them."""

import base64
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOID
from data.formats import annotations, labelme
from data.formats.source import Options

find = partial(annotations.find, labelme)


def encoded(picture: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def shape(label: str, points, shape_type: str | None = "polygon", mask: str | None = None) -> dict:
    """A shape as LabelMe 5.5 writes it."""
    points = [[float(x), float(y)] for x, y in points]
    usual = {"label": label, "points": points, "group_id": None, "description": "", "flags": {}}
    return usual | {"shape_type": shape_type, "mask": mask}


def annotate(path: Path, *shapes: dict, photo: str = "a.jpg", data: str | None = None) -> None:
    """The JSON file of a photo of 6x4 pixels."""
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": photo}
    content |= {"imageData": data, "imageHeight": 4, "imageWidth": 6}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def only_mask(root: Path, **options) -> list:
    (pair,) = find(root, Options(**options)).pairs.values()
    return pair.mask().tolist()


@pytest.fixture
def root(tmp_path) -> Path:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    return tmp_path


SQUARE = [(1, 1), (3, 1), (3, 2), (1, 2)]
DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]


@pytest.mark.parametrize(
    "drawn",
    [
        shape("cat", SQUARE),
        shape("cat", SQUARE, None),
        shape("cat", SQUARE, "oriented_rectangle"),
        shape("cat", SQUARE, "rotation"),
        shape("cat", [(1, 1), (3, 2)], "rectangle"),
        shape("cat", [(3.9, 2.9), (1.9, 1.9)], "rectangle"),
        shape("cat", [(1, 1), (3, 2)], "mask", encoded(Image.new("L", (3, 2), 1))),
    ],
    ids=lambda drawn: str(drawn["shape_type"]),
)
def test_areas_are_drawn_as_labelme_draws_them(drawn, root):
    annotate(root / "a.json", drawn)
    assert only_mask(root) == DRAWN


def test_circles_have_a_centre_and_a_point_on_the_edge(root):
    annotate(root / "a.json", shape("cat", [(2, 1), (3, 1)], "circle"))
    assert only_mask(root) == [[0, 1, 1, 1, 0, 0]] * 3 + [[0] * 6], "with its outline"


def test_a_mask_has_a_shape_within_its_box(root):
    cover = Image.fromarray(np.array([[1, 0, 1], [0, 1, 0]], dtype=np.uint8))
    annotate(root / "a.json", shape("cat", [(2, 1), (4, 2)], "mask", encoded(cover)))
    assert only_mask(root) == [[0] * 6, [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0], [0] * 6]


def test_later_shapes_lie_on_earlier_ones_and_names_number_themselves(root):
    annotate(
        root / "a.json",
        shape("dog", [(0, 0), (5, 1)], "rectangle"),
        shape("__ignore__", [(0, 1), (5, 1)], "rectangle"),
        shape("cat", [(1, 0), (1, 3)], "rectangle"),
        shape("_background_", [(5, 0), (5, 3)], "rectangle"),
    )
    assert list(find(root, Options()).classes) == ["_background_", "cat", "dog"]
    last = [0, 1, 0, 0, 0, 0]
    assert only_mask(root) == [[2, 1, 2, 2, 2, 0], [VOID, 1, VOID, VOID, VOID, 0], last, last]
    listed = dict.fromkeys(["background", "dog"])
    assert only_mask(root, classes=listed, unknown=0)[0] == [1, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("text", [b"{", b"[1, 2]", b"\xff\xfe\x00", 99999 * b"["])
def test_a_file_that_is_no_json_is_named(text, root):
    (root / "a.json").write_bytes(text + b'"shapes" "imagePath"')
    with pytest.raises(UserError, match=f"^{root / 'a.json'}: not JSON as it is known here"):
        find(root, Options())
