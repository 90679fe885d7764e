"""LabelMe's JSON: its shapes as LabelMe draws them."""

import base64
from pathlib import Path

import pytest

from data.classes import VOID
from data.formats import labelme
from tests.data.formats import DRAWN, find, only_mask, photo, png, write

SQUARE = [[1, 1], [3, 1], [3, 2], [1, 2]]


def shape(label: str, points, kind: str | None = "rectangle", inside=None) -> dict:
    """A shape as LabelMe 5.5 writes it; `inside` are the pixels of a mask."""
    mask = base64.b64encode(png(inside)).decode() if inside else None
    return {"label": label, "points": points, "shape_type": kind, "mask": mask}


def annotate(root: Path, *shapes: dict) -> Path:
    photo(root / "a.jpg")
    content = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 4, "imageWidth": 6}
    return write(root / "a.json", content)


AREAS = [shape("cat", SQUARE, it) for it in ("polygon", None, "oriented_rectangle", "rotation")]
AREAS += [shape("cat", SQUARE)]  # four corners, as X-AnyLabeling writes them
AREAS += [shape("cat", ends) for ends in ([[1, 1], [3, 2]], [[3.9, 2.9], [1.9, 1.9]])]
AREAS += [shape("cat", [[1, 1], [3, 2]], "mask", [[1] * 3] * 2)]


@pytest.mark.parametrize("drawn", AREAS, ids=lambda drawn: str(drawn["shape_type"]))
def test_areas_are_drawn_as_labelme_draws_them(drawn, tmp_path):
    path = annotate(tmp_path, drawn)
    assert only_mask(labelme, tmp_path) == DRAWN
    path.write_text(path.read_text().replace("imageHeight", "x").replace("imageWidth", "y"))
    assert only_mask(labelme, tmp_path) == DRAWN, "a file may say no size"


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
