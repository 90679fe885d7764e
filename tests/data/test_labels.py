"""Thin classes: the measure against drawn stripes, and what two of the commands say."""

import numpy as np
import pytest

from data import UserError
from data.classes import VOID
from data.labels import check_labels, measure, thin_classes
from tests.conftest import BACKBONE
from tests.data.conftest import VOC_FOLDERS, add

SIDE = 400


@pytest.mark.parametrize("width", [3, 4, 5, 8, 13, 30, 60])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_stripes_have_their_width_at_every_angle(width, shift):
    y, x = np.mgrid[:SIDE, :SIDE] + shift - SIDE / 2
    for angle in np.radians(range(0, 180, 15)):
        across = (x * np.cos(angle) + y * np.sin(angle)).round(6)
        outlines = measure(((-width / 2 <= across) & (across < width / 2)).astype(np.uint8), 2)[1]
        *_, line = thin_classes(outlines, ["ground", "thing"], size=1)  # for which all is too thin
        found = float(line.removeprefix("thing: ").split()[0])
        assert found == pytest.approx(width, rel=0.12 if width > 3 else 0.2)


def test_a_very_long_photo_shrinks_further():
    mask = np.zeros((200, 3000), dtype=np.uint8)
    mask[:, ::50] = mask[:, 1::50] = mask[:, 2::50] = 1
    (line,) = thin_classes(measure(mask, 2)[1], ["ground", "thing"], 224)
    assert line.startswith("thing: 3 px wide in photos of 750") and "0.9 at --size 224" in line
    assert not measure(np.where(mask, mask, VOID), 2)[1].any(), "a stroke is as wide as the pen"


def test_strokes_on_the_background_alone_are_no_binary_masks():
    check_labels(np.array([10, 0, 90]), "strokes")
    with pytest.raises(UserError, match="^here: the masks hold only 0 and 255"):
        check_labels(np.array([10, 0, 89]), "here")


def test_lists_and_step_1_name_the_size_at_which_a_fibre_is_two_pixels_wide(tmp_path, succeeds):
    """In three photos of 400 pixels, with a fibre of 3 and a band of 20, and void of 1."""
    mask = np.zeros((600, SIDE), dtype=np.uint8)
    mask[100:103], mask[:, 200:220], mask[400] = 1, 2, VOID
    for name in "abc":
        add(tmp_path, name, mask, VOC_FOLDERS)
    (tmp_path / "classes.txt").write_text("ground\nfibre\nband\n")
    line = "  note: fibre: 3 px wide in photos of 400 (shorter side), {} at --size {}; take --size "
    said = succeeds("data/lists.py", tmp_path)
    assert line.format(1.7, 224) + "400 or more\n" in said and said.count("px wide") == 1
    flags = (*BACKBONE, "--data", tmp_path, "--workers", 0, "--run", tmp_path / "run")
    said = succeeds("sample_features.py", *flags, "--size", 64)
    assert line.format(0.5, 64) + "400 or more\n" in said and said.count("px wide") == 1
    assert "px wide" not in succeeds("sample_features.py", *flags, "--size", 300)
