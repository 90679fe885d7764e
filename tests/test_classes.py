"""Class names, colours and the palette: VOC's own, and those of a `classes.txt`."""

import re

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOC, VOID, Classes, distinct_colours, read_classes, voc_colour

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


@pytest.mark.parametrize("count", [2, 21])
def test_up_to_21_classes_without_colours_take_those_of_voc(count, tmp_path):
    classes = written(tmp_path, "".join(f"thing_{index}\n" for index in range(count)))
    assert classes.names == tuple(f"thing_{index}" for index in range(count))
    assert classes.colours == VOC.colours[:count]


@pytest.mark.parametrize("count", [22, 60, 255])
def test_more_classes_without_colours_take_some_that_lie_further_apart(count, tmp_path):
    colours = written(tmp_path, "".join(f"thing_{index}\n" for index in range(count))).colours
    assert len(set(colours)) == count and colours[0] == (0, 0, 0)
    assert all(0 <= value <= 255 and type(value) is int for colour in colours for value in colour)
    lightness, *_ = cielab(colours[1:])
    assert 15 < lightness.min() and lightness.max() < 99, "not to be taken for black or white"
    assert closest(colours) > 1.5 * closest([voc_colour(index) for index in range(count)])


def cielab(colours) -> np.ndarray:
    """CIELAB (3, n) of sRGB colours under D65: another measure than that the colours are chosen by."""
    rgb = np.array(colours) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear.T
    x, y, z = (np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (x / 0.9505, y, z / 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def closest(colours) -> float:
    """The least distance of two of the colours (Delta E of 1976)."""
    lab = cielab(colours)
    distances = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=0)
    return distances[~np.eye(len(colours), dtype=bool)].min()


def test_a_colour_that_is_given_is_no_other_class_s(tmp_path):
    given = VOC.colours[1]
    classes = written(tmp_path, f"ground\nroad\ncar {given[0]} {given[1]} {given[2]}\nsky\n")
    assert classes.colours[0] == VOC.colours[0] and classes.colours[2] == given and classes.colours[3] == VOC.colours[3]
    assert classes.colours[1] not in (*VOC.colours, voc_colour(VOID), (255, 255, 255))


def test_distinct_colours_of_a_shorter_list_are_the_first_of_a_longer():
    few, many = distinct_colours(5, [(0, 0, 0)]), distinct_colours(50, [(0, 0, 0)])
    assert few == many[:5]
    assert distinct_colours(1, [(0, 0, 0), few[0]]) == [few[1]]


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
