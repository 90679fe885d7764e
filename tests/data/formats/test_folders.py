"""Photos and masks as files: which belong together. Cityscapes is such a form, too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOID
from data.formats import recognise
from data.formats.folders import find, find_pairs
from data.formats.source import Options, Source
from tests.data.formats import photo, write

E_ACUTE, E_AND_ACUTE = "\u00e9", "e\u0301"


def touch(root: Path, *names: str) -> None:
    for name in names:
        write(root / name, "")


def pairs(root: Path, *names: str, **options) -> dict[str, tuple[Path, Path]]:
    """The pairs among files of these names, which are empty."""
    touch(root, *names)
    return find_pairs(root, Source("test", Options(**options)))


@pytest.mark.parametrize(
    "photo, mask, name, options",
    [
        ("Img/a.JPEG", "Labels/a.PNG", "a", {}),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", "a", {}),
        ("images/a.tif", "masks/a_mask.gif", "a", {}),
        ("images/a.png", "masks/a_LABEL.bmp", "a", {}),
        ("a.jpg", "masks/a.png", "a", {}),
        ("a.jpg", "a.png", "a", {}),
        ("a.png", "a_L.png", "a", {}),
        ("x/a.b.jpg", "x/a.b_gt.png", "x/a.b", {}),
        ("images/a_l.jpg", "masks/a_l.png", "a_l", {}),
        ("Original/a.tif", "Ground Truth/a.tif", "a", {}),
        ("train/a.png", "train_labels/a.png", "train/a", {}),
        ("train_images/a.jpg", "train_masks/a.PNG", "train/a", {}),
        ("val/a.png", "valannot/a.png", "val/a", {}),
        (f"images/{E_ACUTE}.jpg", f"masks/{E_AND_ACUTE}.png", E_ACUTE, {}),
        ("my photos/a.jpg", "drawn/a.png", "a", {"images": "my photos", "masks": "drawn"}),
        ("all/a.jpg", "all/a_mask.png", "a", {"images": "all", "masks": "all"}),
        ("a.jpg", "drawn/a.png", "a", {"masks": "drawn"}),
        ("a.rgb.png", "a.seg.png", "a", {"image_suffix": ".rgb", "mask_suffix": ".seg"}),
        ("images/a.jpg", "masks/a.jpg", "a", {"unknown": VOID}),
        ("Train/images_png/a.png", "Train/masks_png/a.png", "Train/a", {}),
        ("img_dir/train/a.jpg", "ann_dir/train/a.png", "train/a", {}),
        ("images/a.jpg", "masks/a-mask.png", "a", {}),
    ],
)
def test_usual_names_are_known_and_others_given(photo, mask, name, options, tmp_path):
    found = pairs(tmp_path, photo, mask, **options)
    assert found == {name: (tmp_path / photo, tmp_path / mask)}


def test_the_ending_counts_that_pairs_most_files(tmp_path):
    names = ["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/a_mask.png", "masks/b_mask.png"]
    photos, masks = tmp_path / "images", tmp_path / "masks"
    both = {name: (photos / f"{name}.jpg", masks / f"{name}_mask.png") for name in "ab"}
    assert pairs(tmp_path, *names) == both
    assert pairs(tmp_path, mask_suffix="") == {"a": (photos / "a.jpg", masks / "a.png")}
    names = ["a.png", "a_mask.png", "b.png", "b_mask.png", "c.jpg", "c.png"]  # a preview
    assert [*pairs(tmp_path / "one", *names)] == ["a", "b"]


@pytest.mark.parametrize(
    "names, message",
    [
        ("images/a.png images/a.jpg masks/a.png", "a.jpg, .*a.png: are all of one name"),
        ("images/a.jpg masks/a.png masks/a.bmp", "all of one name; .*--mask-suffix"),
        ("images/a.jpg masks/1.png", "photos: a, masks .*: 1; .*--images"),
        ("images/a.jpg masks/a.jpg", "with --unknown JPEG"),
        ("_1.png a.png a_mask.png a_mask_1.png", "a_mask_1.png: seems to be a mask, too"),
    ],
)
def test_what_does_not_pair_is_named(names, message, tmp_path):
    touch(tmp_path, *names.split())
    ending = "_mask" if "a_mask.png" in names else None  # that it is given changes nothing
    for suffix in (None, ending):
        with pytest.raises(UserError, match=message):
            find(tmp_path, Options(mask_suffix=suffix))


DRIVE = ["images/{0}_training.tif", "1st_manual/{0}_manual1.gif", "mask/{0}_training_mask.gif"]
SPLIT = ["images/train/{0}.jpg", "mask/train/{0}.png", "manual1/train/{0}_y.png"]
TWO = [(DRIVE, "1st_manual", "_mask"), (SPLIT, "manual1/train", "")]


@pytest.mark.parametrize("names, other, ending", TWO)
def test_two_folders_that_may_hold_the_masks_are_refused(names, other, ending, tmp_path):
    """In DRIVE `mask` is the field of view."""
    files = [name.format(number) for name in names for number in (1, 2)]
    with pytest.raises(UserError, match=f"{other}/1.*: seems to be a mask, too, .* --masks FOLDER"):
        pairs(tmp_path, *files)
    for options in ({"masks": Path("mask")}, {"mask_suffix": ending}):
        assert len(pairs(tmp_path, **options)) == 2
    (tmp_path / other).rename(tmp_path / "shown")
    assert len(pairs(tmp_path)) == 2, "nothing says that these are masks"


@pytest.mark.parametrize(
    "name, content, form",
    [
        ("labels/a.txt", "0 0.5 0.5 0.2 0.1\n", "YOLO"),
        ("via.json", {"a.jpg": {"regions": [{"shape_attributes": {}}]}}, "VGG Image Annotator"),
        ("export.json", [{"annotations": [{"result": [{"original_width": 9}]}]}], "Label Studio"),
        ("a.xml", "<annotation><object><bndbox></bndbox></object></annotation>", "Pascal VOC"),
    ],
)
def test_forms_that_are_not_read_are_named(name, content, form, tmp_path):
    touch(tmp_path, "images/a.jpg")
    write(tmp_path / name, content)
    for options in (Options(), Options(annotations=Path(name))):
        message = f"{Path(name).name} is of {form}.*, which is not read: export it as COCO"
        with pytest.raises(UserError, match=message):
            recognise(tmp_path, options)


@pytest.mark.parametrize(
    "names, ids",
    [
        ("images/pos/a.jpg masks/pos/a.png images/neg/b.jpg images/neg/b.txt", "neg_b"),
        ("a_0.jpg a_1.png b_0.jpg c_1.png", "b"),
        ("a.png a_L.png b.png c_L.png", "b"),
        ("images/a.jpg masks/a.png images/b.jpg masks/b_mask.png images/c.jpg", "c"),
        ("images/a.jpg masks/a.png masks/a_1.png", ""),  # perhaps of another photo
        ("a.png a_mask.png a_1.png", "a_1"),
        ("x/a.jpg masks/x/a.png y/b.jpg x/b.png", ""),  # nothing says that these are photos
    ],
)
def test_photos_without_a_mask_are_told_from_other_images(names, ids, tmp_path):
    touch(tmp_path, *names.split())
    ends = {"image_suffix": "_0", "mask_suffix": "_1"} if "_0" in names else {}
    source = Source("test", Options(unmasked=0, **ends))
    assert len(find_pairs(tmp_path, source)) == 1 and " ".join(source.pairs) == ids


def test_a_list_of_classes_is_read_our_own_before_others(tmp_path):
    photo(tmp_path / "images/a.jpg", (1, 1))
    photo(tmp_path / "masks/a.png", (1, 1))
    for name in ("masks/_classes.csv", "class_names.txt", "classes.txt"):
        (tmp_path / name).write_text(f"{name}\nroad\n")
        assert list(find(tmp_path, Options()).classes) == [name, "road"]


def test_label_ids_of_cityscapes_become_those_of_its_19_classes(tmp_path):
    photos, masks = "leftImg8bit/train/ulm/ulm_0_{}_leftImg8bit.png", "gtFine/train/ulm/ulm_0_1"
    for number in (1, 2):
        photo(tmp_path / photos.format(number), (7, 1))
    touch(tmp_path, f"{masks}_gtFine_instanceIds.png", f"{masks}_gtFine_polygons.json")
    ids = np.array([[0, 7, 8, 17, 29, 33, 255]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / f"{masks}_gtFine_labelIds.png")
    source = recognise(tmp_path, Options())
    names = list(source.classes)
    assert len(names) == 19 and (names[0], names[5], names[18]) == ("road", "pole", "bicycle")
    assert source.classes["car"] == (0, 0, 142)
    left_out = [f"{masks}_gtFine_instanceIds.png", photos.format(2)]
    assert source.notes == {"left out: in no pair": left_out}
    pair = source.pairs["train_ulm_ulm_0_1"]
    assert pair.photo == tmp_path / photos.format(1)
    assert pair.mask().tolist() == [[VOID, 0, 1, 5, VOID, 18, VOID]]
    own = Options(classes=dict.fromkeys(["background", "road"]), values={7: 1}, unknown=0)
    assert recognise(tmp_path, own).pairs.popitem()[1].mask().tolist() == [[0, 1] + [0] * 5]
