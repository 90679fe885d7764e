"""Class names, colours and the palette: VOC's own, and those of a `classes.txt`."""

import re

import pytest

from data import UserError
from data.classes import VOC, VOID, Classes, read_classes, voc_colour

OFFICIAL = {1: ("aeroplane", (128, 0, 0)), 9: ("chair", (192, 0, 0))}
OFFICIAL |= {15: ("person", (192, 128, 128)), 20: ("tvmonitor", (0, 64, 128))}


def from_file(folder, text: str | bytes) -> Classes:
    (folder / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_classes(folder)


def test_voc_classes_and_colours_are_the_official_ones():
    assert len(VOC) == 21 and VOC.names[0] == "background" and VOC.colours[0] == (0, 0, 0)
    assert OFFICIAL.items() <= dict(enumerate(zip(VOC.names, VOC.colours))).items()
    assert voc_colour(VOID) == (224, 224, 192)
    assert len({voc_colour(index) for index in range(256)}) == 256


TEXT = "ground\ntraffic light 250 170 30\ntraffic  sign\nroute 66\n4 wheels\nroute 67 1 2 3\n"
BLANKS = "\n  " + TEXT.replace("light 250 170", "light\t250   170").replace("\n", " \n\n")
FILES = [TEXT, TEXT.replace("\n", "\r\n"), BLANKS, b"\xef\xbb\xbf" + TEXT.encode()]


@pytest.mark.parametrize("text", FILES)
def test_names_may_hold_blanks_and_end_in_a_number_and_colours_are_vocs_by_default(text, tmp_path):
    assert read_classes(tmp_path) is VOC
    classes = from_file(tmp_path, text)
    names = "ground", "traffic light", "traffic sign", "route 66", "4 wheels", "route 67"
    assert classes.names == names
    given = {0: (96, 224, 192), 1: (250, 170, 30), 5: (1, 2, 3)}
    colours = [given.get(place, voc_colour(place)) for place in range(256)]
    assert classes.colours == tuple(colours[:6])
    assert classes.palette() == [*sum(colours, ())], "VOC's follow"


@pytest.mark.parametrize("name", ["background", "_background_", "Background", "wall 0 0 0"])
def test_what_is_called_background_is_black_or_what_is_said_to_be(name, tmp_path):
    assert from_file(tmp_path, f"{name}\ncat\n").colours == VOC.colours[:2]


def test_a_list_of_another_name_is_not_passed_over_for_vocs(tmp_path):
    (tmp_path / "class_names.txt").write_text("_background_\ncrack\n")
    with pytest.raises(UserError, match="the classes are in class_names.txt, .* data.convert goes"):
        read_classes(tmp_path)
    assert from_file(tmp_path, "background\ncrack\n").names == ("background", "crack")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a 1 2 3\n\nb 1 2\n", "line 3: expected 'name' or 'name r g b' with 0..255, found 'b "),
        ("a 1 2 256\nb\n", "line 1: expected"),
        ("a\nb 1 -2 3\n", "line 2: expected"),
        ("a\nb ² 0 0\n", "line 2: expected"),
        ("a\n1 2 3\n", "line 2: expected"),
        ("a\nb\na 1 2 3\n", "line 3: class 'a' is given twice"),
        ("__ignore__\na\nb\n", "'__ignore__' is no class; leave it out, in masks it is 255"),
        ("a\n", "1 classes; a data set needs 2 to 255"),
        ("".join(f"c{index}\n" for index in range(256)), "256 classes; a data set needs 2 to 255"),
        (b"a\n\xff\xfe\n", "not a UTF-8 text file"),
    ],
)
def test_an_unusable_list_is_refused(text, message, tmp_path):
    path = re.escape(str(tmp_path / "classes.txt"))
    with pytest.raises(UserError, match=path + ".*" + re.escape(message)):
        from_file(tmp_path, text)
