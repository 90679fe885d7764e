"""COCO's JSON: polygons, runs, crowds and overlaps."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOID
from data.formats.coco import find
from data.formats.source import ClassList, Options

CATEGORIES = [
    {"id": 7, "name": "dog", "supercategory": "animal"},
    {"id": 3, "name": "cat", "supercategory": "animal"},
]


def image(number: int, name: str) -> dict:
    """An image of 6x4 pixels, as COCO tells of it."""
    return {
        "id": number,
        "file_name": name,
        "width": 6,
        "height": 4,
        "license": 1,
        "flickr_url": "",
        "coco_url": "",
        "date_captured": "2013-11-14 17:02:52",
    }


def annotation(segmentation, category: int = 3, crowd: int = 0, of: int = 1) -> dict:
    return {
        "id": 1,
        "image_id": of,
        "category_id": category,
        "segmentation": segmentation,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
        "iscrowd": crowd,
    }


def write(path: Path, *annotations: dict, names=("a.jpg",), categories=CATEGORIES) -> None:
    images = [image(number, name) for number, name in enumerate(names, start=1)]
    for item in images:
        photo = path.parent / item["file_name"]
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(photo)
    content = {
        "info": {"year": 2017, "version": "1.0", "description": ""},
        "licenses": [{"id": 1, "name": "", "url": ""}],
        "images": images,
        "annotations": list(annotations),
        "categories": categories,
    }
    path.write_text(json.dumps(content))


def mask_of(root: Path, image_id: str = "a", **options) -> list:
    mask = find(root, Options(**options)).pairs[image_id]().mask
    assert mask.dtype == np.uint8
    return mask.tolist()


BOX = [1, 1, 4, 1, 4, 3, 1, 3]  # x, y of the corners
DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]
RUNS = {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}  # down the columns


@pytest.mark.parametrize("segmentation", [[BOX], RUNS, [BOX, [1, 1, 2, 1, 2, 3, 1, 3]]])
def test_areas_have_their_category(segmentation, tmp_path):
    write(tmp_path / "coco.json", annotation(segmentation))
    source = find(tmp_path, Options())
    assert list(source.classes) == ["background", "cat", "dog"], "in the order of their ids"
    assert source.pairs["a"]().photo == tmp_path / "a.jpg"
    assert mask_of(tmp_path) == DRAWN


def test_compressed_runs_are_read(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    runs = coco.encode(np.asfortranarray(DRAWN, dtype=np.uint8))
    write(tmp_path / "coco.json", annotation(runs | {"counts": runs["counts"].decode()}))
    assert mask_of(tmp_path) == DRAWN


def test_compressed_runs_need_a_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    write(tmp_path / "coco.json", annotation({"size": [4, 6], "counts": "5222229"}))
    with pytest.raises(DataError, match="need a package: pip install pycocotools$"):
        find(tmp_path, Options())


def test_polygons_are_as_large_as_those_of_pycocotools(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    corners = [0.4, 0.3, 5.2, 1.1, 4.9, 3.8, 2.2, 2.4]
    write(tmp_path / "coco.json", annotation([corners]))
    theirs = coco.decode(coco.merge(coco.frPyObjects([corners], 4, 6)))
    assert (np.array(mask_of(tmp_path)) != theirs).sum() <= 2, "pixels on the outline"


def test_smaller_areas_lie_on_larger_ones_and_crowds_beneath_all(tmp_path):
    small, large, everything = [0, 0, 1, 0, 1, 4, 0, 4], [0, 0, 3, 0, 3, 4, 0, 4], [24]
    write(
        tmp_path / "coco.json",
        annotation([small], category=7),
        annotation([large]),
        annotation({"size": [4, 6], "counts": [0, *everything]}, crowd=1),
    )
    assert mask_of(tmp_path) == [[2, 1, 1, VOID, VOID, VOID]] * 4


def test_listed_categories_count_and_others_are_what_the_user_says(tmp_path):
    write(tmp_path / "coco.json", annotation([BOX], category=7))
    listed = ClassList(dict.fromkeys(["background", "cat"]))
    with pytest.raises(DataError, match="--classes has no dog"):
        find(tmp_path, Options(classes=listed))
    assert np.unique(mask_of(tmp_path, classes=listed, unknown=VOID)).tolist() == [0, VOID]
    assert np.unique(mask_of(tmp_path, classes=listed, unknown=0)).tolist() == [0]


def test_several_files_and_folders_are_one_set(tmp_path):
    for folder, name in (("train", "x/a.jpg"), ("valid", "b.jpg")):
        write(tmp_path / folder / "_annotations.coco.json", annotation([BOX]), names=[name])
    source = find(tmp_path, Options())
    assert list(source.pairs) == ["x_a", "b"] and source.images == 2
    assert mask_of(tmp_path, "b") == DRAWN


def test_files_called_instances_come_before_others(tmp_path):
    write(tmp_path / "instances_val.json", annotation([BOX]))
    write(tmp_path / "person_keypoints_val.json", categories=CATEGORIES[:1])
    assert mask_of(tmp_path) == DRAWN


def test_files_with_other_categories_are_refused_or_chosen(tmp_path):
    write(tmp_path / "one.json", annotation([BOX]))
    write(tmp_path / "two.json", categories=CATEGORIES[:1])
    message = f"{tmp_path / 'two.json'}: its categories are others than those of"
    with pytest.raises(DataError, match=re.escape(message)):
        find(tmp_path, Options())
    assert mask_of(tmp_path, annotations=Path("one.json")) == DRAWN


def test_images_without_photos_and_annotations_without_outline_are_left_out(tmp_path):
    write(tmp_path / "coco.json", annotation([]), names=["a.jpg", "b.jpg"])
    (tmp_path / "b.jpg").unlink()
    source = find(tmp_path, Options())
    assert list(source.pairs) == ["a"] and source.images == 2
    assert source.left_out == {
        "annotation without an outline": ["1"],
        "no photo of that name, or several": ["b.jpg"],
    }
    assert not np.any(mask_of(tmp_path)), "an image in which nothing is drawn is background"


@pytest.mark.parametrize(
    "wrong, reason",
    [
        (annotation([BOX], category=99), "no 99 in it"),
        (annotation([[1, 2, 3]]), "cannot reshape"),
        (annotation({"size": [4, 6], "counts": [5]}), "cannot reshape"),
        ({"segmentation": [BOX]}, "no 'image_id' in it"),
    ],
)
def test_a_file_that_is_not_as_coco_says_is_named(wrong, reason, tmp_path):
    write(tmp_path / "coco.json", wrong)
    message = re.escape(f"{tmp_path / 'coco.json'}: not COCO JSON as it is known here")
    with pytest.raises(DataError, match=f"{message}.*{reason}"):
        mask_of(tmp_path)
