"""Points, lines and clicks, and what the pixels beside them are, in every form."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError, formats
from data.classes import VOID
from data.formats import clicks
from data.formats.folders import find as find_folders
from data.formats.rasterize import stroke
from data.formats.source import Options
from tests.data.formats import find, photo
from tests.data.formats.test_annotations import cvat, labelme, supervisely, write
from tests.data.formats.test_rasterize import on_photo

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
    rows = ["photo,row,column,label,who", "a.jpg,1,1,dog,me", "a.jpg,2,4,dog,me", "a.jpg,0,0,cat,"]
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


@pytest.mark.parametrize("width", [1.0, 3.0, 5.0])
def test_a_stroke_is_all_pixels_near_its_line_and_has_no_gap(width):
    start, end = np.array([3.2, 4.1]), np.array([24.7, 17.3])
    found = on_photo(stroke([np.array([start, end])], width, (20, 30)), (20, 30))
    for y, x in np.ndindex(found.shape):
        steps = np.linspace(start, end, 2000)  # points of the line
        near = np.hypot(*(steps - (x + 0.5, y + 0.5)).T).min()
        if abs(near - max(width / 2, 0.5**0.5)) > 0.01:
            assert found[y, x] == (near < max(width / 2, 0.5**0.5))
    columns = np.flatnonzero(found.any(axis=0))
    assert (np.diff(columns) == 1).all() and len(columns) >= 21


def masks(root: Path, picture: Image.Image, listed: str = "", **options):
    """The names of the classes, and the mask, of one photo beside its mask."""
    photo(root / "images" / "a.jpg", picture.size)
    (root / "masks").mkdir()
    picture.save(root / "masks" / "a.png")
    if listed:
        (root / "classes.txt").write_text(listed)
    source = find_folders(root, Options(**options))
    return [*source.classes], source.pairs["a"].mask().tolist()


def grey(rows) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


@pytest.mark.parametrize(
    "listed, unlabelled, names, mask",
    [
        ("", 0, ["class 1", "class 2"], [[VOID, 0, 1], [VOID, VOID, VOID]]),
        ("soil\nroot\nleaf", 0, ["soil", "root", "leaf"], [[VOID, 0, 1], [VOID] * 3]),
        ("root\nbackground", 0, ["background", "root"], [[VOID, 1, 0], [VOID] * 3]),
        ("", 2, ["background", "class 1"], [[0, 1, VOID], [0, 0, 0]]),
        ("", "void", ["background", "class 1", "class 2"], [[0, 1, 2], [0, 0, 0]]),
    ],
)
def test_masks_of_strokes(listed, unlabelled, names, mask, tmp_path):
    found = masks(tmp_path, grey([[0, 1, 2], [0, 0, 0]]), listed, unlabelled=unlabelled)
    assert found == (names, mask)


def test_map_wins_over_unlabelled(tmp_path):
    found = masks(tmp_path, grey([[0, 7, 9]]), "a\nb", unlabelled=0, values={7: 1, 9: 0})
    assert found == (["a", "b"], [[VOID, 1, 0]])


LISTED = "background 0 0 255\ncat 128 0 0"


@pytest.mark.parametrize("unlabelled, beside", [("void", VOID), ("background", 0), (0, VOID)])
def test_transparent_pixels_of_a_drawing_layer_are_unlabelled(unlabelled, beside, tmp_path):
    layer = np.zeros((1, 4, 4), dtype=np.uint8)
    layer[0, 1], layer[0, 2], layer[0, 3] = (0, 0, 255, 255), (128, 0, 0, 255), (128, 0, 0, 0)
    found = masks(tmp_path, Image.fromarray(layer), LISTED, unlabelled=unlabelled)
    assert found == (["background", "cat"], [[beside, 0, 1, beside]])


def test_black_of_painted_strokes_is_the_value_0(tmp_path):
    painted = np.array([[[0, 0, 0], [0, 0, 255], [128, 0, 0]]], dtype=np.uint8)
    found = masks(tmp_path, Image.fromarray(painted), LISTED, unlabelled=0)
    assert found == (["background", "cat"], [[VOID, 0, 1]])
