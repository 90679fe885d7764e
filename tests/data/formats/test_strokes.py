"""Points, lines and clicks, and what the pixels beside them are, in every form."""

from pathlib import Path

import numpy as np
import pytest

from data import UserError
from data.classes import VOID
from tests.data.formats import cvat, find, labelme, photo, supervisely, write

LINE, DOTS = [[1.5, 1.5], [4.5, 1.5]], [[1.5, 1.5], [4.5, 2.5]]  # on centres of pixels
LINE_MASK = [[9] * 6, [9, 0, 0, 0, 0, 9], [9] * 6, [9] * 6]  # 9: nothing is drawn
DOTS_MASK = [[9] * 6, [9, 0, 9, 9, 9, 9], [9, 9, 9, 9, 0, 9], [9] * 6]
DOT_MASK = [[9] * 6, [9, 0, 9, 9, 9, 9], [9] * 6, [9] * 6]
DRAWINGS = {"line": (LINE, LINE_MASK), "points": (DOTS, DOTS_MASK), "point": (DOTS[:1], DOT_MASK)}
DRAWINGS |= {"linestrip": DRAWINGS["line"], "polyline": DRAWINGS["line"]}
KINDS = [(labelme, kind) for kind in ("line", "linestrip", "points", "point")]
KINDS += [(cvat, "polyline"), (cvat, "points"), (supervisely, "line"), (supervisely, "point")]


def drawn(expected: list[list[int]], label: int, beside: int) -> list[list[int]]:
    return [[beside if value == 9 else label for value in row] for row in expected]


def clicks(root: Path, text: str) -> Path:
    photo(root / "photos" / "a.jpg")
    return write(root / "clicks.csv", text)


def only_mask(writes, root: Path, **options) -> tuple[list[str], list[list[int]]]:
    source = find(writes, root, stroke_width=1.0, **options)
    (pair,) = source.pairs.values()
    return [*source.classes], pair.mask().tolist()


@pytest.mark.parametrize("writes, kind", KINDS)
def test_points_and_lines_equal_a_drawing_by_hand(writes, kind, tmp_path):
    points, expected = DRAWINGS[kind]
    writes(tmp_path, "a.jpg", kind=kind, box=points)
    photo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=rf"\({kind}\).* --unlabelled void"):
        find(writes, tmp_path)
    found = only_mask(writes, tmp_path, unlabelled="background")
    assert found == (["background", "dog"], drawn(expected, 1, 0))
    assert only_mask(writes, tmp_path, unlabelled="void") == (["dog"], drawn(expected, 0, VOID))


@pytest.mark.parametrize("width", [1.0, 3.0, 5.0])
def test_a_stroke_is_all_pixels_near_its_line_and_has_no_gap(width, tmp_path):
    ends = [[3.2, 4.1], [24.7, 17.3]]
    line = {"label": "dog", "points": ends, "shape_type": "line"}
    write(tmp_path / "a.json", {"shapes": [line], "imagePath": "a.jpg"})
    photo(tmp_path / "a.jpg", (30, 20))
    source = find(labelme, tmp_path, unlabelled="background", stroke_width=width)
    found, reach = source.pairs["a"].mask() == 1, max(width, 2**0.5) / 2
    points = np.linspace(*ends, 2000)  # of the line
    for y, x in np.ndindex(found.shape):
        near = np.hypot(*(points - (x + 0.5, y + 0.5)).T).min()
        assert found[y, x] == (near < reach) or abs(near - reach) <= 0.01
    columns = np.flatnonzero(found.any(axis=0))
    assert (np.diff(columns) == 1).all() and len(columns) >= 21


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_clicks(separator, tmp_path):
    rows = "photo,row,column,label,who a.jpg,1,1,dog,me a.jpg,2,4,dog,me a.jpg,0,0,cat, ,,,,"
    clicks(tmp_path, rows.replace(" ", "\n").replace(",", separator))
    with pytest.raises(UserError, match="--unlabelled void"):
        find(clicks, tmp_path)
    expected = drawn(DOTS_MASK, 1, VOID)
    expected[0][0] = 0
    assert only_mask(clicks, tmp_path, unlabelled="void") == (["cat", "dog"], expected)


@pytest.mark.parametrize("row", ["a.jpg,one,1,dog", "a.jpg,1", "a.jpg,nan,1,dog"])
def test_a_click_that_is_no_place_is_refused(row, tmp_path):
    clicks(tmp_path, f"photo,row,column,label\n{row}")
    with pytest.raises(UserError, match="clicks.csv: not a table of clicks"):
        only_mask(clicks, tmp_path, unlabelled="void")
