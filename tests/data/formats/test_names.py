"""Lists of classes in the files that people have, and ids of the names in annotations."""

import re
from pathlib import Path

import pytest

from data import UserError
from data.classes import VOID
from data.formats.names import find_class_list, hex_colour, number, read_class_list
from data.formats.source import ClassList, Options

EXPECTED = {"background": (0, 0, 0), "traffic light": (250, 170, 30), "cat": (1, 2, 3)}
FILES = {
    "classes.txt": "background 0 0 0\ntraffic light 250 170 30\ncat 1 2 3\nvoid 9 9 9\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\ntraffic light:250,170,30::\n"
    "background:0,0,0::\ncat:1,2,3:head,tail:sleeping\nvoid:9,9,9::\n",
    "class_dict.csv": "name,r,g,b\ntraffic light,250,170,30\ncat,1,2,3\nbackground,0,0,0\n"
    "Void,9,9,9\n",
}


@pytest.mark.parametrize("name", FILES)
def test_class_lists_are_found_and_read_with_the_background_in_front(name, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    listed = read_class_list(find_class_list(tmp_path))
    assert listed == ClassList(EXPECTED, ((9, 9, 9),))
    assert next(iter(listed.classes)) == "background"


def test_a_list_without_background_keeps_its_order(tmp_path):
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    assert read_class_list(tmp_path / "classes.txt") == ClassList({"road": None, "sky": None})
    assert list(read_class_list(tmp_path / "classes.txt").classes) == ["road", "sky"]


def test_lines_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "class_dict.csv"
    path.write_text("name,r,g,b\nroad,1,2,3\nsky,1,2,999\n")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 3: expected 'name'")):
        read_class_list(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=re.escape(f"{path}: cannot be read as a list of classes")):
        read_class_list(path)


def test_colours_of_web_pages():
    assert hex_colour("#ff8001") == hex_colour("#FF8001ff") == (255, 128, 1)
    assert hex_colour(None) is None


LABELS = {"cat": (1, 2, 3), "_background_": None, "dog": None, "__ignore__": None}


def test_labels_number_themselves_behind_the_background():
    classes, ids = number({"cat": None, "dog": (1, 2, 3)}, {"dog"}, Options(), Path("here"))
    assert list(classes.items()) == [("background", None), ("cat", None), ("dog", (1, 2, 3))]
    assert ids["dog"] == 2


def test_background_and_void_have_their_names():
    classes, ids = number(LABELS, LABELS, Options(), Path("here"))
    assert list(classes) == ["_background_", "cat", "dog"]
    assert ids == {"_background_": 0, "cat": 1, "dog": 2, "__ignore__": VOID}


def listed(*names: str, unknown: int | None = None) -> Options:
    return Options(classes=ClassList(dict.fromkeys(names)), unknown=unknown)


def test_listed_classes_give_the_ids():
    classes, ids = number(LABELS, LABELS, listed("background", "dog", "cat"), Path("here"))
    assert list(classes) == ["background", "dog", "cat"]
    assert {name: ids[name] for name in LABELS} == {
        "_background_": 0,
        "cat": 2,
        "dog": 1,
        "__ignore__": VOID,
    }


@pytest.mark.parametrize("unknown", [0, VOID])
def test_labels_that_are_not_listed_become_what_the_user_says(unknown):
    _, ids = number(LABELS, LABELS, listed("background", "dog", unknown=unknown), Path("here"))
    assert (ids["cat"], ids["dog"]) == (unknown, 1)


def test_only_labels_that_are_drawn_must_be_listed():
    number(LABELS, {"dog"}, listed("background", "dog"), Path("here"))
    with pytest.raises(UserError, match="^here: --classes has no cat; .* --unknown void or"):
        number(LABELS, LABELS, listed("background", "dog"), Path("here"))


def test_a_drawn_label_in_the_place_of_the_background_is_refused():
    with pytest.raises(UserError, match="first class is the background, but 'cat' is drawn"):
        number(LABELS, LABELS, listed("cat", "dog"), Path("here"))
