"""CVAT's XML "for images": polygons, boxes, ellipses, masks and their order."""

from pathlib import Path

import numpy as np
import pytest

from data import UserError
from data.formats import cvat
from tests.data.formats import DRAWN, find, only_mask, photo, write

FILE = """<?xml version="1.0" encoding="utf-8"?>
<annotations><meta><job><labels>
  <label><name>dog</name><color>#00ff01</color></label>
  <label><name>cat</name><color>#ff0000</color></label>
</labels></job></meta>
<image id="0" name="x/a.jpg" width="6" height="4">{}</image></annotations>
"""
POLYGON = '<polygon label="dog" points="1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00"/>'
BOX = '<box label="dog" xtl="1.00" ytl="1.00" xbr="4.00" ybr="3.00" z_order="0"></box>'
TURNED = '<box label="dog" xtl="1.5" ytl="0.5" xbr="3.5" ybr="3.5" rotation="90.0"/>'
MASK = '<mask label="dog" rle="1, 3, 1, 3" left="0" top="1" width="4" height="2"/>'


def mask_of(root: Path, *shapes: str) -> list:
    photo(root / "images/x/a.jpg")
    write(root / "annotations.xml", FILE.format("".join(shapes)))
    return only_mask(cvat, root)


@pytest.mark.parametrize("shape", [POLYGON, BOX, TURNED, MASK])
def test_areas_have_their_label(shape, tmp_path):
    assert mask_of(tmp_path, shape, '<tag label="sunny"/>') == DRAWN
    source = find(cvat, tmp_path)
    classes = {"background": None, "dog": (0, 255, 1), "cat": (255, 0, 0)}
    assert source.classes == classes and not source.notes


def test_ellipses_are_drawn_and_turned(tmp_path):
    ellipse = '<ellipse label="dog" cx="3" cy="2" rx="2.8" ry="1" rotation="{}"/>'.format
    flat = [[0] * 6, [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6]
    assert mask_of(tmp_path, ellipse(0)) == flat
    assert mask_of(tmp_path, ellipse(90)) == [[0, 0, 1, 1, 0, 0]] * 4


def test_a_higher_z_order_lies_on_a_lower_one_and_later_on_earlier(tmp_path):
    wide = '<box label="{}" xtl="0" ytl="0" xbr="{}" ybr="4" z_order="{}"/>'.format
    shapes = wide("cat", 1, 5), wide("dog", 2, 0), wide("cat", 6, -1)
    assert mask_of(tmp_path, *shapes) == [[2, 1, 2, 2, 2, 2]] * 4
    assert mask_of(tmp_path, wide("dog", 6, 0), wide("cat", 2, 0)) == [[2, 2, 1, 1, 1, 1]] * 4


@pytest.mark.parametrize("left, columns", [(-2, [0, 1]), (4, [4, 5]), (-4, []), (6, [])])
def test_masks_are_cut_off_at_the_photo(left, columns, tmp_path):
    mask = f'<mask label="dog" rle="0, 8" left="{left}" top="3" width="4" height="2"/>'
    assert np.argwhere(mask_of(tmp_path, mask)).tolist() == [[3, x] for x in columns]


def test_photos_of_one_name_are_told_apart_by_their_subset(tmp_path):
    images = ""
    for subset, shape in (("train", BOX), ("val", "")):
        images += f'<image name="a.jpg" subset="{subset}" width="6" height="4">{shape}</image>'
        photo(tmp_path / "images" / subset / "a.jpg")
    write(tmp_path / "annotations.xml", f"<annotations>{images}</annotations>")
    source = find(cvat, tmp_path)
    assert source.pairs["train_a"].mask().tolist() == DRAWN
    assert not source.pairs["val_a"].mask().any()
    assert source.notes == {"nothing is drawn, so background everywhere": ["a.jpg"]}


@pytest.mark.parametrize("subset", ["", "default"])  # a project has subsets
def test_frames_of_a_video_are_named_without_their_suffix(subset, tmp_path):
    photo(tmp_path / "images" / subset / "frame_000000.PNG")
    of = f'subset="{subset}"' if subset else ""
    image = f'<image name="frame_000000" {of} width="6" height="4">{BOX}</image>'
    write(tmp_path / "annotations.xml", f"<annotations>{image}</annotations>")
    assert only_mask(cvat, tmp_path) == DRAWN


def test_xml_of_videos_is_refused(tmp_path):
    write(tmp_path / "a.xml", "<annotations><track id='0'></track></annotations>")
    with pytest.raises(UserError, match='about a video; export it as "CVAT for images 1.1"'):
        find(cvat, tmp_path)
