"""Many pages of `overlay` at a glance: `index.html` for the browser, and a contact sheet."""

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image, ImageDraw

from data.classes import VOID
from data.figures.picture import GREY, INK, WHITE, Page, font, shorten

INDEX, SHEET = "index.html", "contact_sheet.png"
TEMPLATE = Path(__file__).with_name("gallery.html")
EMBEDDED = 300  # thumbnails, of about 15 KB each
COLUMNS, ROWS = 6, 4  # of a contact sheet
THUMBNAIL = 320, 240  # px, the room of each


class Picture(NamedTuple):
    """What is kept of a page: small, for there may be thousands."""

    name: str  # the page is NAME.png, beside the gallery
    title: str
    miou: float | None
    thumbnail: bytes  # JPEG of the prediction or, without one, of the ground truth
    facts: dict  # what the script of the gallery needs to show it large


def picture(name: str, title: str, page: Page, miou: float | None) -> Picture:
    """What the gallery keeps of a page, whose mIoU (0..1) is None where nothing is scored."""
    masks = [tile for tile in ("labels", "ground truth", "prediction") if tile in page.tiles]
    judged = masks[0] if masks[0] == "ground truth" else masks[-1]  # strokes name only a part
    small, file = page.picture.crop(page.tiles[masks[-1]]), io.BytesIO()
    small.thumbnail(THUMBNAIL, Image.LANCZOS)
    small.save(file, "JPEG", quality=88, subsampling=0)
    scored = miou is not None
    rows = [
        [row.name, "#{:02x}{:02x}{:02x}".format(*row.colour), *row.cells(scored)]
        for row in page.rows
    ]
    things = [row for row in page.rows if row.label not in (0, VOID) and row.shares[judged]]
    facts = {
        "href": f"{quote(name)}.png",
        "title": title,
        "miou": miou,
        "size": page.picture.size,
        "tiles": page.tiles,
        "classes": [row.name for row in things],  # by which it is filtered
        "columns": [*masks, *["IoU"] * scored],
        "rows": rows,
    }
    return Picture(name, title, miou, file.getvalue(), facts)


def save_gallery(
    folder: Path, pictures: Sequence[Picture], heading: str, facts: Mapping[str, str]
) -> None:
    """Writes an HTML page of the pictures, worst mIoU first, as `INDEX` beside their PNGs.

    A script in it sorts, filters and enlarges. It loads nothing from outside of the folder; up to
    `EMBEDDED` thumbnails are part of it, more are files in thumbnails/.

    Args:
        facts: what the reader should know about all of them, by name.
    """
    known = []
    for one in sorted(pictures, key=lambda one: (one.miou is None, one.miou or 0, one.title)):
        thumbnail = "data:image/jpeg;base64," + base64.b64encode(one.thumbnail).decode()
        if len(pictures) > EMBEDDED:
            file = folder / "thumbnails" / f"{one.name}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(one.thumbnail)
            thumbnail = f"thumbnails/{quote(file.name)}"
        known.append({**one.facts, "thumbnail": thumbnail})
    terms = [(html.escape(name), html.escape(words)) for name, words in facts.items()]
    filled = {
        "heading": html.escape(heading),
        "facts": "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in terms),
        "pictures": json.dumps(known).replace("<", "\\u003c"),  # so no text of it ends the script
    }
    page = re.sub(r"{{(\w+)}}", lambda match: filled[match[1]], TEMPLATE.read_text("utf-8"))
    (folder / INDEX).write_bytes(page.encode())


def contact_sheet(pictures: Sequence[Picture]) -> Image.Image:
    """The thumbnails of the first 24 pictures on white; below each are its title and its mIoU."""
    columns, rows = min(COLUMNS, len(pictures)), min(ROWS, -(-len(pictures) // COLUMNS))
    width, height = THUMBNAIL
    letters, gap, line = font(20), 20, 44
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + line) + gap), WHITE)
    draw = ImageDraw.Draw(sheet)
    for index, one in enumerate(pictures[: COLUMNS * ROWS]):
        row, column = divmod(index, COLUMNS)
        left, top = gap + column * (width + gap), gap + row * (height + line)
        small = Image.open(io.BytesIO(one.thumbnail))
        sheet.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))
        score = "" if one.miou is None else f"mIoU {one.miou:.3f}"
        middle, room = top + height + line // 2 - 6, width - letters.getlength(score) - gap
        draw.text((left, middle), shorten(one.title, letters, room), INK, letters, anchor="lm")
        draw.text((left + width, middle), score, GREY, letters, anchor="rm")
    return sheet
