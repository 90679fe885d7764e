"""Pictures of masks: exact colours, and pages on which every text is legible whatever the size."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data.classes import VOC, VOID, Classes
from data.figures.overlay import (
    NAMED_FROM,
    NOT_SCORED,
    RIGHT,
    WRONG,
    colour_mask,
    error_map,
    font,
    heat_map,
    overlay,
    panel,
    percent,
)

SIZES = [(16, 16), (64, 48), (500, 375), (4000, 3000), (2000, 100), (60, 900), (40, 1), (1, 40)]
MANY = Classes(
    tuple(f"a_rather_long_class_name_{index}" for index in range(60)),
    tuple((index, 9, 99) for index in range(60)),
)


class Text(NamedTuple):
    """A text as it was drawn: on which picture, and what it covers there."""

    picture: Image.Image
    text: str
    box: tuple[float, float, float, float]


class Drawn:
    """What was written and pasted while a page was drawn."""

    def __init__(self):
        self.texts: list[Text] = []
        self.pastes: list[tuple[Image.Image, Image.Image, tuple[int, int]]] = []

    def words(self) -> list[str]:
        return [text.text for text in self.texts]

    def on(self, page: Image.Image) -> list[tuple[str, tuple]]:
        """(text, box) of each text on the page or on a picture that was pasted there."""
        found = []
        for picture, text, (x0, y0, x1, y1) in self.texts:
            for x, y in [(0, 0)] if picture is page else self.places(page, picture):
                found.append((text, (x0 + x, y0 + y, x1 + x, y1 + y)))
        return found

    def places(self, page: Image.Image, picture: Image.Image) -> list[tuple[int, int]]:
        return [place for onto, what, place in self.pastes if onto is page and what is picture]

    def areas(self, page: Image.Image) -> list[tuple[int, int, int, int]]:
        """The boxes of what was pasted on the page."""
        found = [(what, place) for onto, what, place in self.pastes if onto is page]
        return [(x, y, x + what.width, y + what.height) for what, (x, y) in found]


@pytest.fixture
def spy(monkeypatch) -> Drawn:
    drawn, make, paste = Drawn(), ImageDraw.Draw, Image.Image.paste

    def spied(picture):
        draw = make(picture)
        write = draw.text

        def text(place, words, fill, font, anchor):
            if words:
                drawn.texts.append(Text(picture, words, draw.textbbox(place, words, font, anchor)))
            write(place, words, fill, font, anchor)

        draw.text = text
        return draw

    def pasted(onto, what, place=None, mask=None):
        drawn.pastes.append((onto, what, place))
        paste(onto, what, place, mask)

    monkeypatch.setattr(ImageDraw, "Draw", spied)
    monkeypatch.setattr(Image.Image, "paste", pasted)
    return drawn


def photo(width: int = 48, height: int = 40) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def stripes(width: int, height: int, values: list[int]) -> np.ndarray:
    """A mask with a stripe of each value across its longer side, as far as there is room."""
    shape = height, width
    place = np.indices(shape)[int(width >= height)] * len(values) // max(shape)
    return np.array(values, dtype=np.uint8)[place]


def overlaps(first: tuple, second: tuple) -> bool:
    across = min(first[2], second[2]) > max(first[0], second[0])
    return across and min(first[3], second[3]) > max(first[1], second[1])


def contains(outer: Image.Image, box: tuple) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= outer.width and box[3] <= outer.height


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_colour_mask_keeps_the_ids_in_a_png(dtype, tmp_path):
    mask = np.array([[0, 1, 20], [VOID, 15, 0]], dtype=dtype)
    colour_mask(mask, VOC).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(picture, mask)
        colours = np.array(picture.convert("RGB"))
    assert colours[1].tolist() == [[224, 224, 192], list(VOC.colours[15]), [0, 0, 0]]


@pytest.mark.parametrize("opacity", [0.0, 0.55, 1.0])
def test_overlay_tints_classes_whitens_void_and_leaves_the_background(opacity):
    mask = np.zeros((40, 48), np.uint8)
    mask[4:14, 4:14], mask[20:30, 4:14], mask[20, 30:45], mask[35:, 40:] = 8, 15, 3, VOID
    before = np.array(photo()).astype(float)
    after = np.array(overlay(photo(), mask, MANY, opacity)).astype(float)  # no name fits
    colours = {value: MANY.colours[value] for value in (8, 15, 3)} | {VOID: (255, 255, 255)}
    for value, colour in colours.items():
        expected = (1 - opacity) * before + opacity * np.array(colour)
        assert abs(after - expected)[mask == value].max() <= 1
    # The outline is outside of a class, so the thin line of class 3 keeps its own pixels.
    padded = np.pad(np.where(mask == VOID, 0, mask), 1)
    near = np.max([padded[y : y + 40, x : x + 48] for y in range(3) for x in range(3)], axis=0) > 0
    outline = (mask == 0) & near
    assert (after[outline] == 255).all()
    untouched = (mask == 0) & ~outline
    assert np.array_equal(after[untouched], before[untouched])


def test_between_two_classes_the_lower_one_carries_the_outline():
    mask = stripes(48, 40, [15, 3])
    after = np.array(overlay(Image.new("RGB", (48, 40)), mask, VOC, opacity=1.0))
    assert mask[0, 23] == 15 and mask[0, 24] == 3
    assert after[0, 23].tolist() == list(VOC.colours[15])
    assert after[0, 24].tolist() == [255, 255, 255]
    assert after[0, 25].tolist() == list(VOC.colours[3])


@pytest.mark.parametrize("value", [0, VOID])
def test_overlay_of_one_value_has_neither_outline_nor_name(value, spy):
    after = np.array(overlay(photo(), np.full((40, 48), value, np.uint8), VOC, opacity=0.0))
    assert np.array_equal(after, photo())
    assert not spy.texts


def test_names_are_written_at_the_deepest_point_of_their_class(spy):
    mask = np.zeros((200, 300), np.uint8)
    mask[20:180, 20:160], mask[100:110, 200:210], mask[20:60, 180:280] = 8, 20, 4
    assert (mask == 20).mean() < NAMED_FROM
    overlay(photo(300, 200), mask, VOC)
    assert spy.words() == ["cat", "boat"], "the largest first; tvmonitor is too small"
    for (_, name, box), middle in zip(spy.texts, ((90, 100), (230, 40))):
        found = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        assert np.allclose(found, middle, atol=10), name


def test_names_lie_inside_the_picture_and_do_not_overlap(spy):
    mask = np.zeros((60, 200), np.uint8)
    mask[:, :3], mask[:, -3:], mask[:50, 80:120], mask[50:52, 80:120] = 16, 20, 8, 4
    picture = overlay(photo(200, 60), mask, VOC)
    assert sorted(spy.words()) == ["boat", "cat", "pottedplant", "tvmonitor"]
    assert all(contains(picture, text.box) for text in spy.texts)
    assert not [pair for pair in combinations(spy.texts, 2) if overlaps(pair[0].box, pair[1].box)]


def test_a_name_is_left_out_where_it_would_overlap_another(spy):
    mask = np.full((28, 70), 8, np.uint8)
    mask[12:15, 30:40] = 4
    overlay(photo(70, 28), mask, VOC)
    assert spy.words() == ["cat"]
    spy.texts.clear()
    overlay(photo(70, 28), np.where(mask == 4, mask, 0), VOC)
    assert spy.words() == ["boat"]  # on its own it is written


def test_a_heat_map_grows_lighter_from_0_to_1():
    probabilities = np.linspace(0, 1, 50, dtype=np.float32)[None]
    assert np.array(heat_map(probabilities)).shape == (1, 50, 3)
    lightness = np.array(heat_map(probabilities).convert("L")).astype(int)[0]
    assert (np.diff(lightness) > 0).all() and lightness[-1] - lightness[0] > 150


def test_error_map_has_its_three_colours():
    target = np.array([[0, 1, VOID], [20, 5, VOID]])
    prediction = np.array([[0, 2, 0], [20, 0, VOID]])
    expected = [[RIGHT, WRONG, NOT_SCORED], [RIGHT, WRONG, NOT_SCORED]]
    assert np.array_equal(error_map(prediction, target), np.array(expected))
    assert len({RIGHT, WRONG, NOT_SCORED}) == 3


VALUES = {
    "few": (VOC, [0, 15]),
    "voc": (VOC, [*range(21), VOID]),
    "many": (MANY, [*range(60), VOID]),
}
PAGES = [("few", size) for size in SIZES]
PAGES += [("voc", size) for size in ((16, 16), (2000, 100))]
PAGES += [("many", size) for size in ((2000, 100), (60, 900))]  # on small tiles, to be fast


def in_words(value: str | tuple[int, int]) -> str:
    return value if isinstance(value, str) else "{}x{}".format(*value)


@pytest.mark.parametrize("kind, size", PAGES, ids=in_words)
@pytest.mark.parametrize("shown", ["both", "prediction", "truth"])
def test_nothing_on_a_page_overlaps_or_leaves_it(kind, size, shown, spy):
    classes, values = VALUES[kind]
    target = stripes(*size, values)
    prediction = np.where(target == VOID, 0, target[::-1, ::-1])
    scores = {value: None if value % 3 else value / 300 for value in values if value != VOID}
    arguments = {"prediction": prediction, "title": " ".join(40 * ["long\ntitle"])}
    arguments["confidence"] = np.full(target.shape, 0.5, np.float32)
    if shown == "both":
        arguments |= {"target": target, "scores": scores, "miou": 0.25}
    if shown == "truth":
        arguments |= {"target": target, "prediction": None, "confidence": None}
    page, tiles, _ = panel(photo(*size), classes=classes, **arguments)
    assert page.mode == "RGB"
    assert max(page.size) <= 6000
    assert len(tiles) == {"both": 5, "prediction": 3, "truth": 2}[shown]
    assert set(tiles.values()) <= set(spy.areas(page))
    texts, areas = spy.on(page), spy.areas(page)
    assert all(contains(page, area) for area in areas)
    assert all(contains(page, box) for _, box in texts)
    cut_off = [(text, box) for picture, text, box in spy.texts if not contains(picture, box)]
    assert cut_off == [], "before it is pasted"
    assert not [pair for pair in combinations(areas, 2) if overlaps(*pair)]
    assert not [(a, b) for (a, p), (b, q) in combinations(texts, 2) if overlaps(p, q)]
    own = [box for picture, _, box in spy.texts if picture is page]
    assert not [box for box in own if any(overlaps(box, area) for area in areas)]


@pytest.mark.parametrize(
    "size, tile", [((64, 48), (320, 240)), ((400, 300), (400, 300)), ((2000, 1500), (640, 480))]
)
def test_a_page_has_two_tiles_or_four_of_320_to_640_px(size, tile, spy):
    mask = stripes(*size, [0, 15])
    for prediction, target, captions in (
        (mask, None, ["image", "prediction"]),
        (None, mask, ["image", "ground truth"]),
        (mask, mask, ["image", "ground truth", "prediction", "error 0.0%"]),
    ):
        spy.texts.clear(), spy.pastes.clear()
        page, tiles, _ = panel(photo(*size), prediction, VOC, target)
        own = [words for picture, words, _ in spy.texts if picture is page]
        assert own == captions
        assert list(tiles) == [caption.removesuffix(" 0.0%") for caption in captions]
        cut = {name: page.crop(box) for name, box in tiles.items()}
        assert {picture.size for picture in cut.values()} == {tile}
        assert np.array_equal(cut["image"], photo(*size).resize(tile, Image.Resampling.BICUBIC))
        if "error" in cut:
            assert np.array_equal(cut["error"], Image.new("RGB", tile, RIGHT))
            assert np.array_equal(cut["ground truth"], cut["prediction"])
            assert not np.array_equal(cut["ground truth"], cut["image"])


def test_the_confidence_is_a_last_tile_with_its_mean_and_a_scale(spy):
    top = np.array([[1.0, 0.5], [0.25, 0.25]], np.float32).repeat(200, 0).repeat(200, 1)
    page, tiles, _ = panel(photo(400, 400), np.zeros((400, 400), np.uint8), VOC, confidence=top)
    assert list(tiles) == ["image", "prediction", "confidence"]
    assert {"confidence 50.0%", "0%", "100%"} <= set(spy.words())
    tile, colours = page.crop(tiles["confidence"]), heat_map(np.array([[1, 0.25]]))
    assert tile.getpixel((50, 50)) == colours.getpixel((0, 0))
    assert tile.getpixel((50, 350)) == colours.getpixel((1, 0))


def test_the_error_caption_gives_the_share_of_the_labelled_pixels(spy):
    target = np.array([[0, 0, 0, 1], [VOID, VOID, VOID, VOID]], np.uint8)
    panel(photo(4, 2), np.array([[0, 0, 0, 2], [1, 1, 1, 1]]), VOC, target)
    assert "error 25.0%" in spy.words()
    spy.texts.clear()
    panel(photo(4, 2), target, VOC, np.full((2, 4), VOID))
    assert "error" in spy.words()


def legend(spy, columns: int) -> list[list[str]]:
    """The lines of a legend of few classes, each as its cells."""
    drawn = next(text.picture for text in spy.texts if text.text == "pixels in")
    words = [text.text for text in spy.texts if text.picture is drawn]
    return [words[start : start + columns] for start in range(0, len(words), columns)]


def test_the_legend_lists_the_classes_that_occur_with_share_and_iou(spy):
    target = np.array([[0, 0, 15, VOID]], np.uint8).repeat(2, 0)
    prediction = np.array([[0, 0, 8, 0]]).repeat(2, 0)
    scores = {0: 1.0, 8: 0.0, 15: None, 3: 0.5}
    page = panel(photo(4, 2), prediction, VOC, target, scores=scores, miou=0.5)
    assert legend(spy, columns=4) == [
        ["pixels in", "ground truth", "prediction", "IoU"],
        ["background", "50.0%", "75.0%", "1.000"],
        ["cat", "-", "25.0%", "0.000"],
        ["person", "25.0%", "-", "-"],
        ["void", "25.0%", "-", "-"],
    ]
    assert [row.label for row in page.classes] == [0, 8, 15, VOID]
    assert page.classes[2].shares == {"ground truth": 0.25, "prediction": 0.0}
    assert page.classes[2].iou is None
    assert "mIoU 0.500" in spy.words()


@pytest.mark.parametrize("shown", ["prediction", "ground truth"])
def test_the_legend_of_one_mask_has_its_shares_only(shown, spy):
    mask = np.array([[0, 0, 0, 20]]).repeat(2, 0)
    prediction, target = (mask, None) if shown == "prediction" else (None, mask)
    panel(photo(4, 2), prediction, VOC, target)
    expected = [["pixels in", shown], ["background", "75.0%"], ["tvmonitor", "25.0%"]]
    assert legend(spy, columns=2) == expected
    assert not any(words.startswith("mIoU") for words in spy.words())


@pytest.mark.parametrize(
    "share, words",
    [(0, "-"), (1e-6, "<0.1%"), (0.00049, "<0.1%"), (0.0005, "0.1%"), (0.123, "12.3%")],
)
def test_few_pixels_are_not_none(share, words):
    assert percent(share) == words


def test_a_title_is_written_on_one_line(spy):
    panel(photo(), np.zeros((40, 48), np.uint8), VOC, title="two\n lines ")
    assert "two lines" in spy.words()


def test_a_title_that_is_too_long_ends_in_an_ellipsis(spy):
    title = "".join(map(str, range(200)))
    panel(photo(), np.zeros((40, 48), np.uint8), VOC, title=title)
    (short,) = [words for words in spy.words() if words.endswith("…")]
    assert title.startswith(short[:-1]) and len(short) > 20


@pytest.mark.parametrize("letter", "aöŁжΩ→")
def test_letters_of_many_alphabets_are_no_boxes(letter):
    missing = font(20).getmask("\uffff")
    assert bytes(font(20).getmask(letter)) != bytes(missing)


def test_what_is_drawn_is_not_changed():
    picture, mask, target = photo(), stripes(48, 40, [0, 15, 8]), stripes(48, 40, [0, VOID])
    copies = np.array(picture), mask.copy(), target.copy()
    for array in (mask, target):
        array.flags.writeable = False
    panel(picture, mask, VOC, target)
    overlay(picture, mask, VOC)
    assert all(np.array_equal(*pair) for pair in zip((picture, mask, target), copies))
