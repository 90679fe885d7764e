"""Many pages of `data.overlay` at a glance: `index.html`, to be opened from disk in a browser, and a contact sheet."""

import base64
import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image, ImageDraw, ImageFont

from data import DataError
from data.classes import VOID
from data.overlay import GREY, INK, WHITE, Occurrence, Panel, percent, shorten

INDEX, SHEET, PREDICTIONS = "index.html", "contact_sheet.png", "predictions"
GENERATOR = "visualize.py of the hypercolumn project"  # in every gallery: another program's page is not replaced
TEMPLATE = Path(__file__).with_name("gallery.html")
COLUMNS, ROWS = 6, 4  # of a contact sheet
THUMBNAIL = 320, 240  # px, the room of each
ORDERS = {"worst": "worst first", "best": "best first", "name": "by name"}


class Picture(NamedTuple):
    """What is kept of a page: small, for there may be thousands."""

    name: str  # the page is NAME.png, beside the gallery
    title: str
    miou: float | None
    size: tuple[int, int]  # of the page, px
    tiles: dict[str, tuple[int, int, int, int]]
    classes: list[Occurrence]
    thumbnail: bytes  # JPEG of the prediction

    @classmethod
    def of(cls, name: str, title: str, page: Panel, miou: float | None = None) -> "Picture":
        """What the gallery keeps of a page, whose mIoU (0..1) is None without ground truth."""
        small, file = page.picture.crop(page.tiles["prediction"]), io.BytesIO()
        small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
        small.save(file, "JPEG", quality=88, subsampling=0)
        return cls(name, title, miou, page.picture.size, page.tiles, page.classes, file.getvalue())

    def found(self) -> list[str]:
        """Names of the classes in the ground truth or, without one, in the prediction; without background and void."""
        reference = "ground truth" if "ground truth" in self.tiles else "prediction"
        return [row.name for row in self.classes if row.label not in (0, VOID) and row.shares[reference]]


def check_place(folder: Path, is_ours: bool, names: Iterable[str], photos: Iterable[Path]) -> None:
    """Sees to it that nothing of the user's own is replaced in a folder where pictures with these names will be.

    Args:
        is_ours: the folder is one of a run; else it must be new, empty, or hold a gallery.

    Raises:
        DataError: it is a file, or holds something else; one of the photos lies there; or a picture has a page's name.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, and the pictures need a folder; name another one with --out")
    if not is_ours and folder.is_dir():
        index, inside = folder / INDEX, [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if inside and not (index.is_file() and GENERATOR in index.read_text(encoding="utf-8", errors="replace")):
            raise DataError(
                f"{folder}: holds other files ({min(inside)}) that pictures could replace; name a new folder with --out"
            )
    for photo in photos:
        if photo.resolve().parent in (folder.resolve(), folder.resolve() / PREDICTIONS):
            raise DataError(
                f"{photo}: lies where the pictures go and could be replaced; name another folder with --out"
            )
    if Path(SHEET).stem in names:
        raise DataError(f"an image is called {Path(SHEET).stem!r}, as the contact sheet is; rename it")


def gallery(pictures: Sequence[Picture], heading: str, facts: Mapping[str, str]) -> str:
    """An HTML page of the pictures, worst mIoU first, those without one last; it needs their PNGs beside it.

    It loads nothing else, from nowhere: styles, script and thumbnails are in it.

    Args:
        facts: what the reader should know of all of them, as pairs of name and words.
    """
    by_name = sorted(pictures, key=lambda picture: picture.title)
    worst_first = sorted(by_name, key=lambda picture: (picture.miou is None, picture.miou))
    places = {picture.name: place for place, picture in enumerate(by_name)}
    counts = Counter(name for picture in pictures for name in picture.found())
    scored = any(picture.miou is not None for picture in pictures)
    orders = ORDERS if scored else {"name": ORDERS["name"]}
    filled = {
        "generator": GENERATOR,
        "heading": html.escape(heading),
        "facts": "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(words)}</dd>" for name, words in facts.items()),
        "classes": _option("", "all") + "".join(_option(name, f"{name} ({counts[name]})") for name in sorted(counts)),
        "orders": "".join(_option(value, words) for value, words in orders.items()),
        "count": f"{len(pictures)} picture" + "s" * (len(pictures) != 1),
        "cards": "\n".join(_card(picture, places[picture.name]) for picture in worst_first),
    }
    return re.sub(r"{{(\w+)}}", lambda match: filled[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def contact_sheet(pictures: Sequence[Picture]) -> Image.Image:
    """A white page of the first 24 pictures' thumbnails, each with its title and, where it has one, its mIoU below."""
    columns, rows = min(COLUMNS, len(pictures)), min(ROWS, -(-len(pictures) // COLUMNS))
    width, height = THUMBNAIL
    font, gap, line = ImageFont.load_default(size=20), 20, 44
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + line) + gap), WHITE)
    draw = ImageDraw.Draw(page)
    for index, picture in enumerate(pictures[: COLUMNS * ROWS]):
        left, top = gap + index % COLUMNS * (width + gap), gap + index // COLUMNS * (height + line)
        small = Image.open(io.BytesIO(picture.thumbnail))
        page.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))
        score = "" if picture.miou is None else f"mIoU {picture.miou:.3f}"
        middle, room = top + height + line // 2 - 6, width - font.getlength(score) - gap
        draw.text((left, middle), shorten(picture.title, font, room), INK, font, anchor="lm")
        draw.text((left + width, middle), score, GREY, font, anchor="rm")
    return page


def _option(value: str, words: str) -> str:
    return f'<option value="{html.escape(value)}">{html.escape(words)}</option>'


def _card(picture: Picture, place: int) -> str:
    """A thumbnail that links to its page, with all that the script needs to show it large."""
    masks = [name for name in ("ground truth", "prediction") if name in picture.tiles]
    scored = picture.miou is not None
    rows = []
    for row in picture.classes:
        cells = [percent(row.shares[name]) for name in masks]
        cells += ["-" if row.iou is None else f"{row.iou:.3f}"] * scored
        rows.append([row.name, "#{:02x}{:02x}{:02x}".format(*row.colour), *cells])
    known = {
        "name": picture.name, "title": picture.title, "miou": picture.miou, "place": place, "size": picture.size,
        "tiles": picture.tiles, "classes": picture.found(), "columns": [*masks, *["IoU"] * scored], "rows": rows,
    }  # fmt: skip
    title, thumbnail = html.escape(picture.title), base64.b64encode(picture.thumbnail).decode()
    score = f"<em>mIoU {picture.miou:.3f}</em>" if scored else ""
    bar = f'<i style="--miou: {picture.miou:.1%}"></i>' if scored else ""
    return (
        f'<li><a class="card" href="{quote(picture.name)}.png" data-picture="{html.escape(json.dumps(known))}">'
        f'<img src="data:image/jpeg;base64,{thumbnail}" alt="prediction for {title}" loading="lazy">'
        f'<span><b title="{title}">{title}</b>{score}</span>{bar}</a></li>'
    )
