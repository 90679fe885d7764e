"""Class names, colours and the palette: VOC's own, and those of a `classes.txt`."""

import re

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOC, VOID, Classes, read_classes, voc_colour

OFFICIAL = {
    "background": (0, 0, 0),
    "aeroplane": (128, 0, 0),
    "bicycle": (0, 128, 0),
    "bird": (128, 128, 0),
    "boat": (0, 0, 128),
    "bottle": (128, 0, 128),
    "bus": (0, 128, 128),
    "car": (128, 128, 128),
    "cat": (64, 0, 0),
    "chair": (192, 0, 0),
    "cow": (64, 128, 0),
    "diningtable": (192, 128, 0),
    "dog": (64, 0, 128),
    "horse": (192, 0, 128),
    "motorbike": (64, 128, 128),
    "person": (192, 128, 128),
    "pottedplant": (0, 64, 0),
    "sheep": (128, 64, 0),
    "sofa": (0, 192, 0),
    "train": (128, 192, 0),
    "tvmonitor": (0, 64, 128),
}


def written(folder, text: str | bytes) -> Classes:
    (folder / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_classes(folder)


def test_voc_classes_and_colours_are_the_official_ones():
    assert dict(zip(VOC.names, VOC.colours)) == OFFICIAL
    assert VOC.names == tuple(OFFICIAL)
    assert voc_colour(VOID) == (224, 224, 192)
    assert len(VOC) == 21


def test_all_256_colours_differ():
    assert len({voc_colour(index) for index in range(256)}) == 256


@pytest.mark.parametrize("classes", [VOC, Classes(("ground", "road"), ((1, 2, 3), (250, 0, 7)))], ids=["voc", "own"])
def test_palette_survives_a_saved_png(classes, tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(values)
    picture.putpalette(classes.palette())
    picture.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as back:
        assert back.mode == "P"
        assert np.array_equal(back, values)
        colours = np.array(back.convert("RGB")).reshape(256, 3).tolist()
    expected = [*classes.colours, *(voc_colour(index) for index in range(len(classes), 256))]
    assert colours == [list(colour) for colour in expected]


def test_classes_survive_plain_lists():
    assert Classes.from_lists(list(VOC.names), [list(colour) for colour in VOC.colours]) == VOC


def test_a_folder_without_a_list_has_the_classes_of_voc(tmp_path):
    assert read_classes(tmp_path) is VOC


@pytest.mark.parametrize(
    "text",
    [
        "ground 10 20 30\nroad\ncar 0 255 0\n",
        "ground 10 20 30\r\nroad\r\ncar 0 255 0\r\n",
        "\n  ground\t10  20 30 \n\nroad\n   \ncar 0 255 0",
        b"\xef\xbb\xbfground 10 20 30\nroad\ncar 0 255 0\n",
    ],
    ids=["plain", "windows", "blanks", "byte_order_mark"],
)
def test_names_and_colours_are_read(text, tmp_path):
    classes = written(tmp_path, text)
    assert classes.names == ("ground", "road", "car")
    assert classes.colours == ((10, 20, 30), voc_colour(1), (0, 255, 0))


@pytest.mark.parametrize("count", [2, 60, 255])
def test_classes_without_colours_take_those_of_voc(count, tmp_path):
    classes = written(tmp_path, "".join(f"thing_{index}\n" for index in range(count)))
    assert len(classes) == count
    assert classes.names[-1] == f"thing_{count - 1}"
    assert classes.colours == tuple(voc_colour(index) for index in range(count))


@pytest.mark.parametrize(
    "text, message",
    [
        ("a 1 2 3\n\nb 1 2\n", "line 3: expected 'name' or 'name r g b' with 0..255, found 'b 1 2'"),
        ("a 1 2 256\nb\n", "line 1: expected"),
        ("a\nb 1 -2 3\n", "line 2: expected"),
        ("a\nb 0.5 0 0\n", "line 2: expected"),
        ("a\nb ² 0 0\n", "line 2: expected"),
        ("a\ntraffic light\n", "line 2: expected"),
        ("a\nb\na 1 2 3\n", "line 3: class 'a' is given twice"),
        ("", "0 classes; a data set needs 2 to 255"),
        ("a\n", "1 classes; a data set needs 2 to 255"),
        ("".join(f"c{index}\n" for index in range(256)), "256 classes; a data set needs 2 to 255"),
        (b"a\n\xff\xfe\n", "not a UTF-8 text file"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(text, message, tmp_path):
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "classes.txt")) + ".*" + re.escape(message)):
        written(tmp_path, text)
