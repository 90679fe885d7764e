"""Many pages of `overlay` at a glance: `index.html` for the browser, and a contact sheet."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure
from PIL import Image

from data.classes import Classes
from data.figures.charts import new_figure, short
from data.figures.layers import pixel_shares, unnamed
from data.figures.overlay import Record, draw_page

INDEX, SHEET = "index.html", "contact_sheet.png"
FILES = "gallery"  # folder of what the page shows: in a folder for each image the files below
FACTS, THUMBNAIL = "facts.json", "thumbnail.jpg"
TEMPLATE = Path(__file__).with_name("gallery.html")
COLUMNS, ROWS = 6, 4  # of a contact sheet
ROOM = 320, 240  # px, of a thumbnail


def save_page(folder: Path, record: Record, classes: Classes, confidence: bool = False) -> None:
    """Draws the page of an image, ID.png, and what the gallery shows of it, in `FILES`/ID.

    Args:
        confidence: whether the confidence is shown, too.
    """
    page = draw_page(record if confidence else record._replace(confidence=None), classes)
    files, heading, *rows = folder / FILES / record.id, *page.legend
    files.mkdir(parents=True, exist_ok=True)
    (folder / record.id).parent.mkdir(parents=True, exist_ok=True)
    page.picture.save(folder / f"{record.id}.png")
    *_, last = page.masks  # the prediction, if there is one
    page.tiles[last].thumbnail(ROOM, Image.LANCZOS)
    page.tiles[last].save(files / THUMBNAIL, quality=88, subsampling=0)
    layers = {}
    for name, layer in page.layers.items():
        suffix = "jpg" if name == "image" else "png"  # as PNG, a photo takes five times as much
        file = files / f"{name.replace(' ', '_')}.{suffix}"
        layer.save(file, quality=92)
        layers[name] = quote(file.relative_to(folder).as_posix())
    judged = "ground truth" if "ground truth" in page.masks else last  # strokes name only a part
    things = sorted(pixel_shares(page.masks[judged]).keys() - {*unnamed(classes)})
    facts = {
        "name": record.id,
        "title": record.title,
        "miou": record.miou,
        "size": record.photo.shape[1::-1],
        "page": quote(f"{record.id}.png"),
        "thumbnail": quote(f"{FILES}/{record.id}/{THUMBNAIL}"),
        "layers": layers,
        "classes": [classes.names[label] for label in things],  # by which it is filtered
        "columns": heading.cells,
        "rows": [(name, "#{:02x}{:02x}{:02x}".format(*rgb), *cells) for name, rgb, cells in rows],
    }
    (files / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def read_pictures(folder: Path) -> list[dict[str, Any]]:
    """What `save_page` has saved of the images in the folder, the worst mIoU first."""
    files = sorted(filter(Path.is_file, (folder / FILES).rglob(FACTS)))
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


def contact_sheet(folder: Path, pictures: Sequence[Mapping[str, Any]]) -> Figure:
    """The thumbnails of the first 24 pictures; above each are its title and its mIoU."""
    columns, rows = min(COLUMNS, len(pictures)), min(ROWS, -(-len(pictures) // COLUMNS))
    figure = new_figure(2.8 * columns, 2.5 * rows)
    for place, one in enumerate(pictures[: COLUMNS * ROWS], start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.axis("off")
        axes.imshow(Image.open(folder / FILES / one["name"] / THUMBNAIL))
        score = "" if one["miou"] is None else f"  mIoU {one['miou']:.3f}"
        axes.set_title(short(one["title"]) + score, fontsize=9, parse_math=False)
    return figure
