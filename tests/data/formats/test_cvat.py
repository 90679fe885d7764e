"""CVAT's XML "for images": where its photos lie."""

import pytest

from data import UserError
from data.formats import cvat
from tests.data.formats import DRAWN, find, only_mask, photo, write

BOX = '<box label="dog" xtl="1.00" ytl="1.00" xbr="4.00" ybr="3.00" z_order="0"></box>'


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
