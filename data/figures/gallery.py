"""Many pages of `overlay` at a glance: `index.html` for the browser, and a contact sheet."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from data.classes import VOID, Classes
from data.figures.layers import BLACK, INK, WHITE, font
from data.figures.overlay import GREY, Page, draw_page, shorten

INDEX, SHEET = "index.html", "contact_sheet.png"
FILES = "gallery"  # folder of what the page shows: NAME.json, its thumbnail and its layers
TEMPLATE = Path(__file__).with_name("gallery.html")
COLUMNS, ROWS = 6, 4  # of a contact sheet
THUMBNAIL = 320, 240  # px, the room of each


class Record(NamedTuple):
    """What is known of an image; its picture is ID.png."""

    id: str
    title: str
    photo: np.ndarray  # (H, W, 3) uint8 RGB
    truth: np.ndarray | None = None  # (H, W) uint8
    prediction: np.ndarray | None = None  # (H, W) uint8
    confidence: np.ndarray | None = None  # (H, W) float32: probability of the predicted class
    ious: np.ndarray | None = None  # (C,) float64, nan for absent classes
    miou: float | None = None  # None where nothing is scored


def save_page(folder: Path, record: Record, classes: Classes, confidence: bool = False) -> None:
    """Draws the page of an image, ID.png, and what the gallery shows of it."""
    masks = record.truth, record.prediction, record.confidence if confidence else None
    page = draw_page(record.photo, classes, *masks, record.ious, record.miou, record.title)
    (folder / record.id).parent.mkdir(parents=True, exist_ok=True)
    page.picture.save(folder / f"{record.id}.png")
    save_picture(folder, record.id, record.title, page, record.miou)


def save_picture(folder: Path, name: str, title: str, page: Page, miou: float | None) -> None:
    """Saves what the gallery shows of an image, whose page is NAME.png, into the folder `FILES`.

    Its mIoU, 0..1, is None where nothing is scored.
    """
    (folder / FILES / name).parent.mkdir(parents=True, exist_ok=True)
    masks = [tile for tile in ("labels", "ground truth", "prediction") if tile in page.tiles]
    judged = masks[0] if masks[0] == "ground truth" else masks[-1]  # strokes name only a part
    small = page.picture.crop(page.tiles[masks[-1]])
    small.thumbnail(THUMBNAIL, Image.LANCZOS)
    files = {"thumbnail": f"{FILES}/{name}.jpg"}
    small.save(folder / files["thumbnail"], quality=88, subsampling=0)
    layers = page.layers()
    for layer, picture in layers.items():  # of a photo, PNG would take five times as much
        suffix = "jpg" if layer == "image" else "png"
        files[layer] = f"{FILES}/{name}.{layer.replace(' ', '_')}.{suffix}"
        picture.save(folder / files[layer], quality=92)
    hrefs = {layer: quote(file) for layer, file in files.items()}
    scored = miou is not None
    rows = [
        [row.name, "#{:02x}{:02x}{:02x}".format(*row.colour), *row.cells(scored)]
        for row in page.rows
    ]
    clear = [row for row in page.rows if row.label == VOID or (row.label, row.colour) == (0, BLACK)]
    things = [row for row in page.rows if row not in clear and row.shares[judged]]
    facts = {
        "name": name,
        "href": f"{quote(name)}.png",
        "title": title,
        "miou": miou,
        "thumbnail": hrefs.pop("thumbnail"),
        "size": layers["image"].size,
        "layers": hrefs,
        "classes": [row.name for row in things],  # by which it is filtered
        "columns": [*masks, *["IoU"] * scored],
        "rows": rows,
    }
    (folder / FILES / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")


def read_pictures(folder: Path) -> list[dict[str, Any]]:
    """What `save_picture` has saved in the folder, the worst mIoU first."""
    files = sorted((folder / FILES).rglob("*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(found, key=lambda one: (one["miou"] is None, one["miou"] or 0, one["title"]))


def save_gallery(
    folder: Path, pictures: Sequence[Mapping[str, Any]], heading: str, facts: Mapping[str, str]
) -> None:
    """Writes an HTML page of the pictures of `read_pictures` as `INDEX` beside their pages.

    A script in it sorts, filters and enlarges. It loads nothing from outside of the folder.

    Args:
        facts: what the reader should know about all of them, by name.
    """
    terms = [(html.escape(name), html.escape(words)) for name, words in facts.items()]
    filled = {
        "heading": html.escape(heading),
        "facts": "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in terms),
        "pictures": json.dumps(pictures).replace("<", "\\u003c"),  # no text of it ends the script
    }
    page = re.sub(r"{{(\w+)}}", lambda match: filled[match[1]], TEMPLATE.read_text("utf-8"))
    (folder / INDEX).write_bytes(page.encode())


def contact_sheet(folder: Path, pictures: Sequence[Mapping[str, Any]]) -> Image.Image:
    """The thumbnails of the first 24 pictures on white; below each are its title and its mIoU."""
    columns, rows = min(COLUMNS, len(pictures)), min(ROWS, -(-len(pictures) // COLUMNS))
    width, height = THUMBNAIL
    letters, gap, line = font(20), 20, 44
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + line) + gap), WHITE)
    draw = ImageDraw.Draw(sheet)
    for index, one in enumerate(pictures[: COLUMNS * ROWS]):
        row, column = divmod(index, COLUMNS)
        left, top = gap + column * (width + gap), gap + row * (height + line)
        small = Image.open(folder / FILES / f"{one['name']}.jpg")
        sheet.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))
        score = "" if one["miou"] is None else f"mIoU {one['miou']:.3f}"
        middle, room = top + height + line // 2 - 6, width - letters.getlength(score) - gap
        draw.text((left, middle), shorten(one["title"], letters, room), INK, letters, anchor="lm")
        draw.text((left + width, middle), score, GREY, letters, anchor="rm")
    return sheet
