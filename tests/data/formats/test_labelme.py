"""LabelMe's JSON: its shapes, and photos beside it or in it."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOID
from data.formats.labelme import find
from data.formats.source import ClassList, Options


def encoded(picture: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def shape(label: str, points, shape_type: str = "polygon", mask: str | None = None) -> dict:
    """A shape as LabelMe 5.5 writes it."""
    return {
        "label": label,
        "points": [[float(x), float(y)] for x, y in points],
        "group_id": None,
        "description": "",
        "shape_type": shape_type,
        "flags": {},
        "mask": mask,
    }


def annotate(path: Path, *shapes: dict, photo: str = "a.jpg", data: str | None = None) -> None:
    """The JSON file of a photo of 6x4 pixels."""
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": photo,
        "imageData": data,
        "imageHeight": 4,
        "imageWidth": 6,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def only_mask(root: Path, options: Options | None = None) -> list:
    (load,) = find(root, options or Options()).pairs.values()
    mask = load().mask
    assert mask.dtype == np.uint8
    return mask.tolist()


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


SQUARE = [(1, 1), (3, 1), (3, 2), (1, 2)]
DRAWN = [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "drawn",
    [
        shape("cat", SQUARE),
        shape("cat", SQUARE, "oriented_rectangle"),
        shape("cat", [(1, 1), (3, 2)], "rectangle"),
        shape("cat", [(3, 2), (1, 1)], "rectangle"),
        shape("cat", [(1, 1), (3, 2)], "mask", encoded(Image.new("L", (3, 2), 1))),
    ],
    ids=lambda drawn: drawn["shape_type"],
)
def test_areas_are_drawn_as_labelme_draws_them(drawn, photo, tmp_path):
    annotate(tmp_path / "a.json", drawn)
    assert only_mask(tmp_path) == DRAWN


def test_circles_have_a_centre_and_a_point_on_the_edge(photo, tmp_path):
    annotate(tmp_path / "a.json", shape("cat", [(2, 1), (3, 1)], "circle"))
    plus = [[0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0] * 6]
    drawn = only_mask(tmp_path)
    assert np.array(drawn)[np.array(plus) == 1].all() and np.sum(drawn) <= 9


def test_a_mask_has_a_shape_within_its_box(photo, tmp_path):
    cover = Image.fromarray(np.array([[1, 0, 1], [0, 1, 0]], dtype=np.uint8))
    annotate(tmp_path / "a.json", shape("cat", [(2, 1), (4, 2)], "mask", encoded(cover)))
    expected = [[0] * 6, [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
    assert only_mask(tmp_path) == expected


def test_later_shapes_lie_on_earlier_ones_and_names_number_themselves(photo, tmp_path):
    annotate(
        tmp_path / "a.json",
        shape("dog", [(0, 0), (5, 1)], "rectangle"),
        shape("__ignore__", [(0, 1), (5, 1)], "rectangle"),
        shape("cat", [(1, 0), (1, 3)], "rectangle"),
        shape("_background_", [(5, 0), (5, 3)], "rectangle"),
    )
    source = find(tmp_path, Options())
    assert list(source.classes) == ["_background_", "cat", "dog"]
    last = [0, 1, 0, 0, 0, 0]
    expected = [[2, 1, 2, 2, 2, 0], [VOID, 1, VOID, VOID, VOID, 0], last, last]
    assert only_mask(tmp_path) == expected
    listed = ClassList(dict.fromkeys(["background", "dog"]))
    masks = only_mask(tmp_path, Options(classes=listed, unknown=0))
    assert masks[0] == [1, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_shapes_without_an_area_are_left_out(kind, photo, tmp_path):
    annotate(tmp_path / "a.json", shape("cat", SQUARE), shape("tail", [(0, 0), (5, 3)], kind))
    source = find(tmp_path, Options())
    assert source.left_out == {f"shape not drawn ({kind})": ["a.json"]}
    assert list(source.classes) == ["background", "cat"]
    assert only_mask(tmp_path) == DRAWN


def test_photos_lie_where_the_file_says_or_in_it(photo, tmp_path):
    data = encoded(Image.new("RGB", (6, 4)), "JPEG")
    annotate(tmp_path / "json/1.json", photo="..\\a.jpg")
    annotate(tmp_path / "json/x/2.json", photo="gone.jpg", data=data)
    annotate(tmp_path / "json/3.json", photo="gone.jpg")
    source = find(tmp_path, Options())
    photos = {image_id: load().photo for image_id, load in source.pairs.items()}
    assert photos == {"1": tmp_path / "json/../a.jpg", "x_2": base64.b64decode(data)}
    assert source.images == 3
    assert source.left_out == {"no photo of that name, or several": ["3.json"]}


def test_a_file_that_cannot_be_read_is_left_out_on_request(photo, tmp_path):
    annotate(tmp_path / "a.json", shape("cat", SQUARE))
    (tmp_path / "b.json").write_text('{"shapes": [], "imagePath": ')
    with pytest.raises(DataError, match="b.json: not JSON"):
        find(tmp_path, Options())
    source = find(tmp_path, Options(skip_bad=True))
    assert list(source.pairs) == ["a"]
    assert len(source.bad) == 1 and source.bad[0].startswith(f"{tmp_path / 'b.json'}: not JSON")


def test_other_json_is_of_another_form(tmp_path):
    (tmp_path / "a.json").write_text('{"images": []}')
    assert find(tmp_path, Options()) is None


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"shapes": [{"points": []}]}, "no 'label' in it"),
        ({"shapes": 3}, "'int' object is not iterable"),
        ({"imageWidth": None}, "NoneType"),
        ({"shapes": [shape("cat", [(0, 0)])]}, "coordinate"),
        ({"shapes": [shape("cat", [(1, 1), (3, 2)], "mask", "AAAA")]}, "cannot identify"),
    ],
)
def test_a_file_that_is_not_as_labelme_writes_it_is_named(change, reason, photo, tmp_path):
    path = tmp_path / "a.json"
    annotate(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = re.escape(f"{path}: not LabelMe JSON as it is known here") + f".*{reason}"
    with pytest.raises(DataError, match=message):
        only_mask(tmp_path)
