"""Which class a value or a colour of a mask is, and what the user is told to say about it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC, VOID
from data.formats.class_names import read_class_list
from data.formats.foreign_masks import find_legend, listing, read_mask, survey
from data.formats.source import Options, Source

COLOURS = {"background": (0, 0, 0), "cat": (128, 0, 0), "dog": (0, 128, 0)}
LISTED = {**COLOURS, "void": (9, 9, 9)}
NAMED = dict.fromkeys(COLOURS)
TWO = dict.fromkeys(["background", "cat"])
SNOW = {"ground": (0, 0, 0), "road": (255, 0, 0), "snow": (255, 255, 255)}
NEAREST = {"unknown": VOID, "nearest": True}
BINARY, EDGES = NEAREST | {"values": {0: 0, 255: 1}}, [[0, VOID, 1, 0]]
DEFAULT = {"background": None, "class 1": None, "class 2": None}
INDICES, STROKES = [[0, 1, 2], [2, 1, 0]], [[0, 1, 2], [0, 0, 0]]
LAYER = [[(0, 0, 0, 0), (0, 0, 255, 255), (128, 0, 0, 255), (128, 0, 0, 0)]]  # two are clear
BLUE = {"background": (0, 0, 255), "cat": (128, 0, 0)}
PLANTS = dict.fromkeys(["soil", "root", "leaf"])
PAINTED = np.array(list(COLOURS.values()))[np.array(INDICES)].tolist()


def saved(path: Path, pixels, mode: str = "L", palette: list[int] | None = None) -> Path:
    """A mask of values; RGB: of grey, or of the colours in `pixels`; P: with VOC's, or these."""
    image = Image.fromarray(np.array(pixels, dtype={"I;16": "<u2", "I;16B": ">u2"}.get(mode, "u1")))
    if palette or mode == "P":
        image.putpalette(palette or VOC.palette())
    image = image if image.mode in (mode, "P") else image.convert(mode)
    image.save(path)
    return path


def read(paths: list[Path], listed: dict | None = None, source: Source | None = None, **options):
    """The classes, and the masks as lists; each mask stands for its photo, too."""
    source = source or Source("test", Options(**options))
    found = survey({path.name: (path, path) for path in paths}, source)
    classes, legend = find_legend(found, listed or {}, source, Path("masks"))
    return classes, [read_mask(path, path, legend, source).tolist() for path in paths]


KINDS = [("png", "L"), ("png", "RGB"), ("png", "RGBA"), ("bmp", "L"), ("tif", "L")]
KINDS += [("tif", "RGBA"), ("tif", "I;16B"), ("gif", "L"), ("png", "P")]


@pytest.mark.parametrize("suffix, mode", KINDS)
def test_values_are_class_ids_in_each_kind_of_file(suffix, mode, tmp_path):
    path = saved(tmp_path / f"a.{suffix}", INDICES, mode)
    assert read([path]) == (DEFAULT, [INDICES])


@pytest.mark.parametrize(
    "pixels, mode, listed, options, mask",
    [
        ([[0, 1000]], "I;16", None, {"values": {0: 0, 1000: 1}}, [[0, 1]]),
        ([[0, 2, 255]], "L", NAMED, {}, [[0, 2, VOID]]),
        ([[0, 0, 255]], "L", None, {"values": {}}, [[0, 0, VOID]]),  # hardly ids, but if it is said
        ([[0, 255]], "L", TWO, {}, [[0, 1]]),
        ([[0, 255, 1]], "L", TWO, {}, [[0, VOID, 1]]),
        (PAINTED, "RGBA", LISTED, {}, INDICES),
        ([[(9, 9, 9), (224, 224, 192)]], "RGB", LISTED, {}, [[VOID, VOID]]),  # listed, and VOC's
        ([[(1, 2, 3), (128, 0, 0)]], "RGB", LISTED, {"unknown": 0}, [[0, 1]]),
        (INDICES, "L", LISTED, {}, INDICES),  # values that are no colours
        ([[(0, 0, 0, 0), (0, 0, 0, 255)]], "RGBA", TWO, {}, [[0, 1]]),  # in the alpha channel
        ([[(200, 0, 0, 0), (200, 0, 0, 255)]], "RGBA", TWO, {}, [[0, 1]]),
        ([[0, 255]], "L", SNOW, {}, [[0, 2]]),  # black and white of three, not void
        ([[0, 9, 255]], "L", SNOW, {"unknown": VOID}, [[0, VOID, 2]]),  # with smoothed edges
        ([[0, 1, 77]], "L", LISTED, {"unknown": VOID, "values": {}}, [[0, 1, VOID]]),
        # Strokes lie on what nobody has drawn: a value, or what is transparent.
        (STROKES, "L", PLANTS, {"unlabelled": 0}, [[VOID, 0, 1], [VOID] * 3]),
        (STROKES, "L", None, {"unlabelled": 2}, [[0, 1, VOID], [0, 0, 0]]),
        (STROKES, "L", None, {"unlabelled": "void"}, STROKES),
        (STROKES, "L", None, {"unlabelled": 0, "values": {}}, [[VOID, 1, 2], [VOID] * 3]),
        ([[0, 7, 9]], "L", TWO, {"unlabelled": 0, "values": {7: 1, 9: 0}}, [[VOID, 1, 0]]),
        (LAYER, "RGBA", BLUE, {"unlabelled": "void"}, [[VOID, 0, 1, VOID]]),
        (LAYER, "RGBA", BLUE, {"unlabelled": "background"}, [[0, 0, 1, 0]]),
        ([[(0, 0, 0), (0, 0, 255)]], "RGB", BLUE, {"unlabelled": 0}, [[VOID, 0]]),
        # The limit is half of what is between two colours or values, here between 0 and 9, ..
        ([[(1, 2, 3), (5, 5, 5), (9, 9, 7)]], "RGB", LISTED, NEAREST, [[0, VOID, VOID]]),
        ([[(100, 0, 9), (40, 0, 0), (64, 9, 0)]], "RGB", COLOURS, NEAREST, [[1, 0, VOID]]),
        ([[4, 250, 24, 16]], "L", None, NEAREST | {"values": {0: 0, 40: 1, 255: VOID}}, EDGES),
        # .. and at most 64, where they are far apart: half-way red may be a class of its own.
        ([[(63, 0, 0), (64, 0, 0), (255, 9, 9)]], "RGB", SNOW, NEAREST, [[0, VOID, 1]]),
        ([[0, 63, 64, 192, 255]], "L", None, BINARY, [[0, 0, VOID, 1, 1]]),
        ([[0, 300]], "I;16", SNOW, NEAREST, [[0, VOID]]),
        ([[(224, 224, 192), (222, 0, 0)]], "RGB", SNOW, NEAREST, [[VOID, 1]]),
    ],
)
def test_values_and_colours_are_classes(pixels, mode, listed, options, mask, tmp_path):
    path = saved(tmp_path / "a.png", pixels, mode)
    classes, masks = read([path], listed, **options)
    assert masks == [mask]
    names = listed or list(DEFAULT)[: 1 + max({*sum(mask, [])} - {VOID})]
    assert list(classes) == [name for name in names if name != "void"]


@pytest.mark.parametrize("listed, drawn", [([], [0, 1]), (["cat", "background"], [1, 0])])
def test_where_nobody_has_drawn_0_the_first_class_is_1(listed, drawn, tmp_path):
    path = saved(tmp_path / "a.png", STROKES)
    classes, masks = read([path], dict.fromkeys(listed), unlabelled=0)
    assert [*classes] == (listed[::-1] or ["class 1", "class 2"])
    assert masks == [[[VOID, *drawn], [VOID] * 3]]


def test_colours_decide_where_palettes_differ(tmp_path):
    """As those of programs that sort or shorten the palette of each file."""
    black, *others = ([*colour] for colour in COLOURS.values())
    paths = [saved(tmp_path / f"{it}.png", [[0, 1]], "P", black + it) for it in others]
    assert read(paths, LISTED)[1] == [[[0, 1]], [[0, 2]]]
    with pytest.raises(UserError, match="^masks: nothing says which classes the 3 values or colo"):
        read(paths)
    source = Source("test", Options(values={}))
    assert read(paths, source=source)[1] == [[[0, 1]], [[0, 1]]]
    assert source.notes == {"in doubt: a value has several colours, which --map ignores": ["1"]}


NOTHING = "masks: nothing says which classes the"
GREYS = [*range(0, 251, 10)][:-1] + [255]  # smoothed edges of a mask of 0 and 255


@pytest.mark.parametrize(
    "pixels, listed, options, message",
    [
        ([[0, 255]], None, {}, f"{NOTHING} 2 .*; of values add --map 0=0,255=1 .=void"),
        ([[0, 0]], None, {}, f"{NOTHING} 1 "),
        ([GREYS], TWO, {"unknown": VOID}, f"{NOTHING} 26 .* --map 0=0,255=1 --unknown nearest$"),
        ([[*range(256)]], None, {}, f"{NOTHING} 256 "),
        (PAINTED, NAMED, {}, f"{NOTHING} 3 .*: --list-colours shows"),
        ([[0, 7]], TWO, {}, "PATH: value 7 is of no class; .* --unlabelled 0: .*--unknown void"),
        ([[0, 7]], TWO, {"values": {0: 0, 7: 2}}, "--map: class 2, but the classes are 0..1$"),
        ([[0], [7]], None, {"values": {0: 1}}, "PATH: value 7 is of no class; list it"),
        ([[(1, 2, 3)]], LISTED, {}, "PATH: colour 1 2 3 is of no class; list it"),
        (PAINTED, None, {"values": {0: 0}}, "PATH: colour 0 128 0 is of no class"),
        (PAINTED, {**LISTED, "cow": (0, 128, 0)}, {}, "masks: two of the listed classes have one"),
    ],
)
def test_what_is_not_enough_is_refused_with_what_to_add(pixels, listed, options, message, tmp_path):
    path = saved(tmp_path / "a.png", pixels, "L" if np.ndim(pixels) == 2 else "RGB")
    with pytest.raises(UserError, match="^" + message.replace("PATH", re.escape(str(path)))):
        read([path], listed, **options)


PAGE = Image.new("L", (2, 2))


@pytest.mark.parametrize(
    "page, name, options, message",
    [
        (PAGE, "a.png", {"format": "JPEG"}, "cannot be read as an image"),
        (PAGE.convert("F"), "a.tif", {}, "Pillow calls its kind of pixels F"),
        (PAGE, "a.tif", {"save_all": True, "append_images": [PAGE]}, "has several pages"),
        # as by ImageJ's inverting LUT
        (PAGE, "a.tif", {"tiffinfo": {262: 0}}, "a TIFF in which 0 is white, which inverts it; s"),
    ],
)
def test_files_that_are_no_masks_are_refused(page, name, options, message, tmp_path):
    page.save(tmp_path / name, **options)
    with pytest.raises(UserError, match=f"^{tmp_path / name}: {message}"):
        read([tmp_path / name])


def test_masks_may_be_jpeg_and_how_many_of_their_pixels_are_of_no_class_is_said(tmp_path):
    path, source = tmp_path / "a.jpg", Source("test", Options(values={0: 0}, unknown=VOID))
    Image.fromarray(np.uint8([[0] * 8 + [7] * 8] * 8)).save(path, quality=100)
    assert read([path], source=source)[1] == [[[0] * 8 + [VOID] * 8] * 8]
    assert source.notes == {"pixels of no class": ["a.jpg: 64"]}


@pytest.mark.parametrize("first, doubts", [("wall", ["wall"]), ("background", [])])
def test_a_first_class_that_may_be_what_nobody_has_drawn_is_said(first, doubts, tmp_path):
    path, source = saved(tmp_path / "a.png", [[0, 1]]), Source("test", Options())
    listed = dict.fromkeys([first, "sky"])
    assert read([path], listed, source)[1] == [[[0, 1]]]
    assert sum(source.notes.values(), []) == doubts
    path, source = saved(tmp_path / "a.png", [[1, 2]]), Source("test", Options(unknown=VOID))
    assert read([path], listed, source)[1] == [[[1, VOID]]]
    assert sum(source.notes.values(), []) == [*doubts, "a.png: 1"]


def test_colours_are_listed_with_what_to_write(tmp_path):
    colours = [(10, 20, 30)] * 1500 + [(1, 2, 3)] * 499 + [(9, 9, 9)]  # the last a mixture
    path = saved(tmp_path / "a.png", [colours], "RGB")
    found = survey({"a": (path, path)}, Source("test", Options()))
    text = listing(found, Path("mine/classes.txt"))
    head, _, *classes = text.splitlines()
    assert "3 colours" in head and "mine/classes.txt" in head
    assert classes == ["background 10 20 30", "class 1 1 2 3", "# 0.050% are 9 9 9"]
    (tmp_path / "classes.txt").write_text(text)  # as it is
    assert [*read_class_list(tmp_path / "classes.txt")] == ["background", "class 1"]


@pytest.mark.parametrize("clear", [2, b"\xff\xff\0"])
def test_where_another_index_than_0_is_transparent_colours_tell(clear, tmp_path):
    path = saved(tmp_path / "a.png", [[0, 1, 2]], palette=[255, 0, 0, 0, 0, 255, 0, 0, 0])
    with Image.open(path) as image:
        image.save(path, transparency=clear)
    listed = {"cat": (255, 0, 0), "dog": (0, 0, 255)}
    assert read([path], listed, unlabelled=0)[1] == [[[0, 1, VOID]]]
    with Image.open(saved(path, [[0, 1, 1]], palette=[0, 0, 0, 9, 9, 9, 0, 0, 0])) as image:
        for other in (clear, 0):  # one is nowhere, the other no class
            image.save(path, transparency=other)
            assert read([path], dict.fromkeys(["cat"]), unlabelled=0)[1] == [[[VOID, 0, 0]]]
