"""Pictures of masks: exact colours, and pages on which every text is legible whatever the size."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.transforms import Bbox
from PIL import Image, ImageDraw

from data.classes import VOC, VOID, Classes
from data.figures.layers import HEAT, NAMED_FROM, NOT_SCORED, OPACITY, RIGHT, WRONG
from data.figures.overlay import Page, Record, draw_page, overlay, percent
from tests.data.conftest import noise

LONG = {f"a_rather_long_class_name_{index}": (index, 3 * index, 3 * index) for index in range(60)}
MANY = Classes.from_named(LONG)


@pytest.fixture
def spy(monkeypatch):
    """What is written and pasted while a page is drawn: (on which picture, what, box) of each."""
    spy = SimpleNamespace(texts=[], pastes=[])
    write, paste = ImageDraw.ImageDraw.text, Image.Image.paste

    def written(draw, place, words, fill, font, anchor):
        box = Bbox.from_extents(draw.textbbox(place, words, font, anchor))
        spy.texts += [(draw._image, words, box)] if words else []
        write(draw, place, words, fill, font, anchor)

    def pasted(onto, what, place=None, mask=None):
        if place is not None and len(place) == 2:
            spy.pastes.append((onto, what, Bbox.from_bounds(*place, *what.size)))
        paste(onto, what, place, mask)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", written)
    monkeypatch.setattr(Image.Image, "paste", pasted)
    return spy


def page_of(photo: np.ndarray, *masks: np.ndarray | None, classes: Classes = VOC, **facts) -> Page:
    """Of a photo and truth, prediction, confidence, as far as there are any."""
    return draw_page(Record("1", facts.pop("title", "one"), photo, *masks, **facts), classes)


def test_overlay_tints_classes_whitens_void_and_leaves_the_background():
    mask = np.zeros((40, 48), np.uint8)
    mask[4:14, 4:14], mask[20:30, 4:14], mask[20, 30:45], mask[35:, 40:] = 8, 15, 3, VOID
    before = noise(40, 48, 3).astype(float)
    after = np.array(overlay(noise(40, 48, 3), mask, MANY)).astype(float)  # no name fits
    colours = {value: MANY.colours[value] for value in (8, 15, 3)} | {VOID: (255, 255, 255)}
    for value, colour in colours.items():
        expected = (1 - OPACITY) * before + OPACITY * np.array(colour)
        assert abs(after - expected)[mask == value].max() <= 1
    # The outline is outside of a class, so the thin line of class 3 keeps its own pixels.
    padded = np.pad(np.where(mask == VOID, 0, mask), 1)
    near = np.max([padded[y : y + 40, x : x + 48] for y in range(3) for x in range(3)], axis=0) > 0
    outline = (mask == 0) & near
    assert (after[outline] == 255).all()
    untouched = (mask == 0) & ~outline
    assert np.array_equal(after[untouched], before[untouched])


def test_names_are_written_in_the_middle_of_their_class(spy):
    mask = np.zeros((200, 300), np.uint8)
    mask[20:180, 20:160], mask[100:110, 200:210], mask[20:60, 180:280] = 8, 20, 4
    assert (mask == 20).mean() < NAMED_FROM
    overlay(noise(200, 300, 3), mask, VOC)
    names = [words for _, words, _ in spy.texts]
    assert names == ["cat", "boat"], "the largest first; tvmonitor is too small"
    middles = [(box.min + box.max) / 2 for _, _, box in spy.texts]
    assert np.allclose(middles, [(90, 100), (230, 40)], atol=10)
    walls = Classes(("wall", *VOC.names[1:]), ((120, 120, 120), *VOC.colours[1:]))
    changed = np.asarray(overlay(noise(200, 300, 3), mask, walls)) != noise(200, 300, 3)
    assert changed.any(2).mean() > 0.9 and "wall" in {words for _, words, _ in spy.texts}


VALUES = {"few": (VOC, [0, 15]), "voc": (VOC, [*range(21), VOID]), "many": (MANY, [*range(60)])}
TILES = {(16, 16): (320, 320), (500, 375): (500, 375)}  # by the sizes of photos
TILES |= {(2000, 100): (640, 32), (60, 900): (43, 640), (40, 1): (320, 8), (1, 40): (8, 320)}
PAGES = [*(("few", size) for size in TILES), ("voc", (16, 16)), ("voc", (2000, 100))]
PAGES += [("many", (2000, 100)), ("many", (60, 900))]  # small, to be fast


@pytest.mark.parametrize("kind, size", PAGES, ids=str)
@pytest.mark.parametrize("shown", ["both", "prediction", "truth"])
def test_nothing_on_a_page_overlaps_or_leaves_it(kind, size, shown, spy):
    classes, values = VALUES[kind]
    stripe = np.indices(size[::-1])[int(size[0] >= size[1])] * len(values) // max(size)
    truth = np.array(values, dtype=np.uint8)[stripe]  # across the longer side, if there is room
    prediction = np.where(truth == VOID, 0, truth[::-1, ::-1])
    masks = truth if shown != "prediction" else None, prediction if shown != "truth" else None
    facts = {"title": " ".join(40 * ["long title"])}
    if shown != "truth":
        facts["confidence"] = np.full(truth.shape, 0.5, np.float32)
    if shown == "both":
        facts |= {"ious": np.linspace(0, 1, len(classes)), "miou": 0.25}
    page, _, tiles, *_ = page_of(noise(*size[::-1], 3), *masks, classes=classes, **facts)
    assert page.mode == "RGB" and max(page.size) <= 6000
    assert len(tiles) == {"both": 5, "prediction": 3, "truth": 2}[shown]
    assert {tile.size for tile in tiles.values()} == {TILES[size]}
    smooth = Image.fromarray(noise(*size[::-1], 3)).resize(TILES[size], Image.BICUBIC)
    assert np.array_equal(tiles["image"], smooth)
    (*found, legend), pasted = zip(*(one[1:] for one in spy.pastes if one[0] is page))
    assert found == [*tiles.values()]
    for on, what, box in spy.texts + spy.pastes:
        assert (box.min >= 0).all() and (box.max <= on.size).all(), what
    for picture in (page, legend):
        boxes = [box for on, _, box in spy.texts if on is picture]
        boxes += pasted if picture is page else []
        assert not any(one.fully_overlaps(other) for one, other in combinations(boxes, 2))


def test_a_page_tells_shares_and_scores_and_what_its_colours_mean(spy):
    truth, prediction = np.array([[0, 0, 15, VOID]], np.uint8), np.array([[0, 0, 8, 0]], np.uint8)
    sure = np.array([[1, 0.5, 0.25, 0.25]], np.float32)
    ious = np.full(21, np.nan)
    ious[[0, 3, 8]] = 1, 0.5, 0
    page = page_of(noise(1, 4, 3), truth, prediction, sure, ious=ious, miou=0.5)
    assert np.array_equal(page.layers["error"], [[RIGHT, RIGHT, WRONG, NOT_SCORED]])
    assert np.allclose(page.layers["confidence"], 255 * HEAT(sure)[..., :3], atol=1)
    rows = [[row.name, *row.cells] for row in page.legend]
    assert rows == [
        ["pixels in", "ground truth", "prediction", "IoU"],
        ["background", "50.0%", "75.0%", "1.000"],
        ["cat", "-", "25.0%", "0.000"],
        ["person", "25.0%", "-", "-"],
        ["void", "25.0%", "-", "-"],
        *(["right"], ["wrong"], ["not scored"], ["0 % sure"], ["50 % sure"], ["100 % sure"]),
    ]
    expected = {"image", "error 33.3%", "confidence 50.0%", "mIoU 0.500", *sum(rows, [])}
    assert expected <= {words for _, words, _ in spy.texts}
    shares = {0: "-", 1e-6: "<0.1%", 0.00049: "<0.1%", 0.0005: "0.1%", 0.123: "12.3%"}
    assert {share: percent(share) for share in shares} == shares, "few pixels are not none"


@pytest.mark.parametrize("size", [(2000, 1500), (300, 200), (40, 30), (3000, 600)])
def test_strokes_are_opaque_and_thick_and_the_photo_around_them_is_unveiled(size, spy):
    drawn, (width, height) = Image.new("L", size, VOID), size
    for label, y, pen in ((0, 0.1, 3), (15, 0.5, 1), (8, 0.8, 5)):  # do not touch each other
        line = (0.1 * width, y * height, 0.5 * width, y * height)
        ImageDraw.Draw(drawn).line(line, label, pen)
    drawn.putpixel((int(0.8 * width), int(0.3 * height)), 20)
    mask = np.array(drawn)
    page = page_of(noise(*size[::-1], 3), mask, np.zeros_like(mask))
    assert list(page.tiles) == ["image", "labels", "prediction"], "there are no errors to see"
    tile, before = (np.array(page.tiles[name]) for name in ("labels", "image"))
    colours = {row.name: row.colour for row in page.legend[1:-1]}
    assert colours["background"] not in VOC.colours and page.legend[-1].name == "void"
    on_tiles = {words for picture, words, _ in spy.texts if picture.size == tile.shape[1::-1]}
    assert on_tiles.isdisjoint(colours)
    is_stroke = np.zeros(tile.shape[:2], bool)
    for label, name in ((0, "background"), (8, "cat"), (15, "person"), (20, "tvmonitor")):
        own = (tile == colours[name]).all(-1)
        assert own.any(0).sum() >= 3 and own.any(1).sum() >= 3
        assert own[:, own.any(0)].sum(0).min() >= 3 - 2 * (label == 20), "a disc has round ends"
        y, x = (mask == label).nonzero()
        assert own[y * len(own) // size[1], x * own.shape[1] // size[0]].all(), "in its place"
        is_stroke |= own
    click = (tile == colours["tvmonitor"]).all(-1)
    assert click.sum() < click.any(0).sum() * click.any(1).sum(), "no square"
    assert np.array_equal(tile[~is_stroke], before[~is_stroke])


def test_a_click_within_another_stroke_is_seen():
    mask = np.full((1500, 2000), VOID, np.uint8)
    mask[700:704, 100:1900], mask[702, 1000] = 8, 0
    page = page_of(noise(1500, 2000, 3), mask)
    for row in page.legend[1:3]:
        assert (np.array(page.tiles["labels"]) == row.colour).all(-1).sum() > 9
