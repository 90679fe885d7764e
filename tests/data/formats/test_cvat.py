"""CVAT's XML "for images": polygons, boxes, masks and their order."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.formats.cvat import find
from data.formats.source import Options

FILE = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job>
      <id>1</id>
      <size>1</size>
      <labels>
        <label><name>dog</name><color>#00ff01</color><type>any</type><attributes></attributes></label>
        <label><name>cat</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
      </labels>
    </job>
    <dumped>2024-03-01 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="x/a.jpg" width="6" height="4">
{shapes}
  </image>
  <image id="1" name="gone.jpg" width="6" height="4"></image>
</annotations>
"""
COMMON = 'source="manual" occluded="0"'
POLYGON = f'<polygon label="dog" {COMMON} points="1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00"/>'
BOX = f'<box label="dog" {COMMON} xtl="1.00" ytl="1.00" xbr="4.00" ybr="3.00" z_order="0"></box>'
MASK = f'<mask label="dog" {COMMON} rle="1, 3, 1, 3" left="0" top="1" width="4" height="2"/>'
DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "images/x").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "images/x/a.jpg")
    return tmp_path


def write(root: Path, *shapes: str) -> None:
    (root / "annotations.xml").write_text(FILE.format(shapes="\n".join(shapes)))


def mask_of(root: Path) -> list:
    mask = find(root, Options()).pairs["x_a"]().mask
    assert mask.dtype == np.uint8
    return mask.tolist()


@pytest.mark.parametrize("shape", [POLYGON, BOX, MASK])
def test_areas_have_their_label(shape, root):
    write(root, shape)
    source = find(root, Options())
    assert list(source.classes.items()) == [
        ("background", None),
        ("dog", (0, 255, 1)),
        ("cat", (255, 0, 0)),
    ]
    assert source.pairs["x_a"]().photo == root / "images/x/a.jpg"
    assert (source.images, source.left_out) == (
        2,
        {"no photo of that name, or several": ["gone.jpg"]},
    )
    assert mask_of(root) == DRAWN


def test_a_higher_z_order_lies_on_a_lower_one_and_later_on_earlier(root):
    wide = '<box label="{}" xtl="0" ytl="0" xbr="{}" ybr="4" z_order="{}"/>'.format
    write(root, wide("cat", 1, 5), wide("dog", 2, 0), wide("cat", 6, -1))
    assert mask_of(root) == [[2, 1, 2, 2, 2, 2]] * 4
    write(root, wide("dog", 6, 0), wide("cat", 2, 0))
    assert mask_of(root) == [[2, 2, 1, 1, 1, 1]] * 4


@pytest.mark.parametrize(
    "shape, kind",
    [
        ('<polyline label="dog" points="0,0;5,3"/>', "polyline"),
        ('<points label="dog" points="0,0"/>', "points"),
        ('<ellipse label="dog" cx="2" cy="2" rx="1" ry="1"/>', "ellipse"),
        ('<box label="dog" xtl="0" ytl="0" xbr="2" ybr="2" rotation="30.0"/>', "turned box"),
    ],
)
def test_other_shapes_are_left_out(shape, kind, root):
    write(root, shape)
    assert find(root, Options()).left_out[f"shape not drawn ({kind})"] == ["x/a.jpg"]
    assert not np.any(mask_of(root))


def test_xml_of_videos_is_refused_and_other_xml_is_of_another_form(root):
    path = root / "annotations.xml"
    path.write_text("<annotations><track id='0'></track></annotations>")
    with pytest.raises(DataError, match='about a video; export it as "CVAT for images 1.1"'):
        find(root, Options())
    path.write_text("<annotation><folder>VOC2012</folder></annotation>")
    assert find(root, Options()) is None


@pytest.mark.parametrize(
    "shape, reason",
    [
        ('<polygon label="dog"/>', "no 'points' in it"),
        ('<polygon points="0,0;1,1"/>', "no 'label' in it"),
        ('<box label="dog" xtl="a" ytl="0" xbr="2" ybr="2"/>', "could not convert string"),
        ('<mask label="dog" rle="1, 2" left="0" top="0" width="9" height="9"/>', "cannot reshape"),
        ("<polygon", "not well-formed"),
    ],
)
def test_a_file_that_is_not_as_cvat_writes_it_is_named(shape, reason, root):
    write(root, shape)
    message = re.escape(f"{root / 'annotations.xml'}: not CVAT XML as it is known here")
    with pytest.raises(DataError, match=f"{message}.*{reason}"):
        mask_of(root)
