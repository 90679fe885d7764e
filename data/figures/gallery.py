"""Many pages of `overlay` at a glance: `index.html` for the browser, and a contact sheet."""

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

from PIL import Image, ImageDraw

from data import DataError
from data.classes import VOID
from data.figures.overlay import GREY, INK, WHITE, Box, Occurrence, Panel, font, percent, shorten

INDEX, SHEET, PREDICTIONS = "index.html", "contact_sheet.png", "predictions"
# Every gallery has this text; a page without it is another program's and not replaced.
GENERATOR = "visualize.py of the hypercolumn project"
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
    tiles: dict[str, Box]
    classes: list[Occurrence]
    thumbnail: bytes  # JPEG of the prediction or, without one, of the ground truth

    @classmethod
    def of(cls, name: str, title: str, page: Panel, miou: float | None = None) -> "Picture":
        """What the gallery keeps of a page, whose mIoU (0..1) is None where nothing is scored."""
        small, file = page.picture.crop(page.tiles[_masks(page.tiles)[-1]]), io.BytesIO()
        small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
        small.save(file, "JPEG", quality=88, subsampling=0)
        return cls(name, title, miou, page.picture.size, page.tiles, page.classes, file.getvalue())

    def found(self) -> list[str]:
        """The classes in the ground truth or, without one, in the prediction.

        Background and void are left out.
        """
        reference = _masks(self.tiles)[0]
        things = [row for row in self.classes if row.label not in (0, VOID)]
        return [row.name for row in things if row.shares[reference]]


def _masks(tiles: Iterable[str]) -> list[str]:
    """Those of a page's tiles that show a mask: ground truth, prediction, or both in this order."""
    return [name for name in ("ground truth", "prediction") if name in tiles]


def check_place(folder: Path, is_ours: bool, names: Iterable[str], photos: Iterable[Path]) -> None:
    """Checks that writing a gallery to a folder will replace no file of the user's own.

    Args:
        folder: where they will be written.
        is_ours: the folder is one of a run; else it must be new, empty, or hold a gallery.
        names: of the pictures that will be written there.
        photos: files that are read.

    Raises:
        DataError: it is a file, or holds something else; one of the photos lies there; or a picture
            would have the contact sheet's name.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder}: is a file, and the pictures need a folder; name another one with --out"
        )
    if not is_ours and folder.is_dir():
        inside = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if inside and not _is_gallery(folder / INDEX):
            raise DataError(
                f"{folder}: holds other files ({min(inside)}) that pictures could replace; "
                "name a new folder with --out"
            )
    for photo in photos:
        if photo.resolve().parent in (folder.resolve(), folder.resolve() / PREDICTIONS):
            raise DataError(
                f"{photo}: lies where the pictures go and could be replaced; "
                "name another folder with --out"
            )
    if Path(SHEET).stem in names:
        raise DataError(
            f"an image is called {Path(SHEET).stem!r}, as the contact sheet is; rename it"
        )


def _is_gallery(path: Path) -> bool:
    return path.is_file() and GENERATOR in path.read_text(encoding="utf-8", errors="replace")


def gallery(pictures: Sequence[Picture], heading: str, facts: Mapping[str, str]) -> str:
    """An HTML page of the pictures, worst mIoU first, those without one last.

    It loads only their PNGs, from its own folder: styles, script and thumbnails are part of it.

    Args:
        pictures: in any order.
        heading: of the page.
        facts: what the reader should know about all of them, by name.
    """
    by_name = sorted(pictures, key=lambda picture: picture.title)
    worst_first = sorted(by_name, key=lambda picture: (picture.miou is None, picture.miou))
    places = {picture.name: place for place, picture in enumerate(by_name)}
    counts = Counter(name for picture in pictures for name in picture.found())
    scored = any(picture.miou is not None for picture in pictures)
    orders = ORDERS if scored else {"name": ORDERS["name"]}
    classes = {"": "all"} | {name: f"{name} ({counts[name]})" for name in sorted(counts)}
    terms = [(html.escape(name), html.escape(words)) for name, words in facts.items()]
    filled = {
        "generator": GENERATOR,
        "heading": html.escape(heading),
        "facts": "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in terms),
        "classes": "".join(_option(*pair) for pair in classes.items()),
        "orders": "".join(_option(*pair) for pair in orders.items()),
        "count": f"{len(pictures)} picture" + "s" * (len(pictures) != 1),
        "cards": "\n".join(_card(picture, places[picture.name]) for picture in worst_first),
    }
    return re.sub(
        r"{{(\w+)}}", lambda match: filled[match[1]], TEMPLATE.read_text(encoding="utf-8")
    )


def contact_sheet(pictures: Sequence[Picture]) -> Image.Image:
    """The thumbnails of the first 24 pictures on white; below each are its title and its mIoU."""
    columns, rows = min(COLUMNS, len(pictures)), min(ROWS, -(-len(pictures) // COLUMNS))
    width, height = THUMBNAIL
    letters, gap, line = font(20), 20, 44
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + line) + gap), WHITE)
    draw = ImageDraw.Draw(page)
    for index, picture in enumerate(pictures[: COLUMNS * ROWS]):
        row, column = divmod(index, COLUMNS)
        left, top = gap + column * (width + gap), gap + row * (height + line)
        small = Image.open(io.BytesIO(picture.thumbnail))
        indent, drop = (width - small.width) // 2, (height - small.height) // 2
        page.paste(small, (left + indent, top + drop))
        score = "" if picture.miou is None else f"mIoU {picture.miou:.3f}"
        middle, room = top + height + line // 2 - 6, width - letters.getlength(score) - gap
        title = shorten(picture.title, letters, room)
        draw.text((left, middle), title, INK, letters, anchor="lm")
        draw.text((left + width, middle), score, GREY, letters, anchor="rm")
    return page


def _option(value: str, words: str) -> str:
    return f'<option value="{html.escape(value)}">{html.escape(words)}</option>'


def _card(picture: Picture, place: int) -> str:
    """A thumbnail that links to its page, with what the script needs to show it large."""
    masks = _masks(picture.tiles)
    scored = picture.miou is not None
    rows = []
    for row in picture.classes:
        cells = [percent(row.shares[name]) for name in masks]
        cells += ["-" if row.iou is None else f"{row.iou:.3f}"] * scored
        rows.append([row.name, "#{:02x}{:02x}{:02x}".format(*row.colour), *cells])
    known = {
        "name": picture.name,
        "title": picture.title,
        "miou": picture.miou,
        "place": place,
        "size": picture.size,
        "tiles": picture.tiles,
        "classes": picture.found(),
        "columns": [*masks, *["IoU"] * scored],
        "rows": rows,
    }
    title, thumbnail = html.escape(picture.title), base64.b64encode(picture.thumbnail).decode()
    link, facts = f"{quote(picture.name)}.png", html.escape(json.dumps(known))
    score = f"<em>mIoU {picture.miou:.3f}</em>" if scored else ""
    bar = f'<i style="--miou: {picture.miou:.1%}"></i>' if scored else ""
    return (
        f'<li><a class="card" href="{link}" data-picture="{facts}">'
        f'<img src="data:image/jpeg;base64,{thumbnail}" '
        f'alt="{masks[-1]} for {title}" loading="lazy">'
        f'<span><b title="{title}">{title}</b>{score}</span>{bar}</a></li>'
    )
