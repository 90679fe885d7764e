"""LabelMe's JSON: its shapes as LabelMe draws them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import VOID
from data.formats import labelme
from tests.data.formats import DRAWN, find, only_mask, photo, write

SQUARE = [[1, 1], [3, 1], [3, 2], [1, 2]]


def shape(label: str, points, kind: str | None = "rectangle", inside=None) -> dict:
    """A shape as LabelMe 5.5 writes it; `inside` are the pixels of a mask."""
    found = {"label": label, "points": points, "shape_type": kind, "flags": {}, "mask": None}
    if inside is not None:
        Image.fromarray(np.array(inside, dtype=np.uint8)).save(file := io.BytesIO(), "PNG")
        found["mask"] = base64.b64encode(file.getvalue()).decode()
    return found


def annotate(root: Path, *shapes: dict) -> Path:
    photo(root / "a.jpg")
    size = {"imageHeight": 4, "imageWidth": 6}
    write(root / "a.json", {"shapes": shapes, "imagePath": "a.jpg", "imageData": None, **size})
    return root


@pytest.mark.parametrize(
    "drawn",
    [
        *(shape("cat", SQUARE, it) for it in ("polygon", None, "oriented_rectangle", "rotation")),
        shape("cat", [[1, 1], [3, 2]]),
        shape("cat", [[3.9, 2.9], [1.9, 1.9]]),
        shape("cat", [[1, 1], [3, 1], [3, 2], [1, 2]]),  # as X-AnyLabeling writes them
        shape("cat", [[1, 1], [3, 2]], "mask", np.ones((2, 3))),
    ],
    ids=lambda drawn: str(drawn["shape_type"]),
)
def test_areas_are_drawn_as_labelme_draws_them(drawn, tmp_path):
    assert only_mask(labelme, annotate(tmp_path, drawn)) == DRAWN


def test_a_file_may_say_no_size(tmp_path):
    path = annotate(tmp_path, shape("cat", SQUARE, "polygon")) / "a.json"
    path.write_text(path.read_text().replace("imageHeight", "x").replace("imageWidth", "y"))
    assert only_mask(labelme, tmp_path) == DRAWN


def test_a_circle_has_a_point_on_its_edge_and_a_mask_a_shape_within_its_box(tmp_path):
    annotate(tmp_path, shape("cat", [[2, 1], [3, 1]], "circle"))
    assert only_mask(labelme, tmp_path) == [[0, 1, 1, 1, 0, 0]] * 3 + [[0] * 6]
    annotate(tmp_path, shape("cat", [[2, 1], [4, 2]], "mask", [[1, 0, 1], [0, 1, 0]]))
    assert only_mask(labelme, tmp_path)[1:3] == [[0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]


def test_later_shapes_lie_on_earlier_ones_and_names_number_themselves(tmp_path):
    places = {"dog": (0, 0, 5, 1), "__ignore__": (0, 1, 5, 1), "cat": (1, 0, 1, 3)}
    places["_background_"] = (5, 0, 5, 3)
    annotate(tmp_path, *(shape(name, [at[:2], at[2:]]) for name, at in places.items()))
    assert list(find(labelme, tmp_path).classes) == ["_background_", "cat", "dog"]
    last = [0, 1, 0, 0, 0, 0]
    mask = [[2, 1, 2, 2, 2, 0], [VOID, 1, VOID, VOID, VOID, 0], last, last]
    assert only_mask(labelme, tmp_path) == mask
    listed = dict.fromkeys(["background", "dog"])
    assert only_mask(labelme, tmp_path, classes=listed, unknown=0)[0] == [1, 0, 1, 1, 1, 0]
