"""The gallery, a file that needs nothing but the pages beside it, and the contact sheet."""

import html
import io
import json
import re
from contextlib import ExitStack
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOC, VOID
from data.figures.gallery import INDEX, Picture, check_place, contact_sheet, gallery
from data.figures.overlay import panel
from tests.data.figures.browser import Browser, installed

NASTY = "a\"b'c<i>&amp; {{cards}} #1?%20.x"
FACTS = {"images": "5 of <them>", "views": "one"}
SEEN = {"cat": (8, 0.5), "dog": (12, 0.1), NASTY: (12, 0.9), "horse 2": (13, None), "sky": (0, 0.7)}
WORST_FIRST = ["dog", "cat", "sky", NASTY, "horse 2"]


def drawn(
    name: str, label: int, miou: float | None, alone: str | None = None
) -> tuple[Image.Image, Picture]:
    """A page of a blue photo with a red mask, and what the gallery keeps of it.

    It has ground truth and prediction, or one of them `alone`.
    """
    photo, prediction = Image.new("RGB", (80, 60), "blue"), np.full((60, 80), label, np.uint8)
    target = np.full_like(prediction, VOID) if miou is None and not alone else prediction
    prediction = None if alone == "ground truth" else prediction
    target = None if alone == "prediction" else target
    scores = {label: 0.25} if miou else None
    page = panel(photo, prediction, VOC, target, name, scores, miou)
    page.picture.paste("red", page.tiles[alone or "prediction"])
    return page.picture, Picture.of(name, name, page, miou)


class Cards(HTMLParser):
    """The thumbnails' links on a page, as they are in the file."""

    def __init__(self, page: str):
        super().__init__()
        self.links, self.elements = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if ("class", "card") in attributes:
            self.links.append(dict(attributes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A gallery with its pages."""
    folder, pictures = tmp_path_factory.mktemp("a gallery #1"), []
    for name, (label, miou) in SEEN.items():
        page, picture = drawn(name, label, miou)
        page.save(folder / f"{name}.png")
        pictures.append(picture)
    (folder / INDEX).write_text(gallery(pictures, "Seen <b>", FACTS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = installed()
    if program is None:
        pytest.skip("Chromium is not installed here: the gallery is tested in it")
    with ExitStack() as stack:
        page = tmp_path_factory.mktemp("plain") / "page.html"
        page.write_text("<title>seen</title>")
        try:
            browser = stack.enter_context(Browser(program))
            browser.open(page)
            assert browser.run("document.title") == "seen"
        except (
            AssertionError,
            OSError,
        ) as error:  # some come without a pipe, or may not read this folder
            pytest.skip(f"{program} does not open even a plain page from disk here: {error}")
        yield browser


@pytest.fixture
def browser(chromium, folder):
    """With the gallery open."""
    chromium.resize(1280, 800)
    chromium.open(folder / INDEX)
    yield chromium
    assert chromium.said == []
    assert all(address.startswith(("data:", folder.as_uri())) for address in chromium.asked)


LOADED = "['under', 'over'].every(id => get(id).firstChild.naturalWidth > 1000)"
SHOWN = "[...document.querySelectorAll('#cards li:not([hidden]) .card')]"
NAMES = f"{SHOWN}.map(card => pictures.get(card).name)"
FOCUS = "pictures.get(document.activeElement)?.name ?? document.activeElement.id"
TITLE = "get('view').open && get('title').textContent"


def choose(browser, selector: str, value: str) -> None:
    element = f"get('{selector}')"
    browser.run(f"{element}.value = {json.dumps(value)}")
    browser.run(f"{element}.dispatchEvent(new Event('change'))")


def test_the_file_lists_the_pictures_worst_first_with_all_names_escaped(folder):
    page = (folder / INDEX).read_text(encoding="utf-8")
    links = Cards(page).links
    assert [json.loads(link["data-picture"])["name"] for link in links] == WORST_FIRST
    assert all(re.fullmatch(r"[\w%.]+\.png", link["href"]) for link in links)
    assert (
        "<i>" not in page and "<b>&lt;" not in page.split("</head>")[0] and "Seen &lt;b&gt;" in page
    )
    assert "<dt>images</dt><dd>5 of &lt;them&gt;</dd>" in page
    assert "mIoU 0.900" in page and page.count("<em>mIoU") == 4
    options = re.findall(r'<option value="(.*?)">(.*?)</option>', page)
    assert options[:4] == [
        ("", "all"),
        ("cat", "cat (1)"),
        ("dog", "dog (2)"),
        ("worst", "worst first"),
    ]
    assert html.unescape(page).count(NASTY) >= 3


def test_the_file_asks_the_network_for_nothing(folder):
    page = (folder / INDEX).read_text(encoding="utf-8")
    text = re.sub(r"base64,[\w+/=]*", "", page).replace("  // ", "")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert not {"link", "iframe", "object"} & set(Cards(page).elements)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("alone", ["prediction", "ground truth"])
def test_pictures_of_one_mask_are_filtered_by_it_and_have_no_score(alone):
    pictures = [drawn(name, label, None, alone)[1] for name, label in (("b", 8), ("a", 12))]
    page = gallery(pictures, "Own", {})
    known = [json.loads(link["data-picture"]) for link in Cards(page).links]
    assert [(picture["name"], picture["classes"], picture["columns"]) for picture in known] == [
        ("a", ["dog"], [alone]),
        ("b", ["cat"], [alone]),
    ]
    assert f'alt="{alone} for a"' in page, "the thumbnail"
    with Image.open(io.BytesIO(pictures[0].thumbnail)) as thumbnail:
        assert thumbnail.getpixel((160, 120)) == pytest.approx((255, 0, 0), abs=3)
    assert "mIoU 0" not in page and '"worst"' not in page.split("<script>")[0]


def test_a_gallery_is_replaced_but_nothing_of_the_users_own(tmp_path):
    mine, ours = tmp_path / "mine", tmp_path / "ours"
    mine.mkdir(), ours.mkdir()
    (ours / INDEX).write_text(gallery([], "Seen", {}))
    (ours / ".DS_Store").touch()
    photo = tmp_path / "cat.jpg"
    for place in (ours, mine, tmp_path / "new"):
        check_place(place, False, ["cat"], [photo])
    (mine / INDEX).write_text("<title>my own page</title>")
    for place, names, photos, words in (
        (tmp_path, ["cat"], [], "holds other files .mine. .* name a new folder with --out"),
        (mine, ["cat"], [], "holds other files .index.html. that pictures could replace"),
        (ours, ["cat"], [ours / "cat.jpg"], "cat.jpg: lies where the pictures go"),
        (ours, ["cat"], [ours / "predictions" / "cat.png"], "cat.png: lies where .* go"),
        (ours / INDEX, ["cat"], [], f"{INDEX}: is a file, and the pictures need a folder"),
        (ours, ["contact_sheet"], [], "an image is called 'contact_sheet'"),
    ):
        with pytest.raises(DataError, match=words):
            check_place(place, False, names, photos)
    check_place(mine, True, ["cat"], [photo])


@pytest.mark.parametrize("count, size", [(1, (360, 304)), (7, (2060, 588)), (30, (2060, 1156))])
def test_a_contact_sheet_has_up_to_24_thumbnails_with_their_names(count, size):
    pictures = [
        drawn(40 * "long" if index == 3 else f"{index}", 8, None if index == 5 else 0.5)[1]
        for index in range(count)
    ]
    sheet = contact_sheet(pictures)
    assert sheet.size == size
    pixels = np.array(sheet)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    shown = min(count, 24)
    assert red.sum() == pytest.approx(shown * 320 * 240, rel=0.01)
    for index in range(shown):
        row, column = divmod(index, 6)
        cell = pixels[20 + row * 284 :, 20 + column * 340 :][:284, :320]
        assert (cell[245:280] < 128).any(), "its name"
        assert (cell[245:280, 220:] < 128).any() == (index != 5), "its mIoU, or the end of nothing"


def test_a_thumbnail_is_small_whatever_the_page():
    picture = drawn("cat", 8, 0.5)[1]
    with Image.open(io.BytesIO(picture.thumbnail)) as thumbnail:
        assert thumbnail.size == (320, 240) and thumbnail.format == "JPEG"
    assert len(picture.thumbnail) < 30_000


def test_the_gallery_is_sorted_and_filtered_in_the_browser(browser):
    assert browser.run(NAMES) == WORST_FIRST
    choose(browser, "order", "best")
    assert browser.run(NAMES) == [NASTY, "sky", "cat", "dog", "horse 2"]
    choose(browser, "order", "name")
    assert browser.run(NAMES) == sorted(SEEN)
    choose(browser, "class", "dog")
    assert browser.run(NAMES) == [NASTY, "dog"]
    assert browser.run("get('count').textContent") == "2 pictures"
    choose(browser, "class", "")
    choose(browser, "order", "worst")
    assert browser.run(NAMES) == WORST_FIRST


def test_every_thumbnail_and_every_page_is_found_whatever_its_name(browser):
    loaded = "cards.every(card => card.querySelector('img').naturalWidth === 320)"
    browser.wait_for(lambda: browser.run(loaded))
    for place, name in enumerate(WORST_FIRST):
        browser.press("ArrowRight" if place else "ArrowDown")
        assert browser.run(FOCUS) == name
        browser.press("Enter")
        assert browser.run(TITLE) == name
        browser.wait_for(lambda: browser.run(LOADED))
        browser.press("Escape")


def test_the_keyboard_does_all(browser):
    browser.press("Tab")
    assert browser.run(FOCUS) == "class"
    browser.press("Tab", times=2)
    assert browser.run(FOCUS) == "dog", "the first thumbnail"
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(ring) == "solid", "the focus is seen"
    browser.press("End")
    assert browser.run(FOCUS) == "horse 2"
    browser.press("ArrowRight"), browser.press("Home"), browser.press("ArrowLeft")
    assert browser.run(FOCUS) == "dog", "there is nothing beyond the ends"
    browser.press("Enter")
    assert browser.run(TITLE) == "dog" and browser.run(ring) == "solid"
    browser.press("ArrowRight", times=2)
    assert browser.run(TITLE) == "sky"
    browser.press("ArrowLeft")
    assert browser.run(TITLE) == "cat"
    browser.press("Tab")
    assert browser.run(FOCUS) == "split"
    browser.press("ArrowLeft", times=3)
    assert browser.run("get('split').value") == "47" and browser.run(TITLE) == "cat"
    assert browser.run("get('split').ariaLabel") == "divider between image and prediction"
    browser.press("Escape")
    assert browser.run(TITLE) is False
    assert browser.run(FOCUS) == "cat", "where one came to"


def test_up_and_down_go_by_rows(browser):
    browser.resize(500, 700)  # two beside each other
    browser.press("ArrowDown", times=2)
    assert browser.run(FOCUS) == "sky"
    browser.press("ArrowUp")
    assert browser.run(FOCUS) == "dog"


def pixel(browser, across: float) -> tuple[int, ...]:
    """The colour seen at a share of the stage's width, at half its height."""
    x, y, width, height = browser.place("#stage")
    with Image.open(io.BytesIO(browser.screenshot())) as picture:
        return picture.convert("RGB").getpixel((round(x + across * width), round(y + height / 2)))


def test_the_slider_is_between_image_and_prediction(browser):
    browser.click(".card")
    assert browser.run(TITLE) == "dog"
    blue, red = (0, 0, 255), (255, 0, 0)
    browser.wait_for(lambda: pixel(browser, 0.25) == blue and pixel(browser, 0.75) == red)
    browser.click("#stage", across=0.9)
    assert pixel(browser, 0.75) == pixel(browser, 0.85) == blue and pixel(browser, 0.95) == red
    browser.click("#stage", across=0.1)
    assert pixel(browser, 0.05) == blue and pixel(browser, 0.25) == red
    browser.click('input[value="error"]')
    assert pixel(browser, 0.25) == (203, 224, 238), "the error map in its place"
    assert "pale blue: right" in browser.run("get('key').textContent")
    browser.press("Escape")


def test_a_click_beside_the_picture_closes_it_and_one_at_its_edge_does_not(browser):
    browser.click(".card")
    browser.click("#view", across=0.004)  # in the margin within
    assert browser.run(TITLE) == "dog"
    browser.click("#view", across=-0.01)
    assert browser.run(TITLE) is False
    browser.click(".card")
    browser.click("#close")
    assert browser.run(TITLE) is False and browser.run("location.hash") == ""


def test_the_table_holds_the_classes_of_the_picture(browser):
    browser.click(".card")
    rows = "[...document.querySelectorAll('#rows tr, #heading tr')]"
    assert browser.run(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))") == [
        ["pixels in", "ground truth", "prediction", "IoU"],
        ["dog", "100.0%", "100.0%", "0.250"],
    ]
    browser.press("Escape")


@pytest.mark.parametrize("width, dark", [(320, False), (390, True), (1600, False)])
def test_nothing_is_wider_than_the_screen(width, dark, browser):
    browser.resize(width, 700, dark)
    fits = "[document.documentElement, get('view')].every(e => e.scrollWidth <= e.clientWidth)"
    assert browser.run(fits)
    browser.click(".card")
    assert browser.run(fits)
    style = "getComputedStyle(document.body)"
    page, ink = (browser.run(f"{style}.{what}") for what in ("backgroundColor", "color"))
    lightness = [sum(map(int, re.findall(r"\d+", colour))) for colour in (page, ink)]
    assert (lightness[0] < lightness[1]) == dark and abs(lightness[0] - lightness[1]) > 400
    browser.press("Escape")


@pytest.mark.parametrize("alone", ["prediction", "ground truth"])
def test_a_picture_of_one_mask_is_compared_with_it(alone, chromium, tmp_path):
    page, picture = drawn("cat", 8, None, alone)
    page.save(tmp_path / "cat.png")
    (tmp_path / INDEX).write_text(gallery([picture], "One", {}), encoding="utf-8")
    chromium.open(tmp_path / INDEX, "#cat")
    assert chromium.run("get('against').textContent") == alone
    chromium.wait_for(lambda: pixel(chromium, 0.25) == (0, 0, 255))
    chromium.wait_for(lambda: pixel(chromium, 0.75) == (255, 0, 0))
    assert chromium.said == []


def test_a_picture_can_be_linked_to(chromium, folder):
    chromium.open(folder / INDEX, "#horse%202")
    assert chromium.run(TITLE) == "horse 2"
    assert chromium.run("get('score').textContent") == ""
    chromium.open(folder / INDEX, "#absent")
    assert chromium.run(TITLE) is False
