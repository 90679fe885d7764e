"""The gallery, a file that needs nothing but the pages beside it, and the contact sheet."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from data.classes import VOC, VOID, Classes
from data.figures.gallery import INDEX, contact_sheet, read_pictures, save_gallery, save_page
from data.figures.layers import OPACITY
from data.figures.overlay import Record
from tests.data.figures.browser import look
from tests.data.figures.pages import faults, texts

NASTY = "a\"b'c<i>&amp; {{pictures}} </script> #1?%20.x".replace("/", "")
FACTS = {"images": "5 of <them>", "views": "one"}
SEEN = {"cat": (8, 0.5), "dog": (12, 0.1), NASTY: (12, 0.9), "horse 2": (13, None), "sky": (0, 0.7)}
WORST_FIRST = ["dog", "cat", "sky", NASTY, "horse 2"]
BLUE = np.array([0, 0, 255])


def tinted(label: int) -> np.ndarray:
    """The colour of a blue photo where a mask has this class."""
    return (1 - OPACITY) * BLUE + OPACITY * np.array(VOC.colours[label])


def save(folder: Path, name: str, label: int, miou: float | None, alone="", classes=VOC) -> None:
    """Saves the page of a blue photo all of one class, with both masks or one of them `alone`."""
    photo, mask = np.full((60, 80, 3), BLUE, np.uint8), np.full((60, 80), label, np.uint8)
    truth = np.full_like(mask, VOID) if miou is None and not alone else mask
    masks = truth if alone != "prediction" else None, mask if alone != "ground truth" else None
    ious = np.where(np.arange(21) == label, 0.25, np.nan) if miou else None
    save_page(folder, Record(name, name, photo, *masks, ious=ious, miou=miou), classes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A gallery with its pages."""
    folder = tmp_path_factory.mktemp("a gallery #1")
    for name, seen in SEEN.items():
        save(folder, name, *seen)
    save_gallery(folder, read_pictures(folder), "Seen <b>", FACTS)
    return folder


TOOLS = """
const titles = () => [...document.querySelectorAll(".card b")].map(name => name.textContent);
const first = () => document.querySelector(".card").click();
const choose = (id, value) => {
  get(id).value = value;
  for (const name of ["input", "change"]) get(id).dispatchEvent(new Event(name));
};
const loaded = async () => {
  for (const image of document.images) if (image.src && !image.complete)
    await new Promise(done => image.addEventListener("load", done));
};
"""


def test_the_file_lists_the_pictures_worst_first_with_all_names_escaped(folder):
    page = (folder / INDEX).read_text(encoding="utf-8")
    pictures = json.loads(re.search('<script type="application/json".*?>(.*?)</script>', page)[1])
    assert [one["title"] for one in pictures] == WORST_FIRST
    assert [unquote(one["page"]) for one in pictures] == [f"{name}.png" for name in WORST_FIRST]
    assert all(re.fullmatch(r"[\w%.]+\.png", one["page"]) for one in pictures)
    assert "<i>" not in page and page.count("Seen &lt;b&gt;") == 2
    assert "<dt>images</dt><dd>5 of &lt;them&gt;</dd>" in page and page.count("</script>") == 2
    assert not re.search(r"https?:|@import|url\(|<link", re.sub(r"base64,[\w+/=]*", "", page))
    cat = pictures[1]
    assert (cat["classes"], cat["columns"]) == (["cat"], ["ground truth", "prediction", "IoU"])
    assert cat["rows"][:2] == [["cat", "#400000", *2 * ["100.0%"], "0.250"], ["right", "#cbe0ee"]]


def test_a_class_0_that_is_no_background_is_filtered_by(tmp_path):
    save(tmp_path, "one", 0, None, "ground truth", Classes.from_named({"wall": None, "door": None}))
    (facts,) = read_pictures(tmp_path)
    assert facts["classes"] == [facts["rows"][0][0]] == ["wall"]


@pytest.mark.parametrize("count, size", [(1, (336, 300)), (7, (2016, 600)), (30, (2016, 1200))])
def test_a_contact_sheet_has_up_to_24_thumbnails_with_their_names(count, size, tmp_path):
    save(tmp_path, "one", 8, 0.5)
    (one,) = read_pictures(tmp_path)
    pictures = [one | {"title": f"$picture^{i}" + 40 * " long"} for i in range(count)]
    pictures[0] |= {"title": "first", "miou": None}
    sheet = contact_sheet(tmp_path, pictures)
    assert np.allclose(sheet.get_size_inches() * sheet.dpi, size)
    found = [words for words, *_ in texts(sheet)]
    assert len(found) == min(count, 24) and found[0] == "first" and faults(sheet) == []
    assert all("$picture^" in words and words.endswith("mIoU 0.500") for words in found[1:])


def test_the_gallery_is_walked_sorted_and_filtered_in_the_browser_whatever_the_names(folder):
    script = """
    await loaded();
    const seen = [[...document.querySelectorAll(".card img")].map(image => image.naturalWidth)];
    const click = async button => {
      button.click();
      await loaded();
      const pages = ["under", "over"].every(id => get(id).naturalWidth === 80);
      seen.push(get("view").open && pages && get("title").textContent);
    };
    await click(document.querySelector(".card"));
    for (const _ of "12345") await click(get("next"));
    await click(get("previous"));
    await click(get("close"));
    const list = (menu, value) => {
      choose(menu, value);
      seen.push(titles(), get("count").value);
    };
    list("order", "worst"); list("order", "best"); list("order", "name");
    list("class", "dog"); list("class", "");
    return [...seen, [...get("class").options].map(option => option.textContent)];"""
    (thumbnails, *found), _ = look(folder / INDEX, TOOLS + script)
    assert thumbnails == 5 * [320]
    assert found[:8] == [*WORST_FIRST, WORST_FIRST[-1], WORST_FIRST[-2], False]
    best, names = [NASTY, "sky", "cat", "dog", "horse 2"], sorted(SEEN)
    assert found[8:-1:2] == [WORST_FIRST, best, names, [NASTY, "dog"], names]
    assert found[9:-1:2] == [f"{count} pictures" for count in (5, 5, 5, 2, 5)]
    assert found[-1] == ["all", "cat (1)", "dog (2)", "horse (1)"]


def opened(page: Path, script: str, places: Sequence[float]) -> tuple[Any, list[tuple]]:
    """The first picture after a script: tile and rows; colours at shares of its width."""
    script = f"""{TOOLS} first(); {script} await loaded();
    const {{x, y, width, height}} = get("stage").getBoundingClientRect();
    const rows = [...document.querySelectorAll("#table tr")];
    const cells = rows.map(row => [...row.cells].map(cell => cell.textContent));
    return [x, y, width, height, [get("tile").value, cells]];"""
    (x, y, width, height, said), picture = look(page, script)
    return said, [picture.getpixel((int(x + at * width), int(y + height / 2))) for at in places]


def test_the_slider_is_between_image_and_prediction(folder):
    blue, dog, right = BLUE, tinted(12), (203, 224, 238)
    _, colours = opened(folder / INDEX, "choose('split', 90);", [0.75, 0.85, 0.95])
    assert np.allclose(colours, [blue, blue, dog], atol=3)
    script = "choose('split', 10); choose('tile', 'error');"
    (_, cells), colours = opened(folder / INDEX, script, [0.05, 0.25])
    assert np.allclose(colours, [blue, right], atol=3)
    head = ["pixels in", "ground truth", "prediction", "IoU"]
    keys = ["right"], ["wrong"], ["not scored"]
    assert cells == [head, ["dog", "100.0%", "100.0%", "0.250"], *keys]


@pytest.mark.parametrize("width, dark", [(320, False), (390, True), (1600, False)])
def test_nothing_is_wider_than_the_screen(width, dark, folder):
    script = """
    const parts = [document.documentElement, get("view")];
    const fits = () => parts.every(part => part.scrollWidth <= part.clientWidth);
    const before = fits();
    first();
    const style = getComputedStyle(document.body);
    return [innerWidth, before && fits(), style.backgroundColor, style.color];"""
    (found, fits, *colours), _ = look(folder / INDEX, TOOLS + script, width, dark)
    assert found == width and fits
    page, ink = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
    assert (page < ink) == dark and abs(page - ink) > 400


@pytest.mark.parametrize("alone", ["prediction", "ground truth"])
def test_a_picture_of_one_mask_is_filtered_by_it_and_compared_with_it(alone, tmp_path):
    save(tmp_path, "cat", 8, None, alone)
    (facts,) = pictures = read_pictures(tmp_path)
    assert (facts["classes"], facts["columns"]) == (["cat"], [alone])
    save_gallery(tmp_path, pictures, "One", {})
    (tile, _), colours = opened(tmp_path / INDEX, "", [0.25, 0.75])
    assert tile == alone and np.allclose(colours, [BLUE, tinted(8)], atol=3)


def test_a_thin_class_is_seen_in_full_where_the_wheel_has_zoomed_in(tmp_path):
    """Four pixels of a photo of 1,200, between neighbours that both have outlines."""
    photo, mask = np.full((600, 1200, 3), 200, np.uint8), np.full((600, 1200), 20, np.uint8)
    mask[:, 598:602] = 1
    save_page(tmp_path, Record("thin", "thin", photo, mask, mask), VOC)
    save_gallery(tmp_path, read_pictures(tmp_path), "Thin", {})
    script = """
    choose("split", 0);
    const turn = deltaY => {
      const {left, top, width, height} = get("stage").getBoundingClientRect();
      const at = {clientX: left + width / 2, clientY: top + height / 2, cancelable: true};
      return get("stage").dispatchEvent(new WheelEvent("wheel", {deltaY, ...at}));
    };
    const places = () => get("over").getBoundingClientRect().width;
    const before = places();
    if (turn(-1)) throw Error("the page scrolls, too");
    for (const _ of Array(13)) turn(-1);"""
    said, _ = look(tmp_path / INDEX, f"{TOOLS} first(); {script} return [places() / before];")
    assert said == [pytest.approx(1.25**14, rel=1e-3)]
    middle = np.linspace(0.48, 0.52, 41)
    _, colours = opened(tmp_path / INDEX, script, middle)
    red = [r > 140 and max(g, b) < 120 for r, g, b in colours]
    white = [min(colour) > 240 for colour in colours]
    assert sum(red) >= 5 and sum(white) >= 5, "the class, and outlines beside it"
