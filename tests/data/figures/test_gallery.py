"""The gallery, a file that needs nothing but the pages beside it, and the contact sheet."""

import io
import json
import re
from contextlib import ExitStack
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC, VOID
from data.figures.gallery import INDEX, Picture, contact_sheet, gallery, picture
from data.figures.overlay import draw_page
from tests.data.figures.browser import Browser, installed

NASTY = "a\"b'c<i>&amp; {{pictures}} </script> #1?%20.x".replace("/", "")
FACTS = {"images": "5 of <them>", "views": "one"}
SEEN = {"cat": (8, 0.5), "dog": (12, 0.1), NASTY: (12, 0.9), "horse 2": (13, None), "sky": (0, 0.7)}
WORST_FIRST = ["dog", "cat", "sky", NASTY, "horse 2"]


def drawn(
    name: str, label: int, miou: float | None, alone: str | None = None
) -> tuple[Image.Image, Picture]:
    """A page of a blue photo with a red mask, and what the gallery keeps of it.

    It has ground truth and prediction, or one of them `alone`.
    """
    photo = np.zeros((60, 80, 3), np.uint8)
    photo[..., 2] = 255
    prediction = np.full((60, 80), label, np.uint8)
    truth = np.full_like(prediction, VOID) if miou is None and not alone else prediction
    masks = {"truth": truth, "prediction": prediction}
    if alone:
        del masks["truth" if alone == "prediction" else "prediction"]
    ious = np.where(np.arange(21) == label, 0.25, np.nan) if miou else None
    page = draw_page(photo, VOC, **masks, ious=ious, miou=miou, title=name)
    page.picture.paste("red", page.tiles[alone or "prediction"])
    return page.picture, picture(name, name, page, miou)


def known(page: str) -> list[dict]:
    """What the file tells its script."""
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A gallery with its pages."""
    folder, pictures = tmp_path_factory.mktemp("a gallery #1"), []
    for name, (label, miou) in SEEN.items():
        page, one = drawn(name, label, miou)
        page.save(folder / f"{name}.png")
        pictures.append(one)
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


SHOWN = "[...document.querySelectorAll('.card')].map(card => card.querySelector('b').textContent)"
TITLE = "get('view').open && get('title').textContent"


def choose(browser, selector: str, value: str) -> None:
    element = f"get('{selector}')"
    browser.run(f"{element}.value = {json.dumps(value)}")
    browser.run(f"{element}.dispatchEvent(new Event('change'))")


def test_the_file_lists_the_pictures_worst_first_with_all_names_escaped(folder):
    page = (folder / INDEX).read_text(encoding="utf-8")
    pictures = known(page)
    assert [one["title"] for one in pictures] == WORST_FIRST
    assert [unquote(one["href"]) for one in pictures] == [f"{name}.png" for name in WORST_FIRST]
    assert all(re.fullmatch(r"[\w%.]+\.png", one["href"]) for one in pictures)
    assert "<i>" not in page and page.count("Seen &lt;b&gt;") == 2
    assert "<dt>images</dt><dd>5 of &lt;them&gt;</dd>" in page and page.count("</script>") == 2
    cat = pictures[1]
    assert (cat["classes"], cat["columns"]) == (["cat"], ["ground truth", "prediction", "IoU"])
    assert cat["rows"] == [["cat", "#400000", "100.0%", "100.0%", "0.250"]]


def test_the_file_asks_the_network_for_nothing(folder):
    page = re.sub(r"base64,[\w+/=]*", "", (folder / INDEX).read_text(encoding="utf-8"))
    assert not re.search(r"https?:|@import|url\(|<link|<iframe|<object", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("alone", ["prediction", "ground truth"])
def test_pictures_of_one_mask_are_filtered_by_it_and_have_no_score(alone):
    pictures = [drawn(name, label, None, alone)[1] for name, label in (("b", 8), ("a", 12))]
    found = [
        (one["title"], one["classes"], one["columns"]) for one in known(gallery(pictures, "", {}))
    ]
    assert found == [("a", ["dog"], [alone]), ("b", ["cat"], [alone])]
    with Image.open(io.BytesIO(pictures[0].thumbnail)) as thumbnail:
        assert thumbnail.getpixel((160, 120)) == pytest.approx((255, 0, 0), abs=3)
        assert thumbnail.size == (320, 240) and thumbnail.format == "JPEG"
    assert len(pictures[0].thumbnail) < 30_000


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


def test_the_gallery_is_sorted_and_filtered_in_the_browser(browser):
    assert browser.run(SHOWN) == WORST_FIRST
    choose(browser, "order", "best")
    assert browser.run(SHOWN) == [NASTY, "sky", "cat", "dog", "horse 2"]
    choose(browser, "order", "name")
    assert browser.run(SHOWN) == sorted(SEEN)
    choose(browser, "class", "dog")
    assert browser.run(SHOWN) == [NASTY, "dog"]
    assert browser.run("get('count').value") == "2 pictures"
    options = "[...get('class').options].map(option => option.textContent)"
    assert browser.run(options) == ["all", "cat (1)", "dog (2)"]
    choose(browser, "class", "")
    choose(browser, "order", "worst")
    assert browser.run(SHOWN) == WORST_FIRST


def test_every_thumbnail_and_every_page_is_found_whatever_its_name(browser):
    loaded = (
        "[...document.querySelectorAll('.card img')].every(image => image.naturalWidth === 320)"
    )
    browser.wait_for(lambda: browser.run(loaded))
    browser.click(".card")
    page = "['under', 'over'].every(id => get(id).firstChild.naturalWidth > 1000)"
    for name in WORST_FIRST:
        assert browser.run(TITLE) == name
        browser.wait_for(lambda: browser.run(page))
        browser.click("#next")
    assert browser.run(TITLE) == WORST_FIRST[-1], "there is nothing beyond the end"
    browser.click("#previous")
    assert browser.run(TITLE) == WORST_FIRST[-2]


def test_the_keyboard_opens_and_closes(browser):
    browser.press("Tab", times=3)  # past the two menus
    browser.press("Enter")
    assert browser.run(TITLE) == "dog"
    browser.press("Escape")
    assert browser.run(TITLE) is False
    browser.click(".card")
    browser.click("#close")
    assert browser.run(TITLE) is False


def pixel(browser, across: float) -> tuple[int, ...]:
    """The colour seen at a share of the stage's width, at half its height."""
    x, y, width, height = browser.place("#stage")
    with Image.open(io.BytesIO(browser.screenshot())) as picture:
        return picture.convert("RGB").getpixel((round(x + across * width), round(y + height / 2)))


def test_the_slider_is_between_image_and_prediction(browser):
    browser.click(".card")
    blue, red = (0, 0, 255), (255, 0, 0)
    browser.wait_for(lambda: pixel(browser, 0.25) == blue and pixel(browser, 0.75) == red)
    browser.click("#split", across=0.9)
    assert pixel(browser, 0.75) == pixel(browser, 0.85) == blue and pixel(browser, 0.95) == red
    browser.click("#split", across=0.1)
    assert pixel(browser, 0.05) == blue and pixel(browser, 0.25) == red
    choose(browser, "tile", "error")
    assert pixel(browser, 0.25) == (203, 224, 238), "the error map in its place"
    assert "pale blue: right" in browser.run("get('key').textContent")
    rows = "[...document.querySelectorAll('#table tr')]"
    assert browser.run(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))") == [
        ["pixels in", "ground truth", "prediction", "IoU"],
        ["dog", "100.0%", "100.0%", "0.250"],
    ]


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


@pytest.mark.parametrize("alone", ["prediction", "ground truth"])
def test_a_picture_of_one_mask_is_compared_with_it(alone, chromium, tmp_path):
    page, one = drawn("cat", 8, None, alone)
    page.save(tmp_path / "cat.png")
    (tmp_path / INDEX).write_text(gallery([one], "One", {}), encoding="utf-8")
    chromium.resize(1280, 800)
    chromium.open(tmp_path / INDEX)
    assert chromium.run("[...get('order').options].map(option => option.value)") == ["name"]
    chromium.click(".card")
    assert chromium.run("get('tile').value") == alone
    chromium.wait_for(lambda: pixel(chromium, 0.25) == (0, 0, 255))
    chromium.wait_for(lambda: pixel(chromium, 0.75) == (255, 0, 0))
    assert chromium.said == []
