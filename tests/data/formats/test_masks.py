"""Which class a value or a colour of a mask is, and what the user is told to say about it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC, VOID
from data.formats.masks import find_legend, listing, survey
from data.formats.source import ClassList, Options

COLOURS = {"background": (0, 0, 0), "cat": (128, 0, 0), "dog": (0, 128, 0)}
LISTED = ClassList(COLOURS, void=((9, 9, 9),))
NAMED = ClassList(dict.fromkeys(COLOURS))
TWO = ClassList(dict.fromkeys(["background", "cat"]))
INDICES = [[0, 1, 2], [2, 1, 0]]


def saved(path: Path, pixels, mode: str = "L", palette: list[int] | None = None) -> Path:
    """A mask of values; mode RGB: of grey, or of the colours that `pixels` holds."""
    image = Image.fromarray(np.array(pixels, dtype=np.uint16 if mode == "I;16" else np.uint8))
    if palette:
        image.putpalette(palette)
    image = image if image.mode in (mode, "P") else image.convert(mode)
    image.save(path)
    return path


def colours(indices) -> list:
    return np.array(list(COLOURS.values()))[np.array(indices)].tolist()


def read(paths: list[Path], listed: ClassList | None = None, **options):
    """The classes, and the masks as lists."""
    classes, legend = find_legend(survey(paths), listed, Options(**options), Path("masks"))
    return classes, [legend.read(path).tolist() for path in paths]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_values_are_class_ids_in_each_kind_of_file(suffix, mode, tmp_path):
    path = saved(tmp_path / f"a.{suffix}", INDICES, "L" if suffix in ("gif", "bmp") else mode)
    classes, masks = read([path])
    assert classes == {"background": None, "class 1": None, "class 2": None}
    assert masks == [INDICES]


def test_values_of_16_bits_are_read_whole(tmp_path):
    path = saved(tmp_path / "a.png", [[0, 1000]], "I;16")
    assert read([path], values={0: 0, 1000: 1})[1] == [[[0, 1]]]


def test_255_is_void_and_names_are_those_listed(tmp_path):
    path = saved(tmp_path / "a.png", [[0, 2, VOID]])
    assert read([path], NAMED) == (NAMED.classes, [[[0, 2, VOID]]])


def test_a_palette_gives_the_colours_of_its_values(tmp_path):
    paths = [
        saved(tmp_path / "a.png", [[0, 1]], palette=VOC.palette()),
        saved(tmp_path / "b.png", [[0, 2, VOID]], palette=VOC.palette()),
    ]
    classes, masks = read(paths)
    expected = dict(zip(["background", "class 1", "class 2"], VOC.colours))
    assert (classes, masks) == (expected, [[[0, 1]], [[0, 2, VOID]]])
    assert read(paths, NAMED)[0] == dict(zip(COLOURS, VOC.colours))


def test_a_grey_palette_gives_no_colours(tmp_path):
    path = saved(tmp_path / "a.png", [[0, 1]], palette=[value // 3 for value in range(768)])
    assert read([path])[0] == {"background": None, "class 1": None}


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_those_of_the_listed_classes(mode, tmp_path):
    void = [(9, 9, 9), (9, 9, 9), (224, 224, 192)]  # the last is VOC's
    path = saved(tmp_path / "a.png", [*colours(INDICES), void], mode)
    assert read([path], LISTED) == (COLOURS, [[*INDICES, [VOID] * 3]])


def test_colours_decide_where_palettes_differ(tmp_path):
    """As those of programs that sort or shorten the palette of each file."""
    black, red, green = ([*colour] for colour in COLOURS.values())
    paths = [
        saved(tmp_path / "a.png", [[0, 1]], palette=black + red),
        saved(tmp_path / "b.png", [[0, 1]], palette=black + green),
    ]
    assert read(paths, LISTED)[1] == [[[0, 1]], [[0, 2]]]
    message = f"{paths[1]}: a value has another colour in its palette than in those before"
    with pytest.raises(UserError, match=re.escape(message)):
        read(paths)
    assert read(paths, values={})[1] == [[[0, 1]], [[0, 1]]]


def test_a_black_mask_may_be_grey_among_masks_in_colour(tmp_path):
    paths = [
        saved(tmp_path / "a.png", colours(INDICES), "RGB"),
        saved(tmp_path / "b.png", [[0, 0]], "1"),
    ]
    assert read(paths, LISTED)[1] == [INDICES, [[0, 0]]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_may_be_a_colour(mode, tmp_path):
    """Black and white of three listed colours are those, not class 0 and void."""
    listed = ClassList({"ground": (0, 0, 0), "road": (255, 0, 0), "snow": (255, 255, 255)})
    path = saved(tmp_path / "a.png", [[0, 255]], mode)
    assert read([path], listed)[1] == [[[0, 2]]]


def test_values_are_no_colours_where_these_are_not_listed(tmp_path):
    path = saved(tmp_path / "a.png", INDICES)
    assert read([path], LISTED)[1] == [INDICES]


def test_a_map_gives_values_their_classes(tmp_path):
    path = saved(tmp_path / "a.png", [[0, 128, 255]])
    values = {0: 0, 255: 1, 128: VOID}
    assert read([path], values=values) == ({"background": None, "class 1": None}, [[[0, VOID, 1]]])
    assert read([path], TWO, values=values)[0] == TWO.classes
    with pytest.raises(UserError, match=r"^--map: class 7, but the classes are 0\.\.1$"):
        read([path], TWO, values={0: 0, 255: 7})
    with pytest.raises(UserError, match="value 128 at x=1, y=0 is of no class; add it to --map"):
        read([path], values={0: 0, 255: 1})


def test_two_listed_classes_may_be_0_and_255(tmp_path):
    paths = [saved(tmp_path / "a.png", [[0, 255]]), saved(tmp_path / "b.png", [[0, 0]])]
    assert read(paths, TWO) == (TWO.classes, [[[0, 1]], [[0, 0]]])
    paths.append(saved(tmp_path / "c.png", [[0, 1]]))
    assert read(paths, TWO)[1] == [[[0, VOID]], [[0, 0]], [[0, 1]]], "then 255 is void"


@pytest.mark.parametrize(
    "values, held, flag",
    [
        ([0, 255], "0, 255", "--map 0=0,255=1"),
        ([0, 38, 75], "0, 38, 75", "--map 0=0,38=1,75=2"),
        ([0, 0], "0", "--map 0=0"),
        ([255, 255], "255", "--map 255=0"),
        (
            list(range(0, 120, 10)),
            "0, 10, 20, 30, 40, 50, 60, 70, 80, 90 and 2 more",
            "--map 0=0,10=1,20=2,30=3,40=4,50=5,60=6,70=7,80=8,90=9,..",
        ),
    ],
)
def test_values_that_are_hardly_ids_are_not_guessed(values, held, flag, tmp_path):
    path = saved(tmp_path / "a.png", [values])
    message = f"masks: the masks hold {held}, which do not look like class ids; if they are"
    with pytest.raises(UserError, match=re.escape(f"{message} classes, add {flag} (=void")):
        read([path])
    assert read([path], values={})[1] == [[values]], "unless the user insists"


UNLISTED = [
    ([[(0, 0, 0), (0, 0, 0)], [(128, 0, 0), (7, 8, 9)]], LISTED, "colour 7 8 9 at x=1, y=1"),
    ([[0, 0], [2, 3]], NAMED, "value 3 at x=1, y=1"),
]


@pytest.mark.parametrize("pixels, listed, name", UNLISTED)
def test_what_is_of_no_class_is_refused_with_its_place(pixels, listed, name, tmp_path):
    path = saved(tmp_path / "a.png", pixels, "RGB" if listed is LISTED else "L")
    with pytest.raises(UserError, match=re.escape(f"{path}: {name} is of no class; ")):
        read([path], listed)


@pytest.mark.parametrize("pixels, listed, name", UNLISTED)
@pytest.mark.parametrize("unknown", [0, VOID])
def test_or_becomes_what_the_user_says(unknown, pixels, listed, name, tmp_path):
    path = saved(tmp_path / "a.png", pixels, "RGB" if listed is LISTED else "L")
    assert read([path], listed, unknown=unknown)[1][0][1][1] == unknown


def test_colours_without_a_list_are_refused(tmp_path):
    path = saved(tmp_path / "a.png", colours(INDICES), "RGB")
    for listed in (None, NAMED):
        with pytest.raises(UserError, match=re.escape(f"{path}: has colours, and nothing says")):
            read([path], listed)
    with pytest.raises(UserError, match="--map, which is about values, cannot be used"):
        read([path], values={0: 0})


def test_what_cannot_be_read_is_passed_over_on_request(tmp_path):
    paths = [saved(tmp_path / "a.png", [[0, 3]]), tmp_path / "gone.png"]
    with pytest.raises(UserError, match="gone.png: no such file"):
        survey(paths)
    assert survey(paths, skip_bad=True).values == {0, 3}


def test_a_jpeg_is_refused_whatever_it_is_called(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(UserError, match="a.png: JPEG and WebP change the values along every edge"):
        survey([tmp_path / "a.png"])


def test_kinds_of_pixels_that_are_no_masks_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("F", (2, 2)).save(path)
    with pytest.raises(UserError, match=re.escape(f"{path}: Pillow calls its kind of pixels F")):
        survey([path])


def test_colours_are_listed_with_what_to_write(tmp_path):
    paths = [
        saved(tmp_path / "a.png", [[(10, 20, 30)] * 3 + [(1, 2, 3)]], "RGB"),
        saved(tmp_path / "b.png", [[(10, 20, 30)] * 4], "RGB"),
    ]
    assert listing(survey(paths), Path("data/classes.txt")).splitlines() == [
        "     colour      share   images",
        " 10  20  30   87.500 %        2",
        "  1   2   3   12.500 %        1",
        "write to data/classes.txt, the background first, with names of yours;",
        "pixels of no class have the name void:",
        "background 10 20 30",
        "class 1 1 2 3",
    ]


def test_values_are_listed_with_what_to_add(tmp_path):
    path = saved(tmp_path / "a.png", [[0, 0, 0, 255]])
    assert listing(survey([path]), Path("classes.txt")).splitlines() == [
        "      value      share   images",
        "          0   75.000 %        1",
        "        255   25.000 %        1",
        "a class id, or void, for each value: --map 0=0,255=1",
    ]


def test_the_colours_of_voc_and_smoothed_edges_are_noticed(tmp_path):
    path = saved(tmp_path / "a.png", [VOC.colours], "RGB")
    assert "add --classes voc" in listing(survey([path]), Path("classes.txt"))
    path = saved(tmp_path / "b.png", [[(value, 0, 0) for value in range(50)]], "RGB")
    text = listing(survey([path]), Path("classes.txt"))
    assert "and 10 more; so many come from edges" in text and "--classes voc" not in text
