"""Areas of each form equal a drawing by hand, and lie on each other as its own program has them."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest

from data import UserError
from data.classes import VOID
from data.formats.rasterize import ellipse, outlined, polygons
from tests.data.formats import DRAWN, coco, cvat, find, labelme, only_mask, photo, png, supervisely

SQUARE = [[1, 1], [3, 1], [3, 2], [1, 2]]  # its outline belongs to it
RING = [1, 1, 4, 1, 4, 3, 1, 3]  # x, y of the corners; pixels whose centres are inside
RUNS = {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}  # down the columns


def shape(points, kind: str | None = "rectangle", inside=None, label: str = "dog") -> dict:
    """As LabelMe 5.5 writes it; `inside` are the pixels of a mask."""
    mask = base64.b64encode(png(inside)).decode() if inside else None
    return {"label": label, "points": points, "shape_type": kind, "mask": mask}


def outline(segmentation, category: int = 5, **keys) -> dict:
    """As COCO has it."""
    return {"segmentation": segmentation, "category_id": category, **keys}


def thing(kind: str, exterior: list, interior: list = (), label: str = "dog") -> dict:
    """As Supervisely writes it."""
    points = {"exterior": exterior, "interior": interior}
    return {"geometryType": kind, "classTitle": label, "points": points}


def bitmap(content: bytes, *origin: int) -> dict:
    bits = {"data": base64.b64encode(zlib.compress(content, 1)).decode(), "origin": origin}
    return {"geometryType": "bitmap", "classTitle": "dog", "bitmap": bits}


def box(label: str, right: float, order: int = 0) -> str:
    """As CVAT writes it."""
    corners = f'xtl="0" ytl="0" xbr="{right}" ybr="4"'
    return f'<box label="{label}" {corners} z_order="{order}"></box>'


def covered(left: float, top: int, runs: str) -> str:
    return f'<mask label="dog" rle="{runs}" left="{left}" top="{top}" width="4" height="2"/>'


KINDS = ("polygon", None, "oriented_rectangle", "rotation", "rectangle")
AREAS = [(labelme, shape(SQUARE, kind)) for kind in KINDS]  # as X-AnyLabeling has the last
AREAS += [(labelme, shape(ends)) for ends in ([[1, 1], [3, 2]], [[3.9, 2.9], [1.9, 1.9]])]
AREAS += [(labelme, shape([[1, 1], [3, 2]], "mask", [[1] * 3] * 2))]
AREAS += [(coco, outline(it)) for it in ([RING], RUNS, [RING, [], [1, 1, 2, 1, 2, 3, 1, 3]])]
AREAS += [(coco, outline(RING))]  # as VIA once wrote one
AREAS += [(coco, outline(RUNS, "5", image_id="1"))]  # numbers and text are one
AREAS += [(supervisely, bitmap(png([[1] * 3] * 2, clear), 1, 1)) for clear in (True, False)]
AREAS += [(supervisely, thing("polygon", SQUARE))]
AREAS += [(supervisely, thing("rectangle", ends)) for ends in ([[1, 1], [3, 2]], [[3, 2], [1, 1]])]
AREAS += [(cvat, '<polygon label="dog" points="1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00"/>')]
AREAS += [(cvat, '<box label="dog" xtl="1.00" ytl="1.00" xbr="4.00" ybr="3.00"></box>')]
TURNED = 'xtl="1.5" ytl="0.5" xbr="3.5" ybr="3.5" rotation="90.0"'
AREAS += [(cvat, f'<box label="dog" {TURNED}/>'), (cvat, covered(0, 1, "1, 3, 1, 3"))]

NOTHING, ALL = [0] * 6, [1] * 6
ROUND = '<ellipse label="dog" cx="3" cy="2" rx="2.8" ry="1" rotation="{}"/>'
TWICE = [[0, 0, 6, 0, 6, 4, 0, 4, 0, 0, 2, 1, 4, 1, 4, 3, 2, 3, 2, 1]]
LARGE, CROWD = [[0, 0, 3, 0, 3, 4, 0, 4]], {"size": [4, 6], "counts": [8, 8, 8]}
SMALL = outline([[0, 0, 1, 0, 1, 4, 0, 4]], 9)
LAYERS = [SMALL, outline(LARGE), outline(CROWD, iscrowd=1)]
NO_CROWD = [[*LAYERS[:2], LAYERS[2] | {key: {}}] for key in ("attributes", "extra")]
HOLE = thing("polygon", [[0, 0], [4, 0], [4, 3], [0, 3]], [[[1, 1], [3, 1], [3, 2], [1, 2]]])
THROUGH = [thing("rectangle", [[2, 0], [5, 3]], label="cow"), HOLE]
BIRD = [[1, 0, 1], [0, 1, 0]]
BIRD_MASK = [NOTHING, [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0], NOTHING]
PLACES = {"dog": (0, 0, 5, 1), "__ignore__": (0, 1, 5, 1), "cow": (1, 0, 1, 3)}
NAMED = [shape([at[:2], at[2:]], label=name) for name, at in PLACES.items()]
DRAWINGS = [
    (labelme, [shape([[2, 1], [3, 1]], "circle")], [[0, 1, 1, 1, 0, 0]] * 3 + [NOTHING]),
    (labelme, [shape([[2, 1], [4, 2]], "mask", BIRD)], BIRD_MASK),
    # Later ones lie on earlier ones, in CVAT by z_order; in COCO small on large, and on crowds.
    (labelme, NAMED, [[2, 1] + [2] * 4, [VOID, 1] + [VOID] * 4] + [[0, 1, 0, 0, 0, 0]] * 2),
    (cvat, [box("dog", 1, 5), box("cow", 2), box("dog", 6, -1)], [[1, 2, 1, 1, 1, 1]] * 4),
    (cvat, [box("cow", 6), box("dog", 2)], [[1, 1, 2, 2, 2, 2]] * 4),
    (coco, LAYERS, [[2, 1, 1, VOID, 0, 0]] * 4),
    *[(coco, it, [[2, 1, 1, 1, 0, 0]] * 4) for it in NO_CROWD],  # CVAT and V7 call each mask so
    # Earlier ones show through holes.
    (supervisely, THROUGH, [[1] * 5 + [2], *[[1, 0, 2, 2, 1, 2]] * 2, [1] * 5 + [2]]),
    (coco, [outline(TWICE)], [ALL, [1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1], ALL]),
    (cvat, [ROUND.format(0)], [NOTHING, [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], NOTHING]),
    (cvat, [ROUND.format(90)], [[0, 0, 1, 1, 0, 0]] * 4),
    # What lies outside is cut off.
    (cvat, [covered(-2, 3, "0, 8")], [NOTHING] * 3 + [[1, 1, 0, 0, 0, 0]]),
    (cvat, [covered(4, 3, "0, 8")], [NOTHING] * 3 + [[0, 0, 0, 0, 1, 1]]),
    *[(cvat, [covered(*at, "0, 8")], [NOTHING] * 4) for at in ((-5, -3), (7, 5))],
    (supervisely, [bitmap(png(BIRD, True), 4, -1)], [[0] * 5 + [1]] + [NOTHING] * 3),
]
DRAWINGS += [(writes, [one], DRAWN) for writes, one in AREAS]


@pytest.mark.parametrize("writes, shapes, mask", DRAWINGS)
def test_areas_equal_a_drawing_by_hand(writes, shapes, mask, tmp_path):
    writes(tmp_path, "a.jpg", shapes=shapes)
    photo(tmp_path / "json" / "ds" / "img" / "a.jpg")
    assert only_mask(writes, tmp_path) == mask


def test_runs_and_polygons_are_as_those_of_pycocotools(tmp_path):
    theirs = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).integers(0, 2, (4, 6))
    runs = theirs.encode(np.asfortranarray(mask, dtype=np.uint8))
    photo(tmp_path / "a.jpg")
    coco(tmp_path, "a.jpg", shapes=[outline(runs | {"counts": runs["counts"].decode()})])
    assert only_mask(coco, tmp_path) == mask.tolist()
    corners = [0.4, 0.3, 5.2, 1.1, 4.9, 3.8, 2.2, 2.4]
    coco(tmp_path, "a.jpg", shapes=[outline([corners])])
    drawn = theirs.decode(theirs.merge(theirs.frPyObjects([corners], 4, 6)))
    assert (np.array(only_mask(coco, tmp_path)) != drawn).sum() <= 2, "on the outline"


def test_a_shape_takes_the_memory_of_its_own_box(tmp_path):
    ring = ellipse((2000, 1500), (10, 10))
    tracemalloc.start()
    for corner, inside in (polygons([ring], (3000, 4000)), outlined(ring, [], (3000, 4000))):
        assert max(inside.shape) <= 22 and corner == (1990, 1490)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    supervisely(tmp_path, "a.jpg", shapes=[bitmap(bytes(3 * 10**8), 0, 0)])
    photo(tmp_path / "a.jpg")
    tracemalloc.reset_peak()
    with pytest.raises(UserError, match="a.jpg.json: not Supervisely JSON as it is known here"):
        only_mask(supervisely, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2.5e8
    tracemalloc.stop()


def test_names_number_themselves_and_a_file_may_say_no_size(tmp_path):
    named = [*NAMED, shape([[5, 0], [5, 3]], label="_background_")]
    path = labelme(tmp_path, "a.jpg", shapes=named)
    photo(tmp_path / "a.jpg")
    path.write_text(path.read_text().replace("imageHeight", "x").replace("imageWidth", "y"))
    assert list(find(labelme, tmp_path).classes) == ["_background_", "cow", "dog"]
    assert [row[5] for row in only_mask(labelme, tmp_path)] == [0] * 4
    listed = dict.fromkeys(["background", "dog"])
    found = only_mask(labelme, tmp_path, classes=listed, unknown=0)
    assert found[:2] == [[1, 0, 1, 1, 1, 0], [VOID, 0, VOID, VOID, VOID, 0]]


@pytest.mark.parametrize("writes", [cvat, supervisely])
def test_classes_have_the_colours_that_the_form_gives_them(writes, tmp_path):
    path = writes(tmp_path, "a.jpg")
    photo(tmp_path / "json" / "ds" / "img" / "a.jpg")
    (tmp_path / "meta.json").write_text('{"version": 3}')  # of another program
    assert find(writes, tmp_path).classes == {"background": None, "dog": (10, 11, 12)}
    if writes is supervisely:  # a folder of a project lacks them
        assert find(writes, path.parents[1]).classes == {"background": None, "dog": None}
        path.unlink()
        assert find(writes, tmp_path) is None
