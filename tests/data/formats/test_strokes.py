"""Points, lines and clicks, and what the pixels beside them are, in every form."""

from pathlib import Path

import numpy as np
import pytest

from data import UserError, formats
from data.classes import VOID
from data.formats import clicks
from tests.data.formats import cvat, find, labelme, photo, supervisely, write

LINE, DOTS = [[1.5, 1.5], [4.5, 1.5]], [[1.5, 1.5], [4.5, 2.5]]  # on centres of pixels
LINE_MASK = [[9] * 6, [9, 0, 0, 0, 0, 9], [9] * 6, [9] * 6]  # 9: nothing is drawn
DOTS_MASK = [[9] * 6, [9, 0, 9, 9, 9, 9], [9, 9, 9, 9, 0, 9], [9] * 6]
DOT_MASK = [[9] * 6, [9, 0, 9, 9, 9, 9], [9] * 6, [9] * 6]
KINDS = [
    (labelme, "line", LINE, LINE_MASK),
    (labelme, "linestrip", LINE, LINE_MASK),
    (labelme, "points", DOTS, DOTS_MASK),
    (labelme, "point", DOTS[:1], DOT_MASK),
    (cvat, "polyline", LINE, LINE_MASK),
    (cvat, "points", DOTS, DOTS_MASK),
    (supervisely, "line", LINE, LINE_MASK),
    (supervisely, "point", DOTS[:1], DOT_MASK),
]


def drawn(expected: list[list[int]], label: int, beside: int) -> list[list[int]]:
    return [[beside if value == 9 else label for value in row] for row in expected]


def write_clicks(root: Path, text: str) -> Path:
    photo(root / "photos" / "a.jpg")
    return write(root / "clicks.csv", text)


def only_mask(form, root: Path, **options) -> tuple[list[str], list[list[int]]]:
    source = find(form, root, stroke_width=1.0, **options)
    (pair,) = source.pairs.values()
    return [*source.classes], pair.mask().tolist()


@pytest.mark.parametrize("writes, kind, points, expected", KINDS)
def test_points_and_lines_equal_a_drawing_by_hand(writes, kind, points, expected, tmp_path):
    writes(tmp_path, "a.jpg", kind=kind, box=points)
    photo(tmp_path / "a.jpg")
    form = getattr(formats, writes.__name__)
    with pytest.raises(UserError, match=rf"\({kind}\).* --unlabelled void"):
        find(form, tmp_path)
    found = only_mask(form, tmp_path, unlabelled="background")
    assert found == (["background", "dog"], drawn(expected, 1, 0))
    assert only_mask(form, tmp_path, unlabelled="void") == (["dog"], drawn(expected, 0, VOID))


def test_areas_beside_which_nothing_is_known(tmp_path):
    labelme(tmp_path, "a.jpg")
    photo(tmp_path / "a.jpg")
    names, mask = only_mask(formats.labelme, tmp_path, unlabelled="void")
    assert names == ["dog"] and {*np.ravel(mask)} == {0, VOID}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_clicks(separator, tmp_path):
    rows = [
        "photo,row,column,label,who",
        "a.jpg,1,1,dog,me",
        "a.jpg,2,4,dog,me",
        "a.jpg,0,0,cat,",
        ",,,,",
    ]
    write_clicks(tmp_path, "\n".join(rows).replace(",", separator))
    with pytest.raises(UserError, match="--unlabelled void"):
        find(clicks, tmp_path)
    expected = drawn(DOTS_MASK, 1, VOID)
    expected[0][0] = 0
    assert only_mask(clicks, tmp_path, unlabelled="void") == (["cat", "dog"], expected)


@pytest.mark.parametrize("row", ["a.jpg,one,1,dog", "a.jpg,1", "a.jpg,nan,1,dog"])
def test_a_click_that_is_no_place_is_refused(row, tmp_path):
    write_clicks(tmp_path, f"photo,row,column,label\n{row}")
    with pytest.raises(UserError, match="clicks.csv: not a table of clicks"):
        only_mask(clicks, tmp_path, unlabelled="void")
