"""The page of an image: what `layers` draws of it side by side, and a legend."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.classes import VOID, Classes, Colour, is_sparse
from data.figures.layers import (
    INK,
    KEYS,
    WHITE,
    draw_layers,
    fit,
    font,
    with_bright_background,
    write_names,
)

GREY = (110, 114, 120)
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page


class Record(NamedTuple):
    """What is known of an image: one of the masks at least."""

    id: str
    title: str
    photo: np.ndarray  # (H, W, 3) uint8 RGB
    truth: np.ndarray | None = None  # (H, W) uint8
    prediction: np.ndarray | None = None  # (H, W) uint8
    confidence: np.ndarray | None = None  # (H, W) float32: probability of the predicted class
    ious: np.ndarray | None = None  # (C,) float64, nan for absent classes
    miou: float | None = None  # None where nothing is scored


class Row(NamedTuple):
    """A class, or void, that occurs in an image: a row of the legend."""

    label: int
    name: str
    colour: Colour
    shares: dict[str, float]  # of the pixels (0..1), by the name of the mask
    cells: list[str]  # these in words and, where the image is scored, the IoU


class Page(NamedTuple):
    """A page about one image."""

    picture: Image.Image
    tiles: dict[str, Image.Image]  # that are on it: see `draw_page`
    masks: dict[str, np.ndarray]  # (H, W) uint8, by the names of their tiles
    columns: list[str]  # of the legend: what the cells of its rows are
    rows: list[Row]  # of the legend, by class id, void last


def overlay(photo: np.ndarray, mask: np.ndarray, classes: Classes) -> Image.Image:
    """A photo (H, W, 3), also as PIL has it, with its mask (H, W): tinted, outlined, named."""
    masks = {"mask": mask.astype(np.uint8)}
    return _draw_tiles(Image.fromarray(np.asarray(photo)), masks, classes, None)["mask"]


def draw_page(record: Record, classes: Classes) -> Page:
    """A white page: the tiles that there is something for side by side, and a legend below.

    The tiles are "image", "ground truth", "prediction", "error" (of both) and "confidence". Where
    only strokes or clicks are labelled they are "labels", and there is no "error". Their longer
    side has 320 to 640 px.
    """
    image = Image.fromarray(record.photo)
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.BICUBIC)
    truth = record.truth
    strokes = truth is not None and is_sparse(np.count_nonzero(truth == VOID), truth.size)
    masks = {"labels" if strokes else "ground truth": truth, "prediction": record.prediction}
    masks = {name: mask for name, mask in masks.items() if mask is not None}
    tiles = _draw_tiles(image, masks, classes, record.confidence)
    rows = legend_rows(masks, classes, record.ious)
    columns = [*masks, *["IoU"] * (record.ious is not None)]

    captions = dict(zip(tiles, tiles))
    if "error" in tiles and (scored := truth != VOID).any():
        captions["error"] = f"error {np.mean((record.prediction != truth)[scored]):.1%}"
    if record.confidence is not None:
        captions["confidence"] = f"confidence {record.confidence.mean():.1%}"
    # In print a page is as wide as the paper, so the more tiles, the larger the letters.
    (width, height), count = image.size, len(tiles)
    size = int(np.clip(count * width / 92, 14, 34))
    letters, large, line = font(size), font(round(1.3 * size)), round(1.6 * size)
    pitch = size + max(width, 14 * size)  # of the tiles, with room for what is written around them
    legend = _legend(rows, columns, letters, count * pitch - size)
    inner = max(count * pitch - size, legend.width)
    top = 3 * line  # of the tiles: below the title and their captions
    below = top + height + line  # where the keys of their colours end
    page = Image.new("RGB", (inner + 2 * size, below + size + legend.height), WHITE)
    draw = ImageDraw.Draw(page)
    score = "" if record.miou is None else f"mIoU {record.miou:.3f}"
    title = shorten(record.title, large, inner - large.getlength(score) - size)
    draw.text((size, line), title, INK, large, anchor="lm")
    draw.text((size + inner, line), score, INK, large, anchor="rm")
    for index, (name, tile) in enumerate(tiles.items()):
        left = size + index * pitch
        draw.text((left, top - line // 2), captions[name], GREY, letters, anchor="lm")
        page.paste(tile, (left, top))
        for place, (word, colour) in enumerate(KEYS.get(name, {}).items()):
            _entry(draw, (left + 5 * size * place, below - line // 2), word, colour, letters)
    page.paste(legend, (size, below))
    return Page(page, tiles, masks, columns, rows)


def _draw_tiles(
    image: Image.Image,
    masks: dict[str, np.ndarray],
    classes: Classes,
    confidence: np.ndarray | None,
) -> dict[str, Image.Image]:
    """The layers on an image, of its size, with the names of classes."""
    shown = {name: fit(mask, image.size, name == "labels") for name, mask in masks.items()}
    if confidence is not None:
        confidence = np.asarray(Image.fromarray(confidence).resize(image.size, Image.BILINEAR))
    reach = max(1, round(max(image.size) / 400))
    tiles = draw_layers(np.asarray(image), shown, classes, confidence, reach)
    for name, mask in shown.items():
        on_image = Image.alpha_composite(image.convert("RGBA"), tiles[name])
        tiles[name] = on_image.convert("RGB")
        if name != "labels":
            write_names(tiles[name], mask, classes)
    return tiles


def _legend(
    rows: list[Row], columns: list[str], letters: ImageFont.FreeTypeFont, room: int
) -> Image.Image:
    """A line for each class that occurs, beside one another as far as they fit into `room` px."""
    size, line, number = letters.size, round(1.6 * letters.size), 8 * letters.size
    names = 3 * size + max(round(letters.getlength(row.name)) for row in rows)
    width = names + number * len(columns) + 2 * size
    parts = int(np.clip((room + 2 * size) // width, 1, -(-len(rows) // 4)))
    lines = -(-len(rows) // parts)  # below their headings
    legend = Image.new("RGB", (parts * width - 2 * size, line * (1 + lines)), WHITE)
    draw = ImageDraw.Draw(legend)
    for start in range(0, len(rows), lines):
        left, part = start // lines * width, rows[start : start + lines]
        draw.text((left, line // 2), "pixels in", GREY, letters, anchor="lm")
        for index, row in enumerate(part, start=1):
            _entry(draw, (left, index * line + line // 2), row.name, row.colour, letters)
        for index, cells in enumerate([columns, *(row.cells for row in part)]):
            for place, cell in enumerate(cells, start=1):
                at = left + names + number * place, index * line + line // 2
                draw.text(at, cell, INK if index else GREY, letters, anchor="rm")
    return legend


def _entry(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    word: str,
    colour: Colour,
    letters: ImageFont.FreeTypeFont,
) -> None:
    """A swatch and what it stands for; `at`: the middle of its left edge."""
    (left, middle), half = at, letters.size // 2
    draw.rectangle((left, middle - half, left + 2 * half, middle + half), colour, GREY)
    draw.text((left + 3 * half, middle), word, INK, letters, anchor="lm")


def legend_rows(
    masks: dict[str, np.ndarray], classes: Classes, ious: np.ndarray | None = None
) -> list[Row]:
    """What occurs in masks (H, W) of one image, by class id, void last; `ious` (C,) with nan."""
    shares = {  # not by bincount, which takes 8 bytes a pixel
        name: np.array(Image.fromarray(mask).histogram()) / mask.size
        for name, mask in masks.items()
    }
    shown = with_bright_background(classes) if "labels" in masks else classes
    rows = []
    for label in np.flatnonzero(sum(shares.values())).tolist():
        is_void = label == VOID
        name, colour = ("void", WHITE) if is_void else (shown.names[label], shown.colours[label])
        own = {mask: float(share[label]) for mask, share in shares.items()}
        cells = [percent(share) for share in own.values()]
        if ious is not None:
            cells.append("-" if is_void or np.isnan(ious[label]) else f"{ious[label]:.3f}")
        rows.append(Row(label, name, colour, own, cells))
    return rows


def percent(share: float) -> str:
    """A share (0..1) of the pixels in words; "-" only where there is no pixel at all."""
    return "-" if share == 0 else "<0.1%" if share < 0.0005 else f"{share:.1%}"


def shorten(text: str, letters: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line of at most `room` px, with an ellipsis for an end that does not fit."""
    text = short = " ".join(text.split())
    while short and letters.getlength(short) > room:
        text = text[:-1]
        short = text and text + "…"
    return short
