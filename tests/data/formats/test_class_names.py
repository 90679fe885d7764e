"""Lists of classes in the files that people have, and ids of the names in annotations."""

import re

import pytest

from data import UserError
from data.classes import CLASS_FILES, VOID
from data.formats.class_names import number_classes, read_class_list

EXPECTED = {"background": (0, 0, 0), "traffic light": (250, 170, 30), "cat": (1, 2, 3)}
FILES = {
    "classes.txt": "background 0 0 0\ntraffic light 250 170 30\ncat 1 2 3\nvoid 9 9 9\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\ntraffic light:250,170,30::\n"
    "background:0,0,0::\ncat:1,2,3:head,tail:sleeping\nvoid:9,9,9::\n",
    "class_names.txt": "250 170 30\ttraffic light\n1 2 3 cat\n0 0 0 background\n9 9 9 void\n",
    "class_dict.csv": "name,r,g,b\ntraffic light,250,170,30\ncat,1,2,3\nbackground,0,0,0\n"
    "Void,9,9,9\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, traffic light\n2, cat\n3, void\n",
}


@pytest.mark.parametrize("name", FILES)
def test_class_lists_are_read_with_the_background_in_front(name, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    listed = read_class_list(tmp_path / name)
    classes, ids = number_classes(listed)
    (void,) = listed.keys() - EXPECTED.keys()
    assert ids == {"background": 0, "traffic light": 1, "cat": 2, void: VOID}
    colours = (*EXPECTED.values(), (9, 9, 9)) if name in CLASS_FILES else (None,) * 4
    assert list(classes.items()) == list(zip(EXPECTED, colours))
    assert listed[void] == colours[3]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("Pixel Value, Class\n0, road\n2, sky\n", ": values 0, 2; needed are 0, 1, 2, .."),
        ("Idx\tRatio\tTrain\tName\n1\t0.15\t11664\twall\n", ", line 2: expected 'name'"),
        ("1 wall\n2 sky\n", ": its lines are numbered"),
    ],
)
def test_lines_that_cannot_be_read_are_named(text, reason, tmp_path):
    path = tmp_path / "class_dict.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{path}{reason}")):
        read_class_list(path)
