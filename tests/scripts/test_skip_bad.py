"""A data set with a few bad images, read with `skip_bad`: what is left out, why, and when it is too much."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.voc
from data import DataError
from data.voc import VOCFolder, read_ids
from tests.test_voc import keep, listed, noise, same, saved, truncate


def image_path(root: Path, image_id: str) -> Path:
    return root / "JPEGImages" / f"{image_id}.jpg"


def mask_path(root: Path, image_id: str) -> Path:
    return root / "SegmentationClass" / f"{image_id}.png"


BAD = {  # what happens to the image of an id: what is said about it
    "no image": (lambda root, name: image_path(root, name).unlink(), "no image for id"),
    "no mask": (lambda root, name: mask_path(root, name).unlink(), "no mask for id"),
    "truncated image": (lambda root, name: truncate(image_path(root, name)), "cannot be read as an image"),
    "truncated mask": (lambda root, name: truncate(mask_path(root, name)), "cannot be read as an image"),
    "text": (lambda root, name: image_path(root, name).write_text("404"), "cannot be read as an image"),
    "other size": (lambda root, name: saved(mask_path(root, name), noise(3, 5, top=21)), "the mask is 5x3 but its"),
    "label": (lambda root, name: saved(mask_path(root, name), np.full((64, 64), 99, np.uint8)), "label 99 is outside"),
    "colour": (lambda root, name: Image.new("RGB", (64, 64)).save(mask_path(root, name)), "a mask must be a PNG of"),
}


@pytest.fixture
def many(shapes) -> Path:
    """A data set whose list `many` has 40 images of 64x64: with 5 %, two may be bad."""
    listed(shapes, "many").write_text("".join(f"{index:02}\n" for index in range(40)))
    for index in range(40):
        saved(image_path(shapes, f"{index:02}"), noise(64, 64, 3))
        saved(mask_path(shapes, f"{index:02}"), noise(64, 64, top=21))
    return shapes


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_left_out_with_the_reason_that_the_strict_folder_gives(kind, many):
    damage, message = BAD[kind]
    damage(many, "07")
    dataset = VOCFolder(many, "many", keep, skip_bad=True)
    assert len(dataset) == len(dataset.ids) == len(dataset.sizes) == 39 and "07" not in dataset.ids
    assert [sample.id for sample in dataset] == dataset.ids
    assert list(dataset.skipped) == ["07"]
    assert message in dataset.skipped["07"] and "\n" not in dataset.skipped["07"]
    with pytest.raises(DataError, match=re.escape(dataset.skipped["07"])):
        list(VOCFolder(many, "many", keep))


def test_the_rest_keeps_the_order_of_the_list(many):
    names = [f"{index:02}" for index in np.random.default_rng(0).permutation(40)]
    listed(many, "many").write_text("\n".join(names))
    bad = [names[31], names[4]]
    for name in bad:
        truncate(image_path(many, name))
    dataset = VOCFolder(many, "many", keep, skip_bad=True)
    assert dataset.ids == [name for name in names if name not in bad]
    assert list(dataset.skipped) == [names[4], names[31]]


@pytest.mark.parametrize("place", [".", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("limit", [None, 5])
def test_where_nothing_is_bad_it_is_the_strict_folder(place, limit, shapes, tmp_path):
    (tmp_path / "data" / place).parent.mkdir(parents=True, exist_ok=True)
    shapes.rename(tmp_path / "data" / place)
    strict = VOCFolder(tmp_path / "data", "train", keep, limit)
    dataset = VOCFolder(tmp_path / "data", "train", keep, limit, skip_bad=True)
    assert dataset.skipped == strict.skipped == {}
    assert (dataset.ids, dataset.sizes) == (strict.ids, strict.sizes)
    assert all(map(same, dataset, strict))


@pytest.mark.parametrize("limit, bad, tolerated", [(None, 2, True), (None, 3, False), (20, 1, True), (19, 1, False)])
def test_five_per_cent_of_the_images_asked_for_may_be_bad(limit, bad, tolerated, many):
    for index in range(bad):
        image_path(many, f"{3 * index + 1:02}").unlink()
    if tolerated:
        dataset = VOCFolder(many, "many", keep, limit, skip_bad=True)
        assert len(dataset) == (limit or 40) - bad and len(dataset.skipped) == bad
        return
    message = f"{bad} of {limit or 40} images of many cannot be used, more than the 5 % that --skip-bad tolerates; "
    with pytest.raises(DataError, match=f"{message}the first: .*01.jpg: no image for id '01'") as refusal:
        VOCFolder(many, "many", keep, limit, skip_bad=True)
    assert "\n" not in str(refusal.value)


def test_a_split_of_bad_images_is_refused_in_the_same_words(many):
    for index in range(40):
        truncate(mask_path(many, f"{index:02}"))
    with pytest.raises(DataError, match="40 of 40 images of many cannot be used, .*: .*00.png: cannot be read"):
        VOCFolder(many, "many", keep, skip_bad=True)


def test_bad_images_beyond_the_limit_do_not_count(many):
    image_path(many, "30").unlink()
    assert not VOCFolder(many, "many", keep, 30, skip_bad=True).skipped


@pytest.mark.parametrize("text", ["", "../a\n", "a\na\n"])
def test_a_mistake_in_the_list_stays_an_error(text, many):
    listed(many, "many").write_text(text)
    with pytest.raises(DataError, match=re.escape(str(listed(many, "many")))):
        VOCFolder(many, "many", keep, skip_bad=True)


def test_what_was_chosen_at_first_stays_chosen(many):
    truncate(image_path(many, "07"))
    dataset = VOCFolder(many, "many", keep, skip_bad=True)
    image_path(many, "07").write_bytes(image_path(many, "08").read_bytes())
    assert [sample.id for sample in dataset] == dataset.ids and "07" not in dataset.ids


def test_every_file_is_read_once_and_no_picture_kept(many, monkeypatch):
    read = []

    def spy(path, *classes):
        read.append(path)
        return np.empty(0)

    monkeypatch.setattr(data.voc, "read_image", spy)
    monkeypatch.setattr(data.voc, "read_mask", spy)
    VOCFolder(many, "many", keep, skip_bad=True)
    names = [f"{index:02}" for index in range(40)]
    assert sorted(read) == [image_path(many, name) for name in names] + [mask_path(many, name) for name in names]


def test_without_skip_bad_nothing_is_decoded_at_construction(many, monkeypatch):
    monkeypatch.setattr(data.voc, "read_image", None)
    assert len(VOCFolder(many, "many", keep)) == 40 and read_ids(many, "many")[0] == "00"
