"""Photos and masks as files: which belong together."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.formats.folders import find, find_files
from data.formats.source import Options


def touch(root: Path, names: str) -> None:
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def pairs(root: Path, names: str, **options) -> dict[str, tuple[str, ...]]:
    """The pairs among files of these names, which are empty."""
    touch(root, names)
    photos, masks = find_files(root, Options(**options))
    return {
        name: tuple(path.relative_to(root).as_posix() for path in photos[name] + masks[name])
        for name in photos.keys() & masks.keys()
    }


@pytest.mark.parametrize(
    "photo, mask, name",
    [
        ("images/a.jpg", "masks/a.png", "a"),
        ("Img/a.JPEG", "Labels/a.PNG", "a"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", "a"),
        ("images/a.tif", "annotations/a.bmp", "a"),
        ("images/x/y/a.jpg", "masks/x/y/a.png", "x/y/a"),
        ("train/images/a.jpg", "train/masks/a.png", "train/a"),
        ("images/a.jpg", "masks/a_mask.gif", "a"),
        ("images/a.png", "masks/a-label.png", "a"),
        ("images/a_sat.jpg", "masks/a_MASK.png", "a"),
        ("a.jpg", "masks/a.png", "a"),
        ("a.jpg", "a.png", "a"),
        ("a.png", "a_L.png", "a"),
        ("x/a.b.jpg", "x/a.b_gt.png", "x/a.b"),
    ],
)
def test_usual_names_are_known(photo, mask, name, tmp_path):
    assert pairs(tmp_path, f"{photo} {mask}") == {name: (photo, mask)}


@pytest.mark.parametrize(
    "photo, mask, options",
    [
        ("my photos/a.jpg", "drawn/a.png", {"images": "my photos", "masks": "drawn"}),
        ("images/a.jpg", "annotations/trimaps/a.png", {"masks": "annotations/trimaps"}),
        ("images/a.jpg", "masks/a.png", {"images": "images"}),
        ("all/a.jpg", "all/a_mask.png", {"images": "all", "masks": "all"}),
        ("a.jpg", "drawn/a.png", {"masks": "drawn"}),
        ("images/a_1.jpg", "masks/a_2.png", {"image_suffix": "_1", "mask_suffix": "_2"}),
        ("a.rgb.png", "a.seg.png", {"image_suffix": ".rgb", "mask_suffix": ".seg"}),
    ],
)
def test_other_names_are_given(photo, mask, options, tmp_path):
    (tmp_path / photo).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / photo).touch()
    assert pairs(tmp_path, mask, **options) == {"a": (photo, mask)}


def test_the_endings_count_that_pair_most_files(tmp_path):
    names = "images/a.jpg images/b.jpg masks/a.png masks/a_mask.png masks/b_mask.png"
    assert pairs(tmp_path, names) == {
        "a": ("images/a.jpg", "masks/a_mask.png"),
        "b": ("images/b.jpg", "masks/b_mask.png"),
    }
    again = pairs(tmp_path, names, mask_suffix="")
    assert again == {"a": ("images/a.jpg", "masks/a.png")}


@pytest.mark.parametrize("photo", ["images/a.jpg", "a.jpg"])
def test_lossy_masks_are_refused_unless_there_is_another(photo, tmp_path):
    with pytest.raises(
        UserError, match=re.escape(f"{tmp_path / 'masks/a.jpg'}: JPEG and WebP change")
    ):
        pairs(tmp_path, f"{photo} masks/a.jpg")
    assert pairs(tmp_path, "masks/a.png") == {"a": (photo, "masks/a.png")}


@pytest.mark.parametrize("second", ["images/a.png", "masks/a.bmp"])
def test_two_files_of_one_name_are_refused(second, tmp_path):
    touch(tmp_path, f"images/a.jpg masks/a.png {second}")
    with pytest.raises(UserError, match="two files of one name; keep one.*--mask-suffix"):
        find(tmp_path, Options())


def test_a_source_without_photos_is_of_another_form(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert find(tmp_path, Options()) is None


def test_photos_whose_masks_have_other_names_are_shown(tmp_path):
    touch(tmp_path, "images/a.jpg images/b.jpg masks/1.png")
    message = f"{tmp_path}: no photo has a mask with its name; photos: a.jpg, b.jpg, masks: 1.png;"
    with pytest.raises(UserError, match=re.escape(message)):
        find(tmp_path, Options())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'there'}: no such folder")):
        find_files(tmp_path, Options(images=Path("there")))


def test_the_source_has_classes_pairs_and_what_is_left_out(tmp_path):
    touch(tmp_path, "images/x/a.jpg images/b.jpg masks/c.png masks/x/a.png")
    Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).save(tmp_path / "masks/x/a.png")
    source = find(tmp_path, Options())
    assert list(source.classes) == ["background", "class 1"] and "--classes" in source.note
    assert source.images == 2
    assert source.left_out == {"photo without a mask": ["b.jpg"], "no photo": ["c.png"]}
    pair = source.pairs["x_a"]
    assert pair.photo == tmp_path / "images/x/a.jpg" and pair.mask().tolist() == [[0, 1]]
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    named = find(tmp_path, Options())
    assert list(named.classes) == ["ground", "road"] and not named.note
