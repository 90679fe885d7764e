"""Cityscapes: label ids become the 19 classes that are trained."""

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOID
from data.formats.cityscapes import find
from data.formats.source import ClassList, Options


def test_label_ids_become_training_ids(tmp_path):
    photos, masks = tmp_path / "leftImg8bit/train/ulm", tmp_path / "gtFine/train/ulm"
    for folder in (photos, masks):
        folder.mkdir(parents=True)
    for name in ("ulm_0_1", "ulm_0_2"):
        Image.new("RGB", (6, 1)).save(photos / f"{name}_leftImg8bit.png")
    ids = np.array([[0, 7, 8, 17, 29, 33]], dtype=np.uint8)
    Image.fromarray(ids).save(masks / "ulm_0_1_gtFine_labelIds.png")
    Image.fromarray(ids).save(masks / "ulm_0_1_gtFine_instanceIds.png")
    source = find(tmp_path, Options())
    names = list(source.classes)
    assert len(names) == 19 and (names[0], names[5], names[18]) == ("road", "pole", "bicycle")
    assert source.classes["car"] == (0, 0, 142)
    assert (source.images, source.left_out) == (
        2,
        {"photo without a mask": ["ulm_0_2_leftImg8bit.png"]},
    )
    pair = source.pairs["ulm_0_1"]
    assert pair.photo == photos / "ulm_0_1_leftImg8bit.png"
    mask = pair.mask()
    assert mask.dtype == np.uint8 and mask.tolist() == [[VOID, 0, 1, 5, VOID, 18]]
    with pytest.raises(UserError, match="^--classes: Cityscapes has its own 19"):
        find(tmp_path, Options(classes=ClassList({"road": None})))


def test_other_folders_are_of_another_form(tmp_path):
    (tmp_path / "a_leftImg8bit.png").touch()
    assert find(tmp_path, Options()) is None
