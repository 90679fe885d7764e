"""COCO's JSON: its files, and ids that contradict each other."""

from pathlib import Path

import pytest

from data import UserError
from data.formats import coco
from tests.data.formats import DRAWN, find, only_mask, photo, write

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 10, "name": "dog"}]
BOX = [1, 1, 4, 1, 4, 3, 1, 3]  # x, y of the corners
RUNS = {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}  # down the columns


def annotation(segmentation, category=3, crowd: int = 0, of=1) -> dict:
    ids = {"image_id": of, "category_id": category, "iscrowd": crowd}
    return ids | {"segmentation": segmentation}


def annotate(path: Path, *annotations: dict, names=("a.jpg",), ids=(1, 2), **content):
    """The file of photos of 6x4 pixels, and these."""
    images = []
    for key, name in zip(ids, names):
        images.append({"id": key, "file_name": name, "width": None})  # as Label Studio may write
        photo(path.parent / name)
    usual = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    write(path, usual | content)


def test_several_files_are_one_set_and_those_called_instances_come_first(tmp_path):
    annotate(tmp_path / "train" / "coco.json", annotation([BOX]), names=["x/a.jpg"])
    others = [{"id": 1, "name": "cow"}, {"id": 3, "name": "cat"}]
    annotate(tmp_path / "valid" / "coco.json", annotation([BOX]), categories=others)
    source = find(coco, tmp_path)
    assert [*source.classes] == ["background", "cat", "dog", "cow"]
    assert list(source.pairs) == ["train_x_a", "valid_a"]
    assert source.pairs["valid_a"].mask().tolist() == DRAWN
    annotate(tmp_path / "instances_val.json", annotation([BOX]), names=["c.jpg"])
    assert find(coco, tmp_path).pairs["c"].photo == tmp_path / "c.jpg"
    assert len(find(coco, tmp_path, annotations=Path("valid/coco.json")).pairs) == 1


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"ids": (1, "1"), "names": ("a.jpg", "b.jpg")}, "images have an id twice; make the ids u"),
        ({"categories": [CATEGORIES[0]] * 2}, "categories have an id twice"),
        ({"annotations": [annotation([BOX], category=99)]}, "no '99' in it"),
        ({"annotations": [{"segments_info": [], "image_id": 1}]}, "no 'category_id' in it"),
        ({"annotations": [annotation(RUNS | {"counts": [5]})]}, "run lengths of 5 pixels for 6x4"),
        ({"annotations": [annotation(RUNS | {"counts": [30, -6]})]}, "negative values"),
        ({"annotations": [annotation(RUNS | {"size": [6, 4]})]}, "runs of 4x6 pixels for 6x4"),
    ],
)
def test_a_file_that_contradicts_itself_or_is_no_coco_is_refused(content, reason, tmp_path):
    annotate(tmp_path / "coco.json", **content)
    with pytest.raises(UserError, match=f"^{tmp_path / 'coco.json'}: .*{reason}"):
        only_mask(coco, tmp_path)


SHARES = [[value / 4 for value in BOX]]


@pytest.mark.parametrize(
    "other, note, of",
    [
        (annotation(SHARES), "shape not drawn (coordinates from 0 to 1, not in pixels)", "a.jpg"),
        (annotation([BOX], of=9), "no photo of that name, or several", "image_id 9, not listed"),
    ],
)
def test_what_is_of_no_pixel_or_no_image_is_counted(other, note, of, tmp_path):
    annotate(tmp_path / "coco.json", annotation([BOX]), other)
    source = find(coco, tmp_path)
    assert source.pairs["a"].mask().tolist() == DRAWN and len(source.pairs) == 1
    assert source.notes == {f"left out: {note}": [of]}
