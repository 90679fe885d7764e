"""The page of an image: what `layers` draws of it side by side, and a legend."""

from collections.abc import Callable
from functools import partial
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


class Row(NamedTuple):
    """A class, or void, that occurs in an image: a row of the legend."""

    label: int
    name: str
    colour: Colour
    shares: dict[str, float]  # of the pixels (0..1), by the name of the mask
    iou: float | None

    def cells(self, scored: bool) -> list[str]:
        """Its numbers in words: the shares and, where the image is scored, the IoU."""
        words = [percent(share) for share in self.shares.values()]
        return words + ["-" if self.iou is None else f"{self.iou:.3f}"] * scored


class Page(NamedTuple):
    """A page about one image."""

    picture: Image.Image
    tiles: dict[str, tuple[int, int, int, int]]  # left, top, right, bottom of each on the page
    rows: list[Row]  # of the legend, by class id, void last
    # What the tiles show, at the photo's size: see `draw_layers`. Of a large photo that takes long.
    layers: Callable[[], dict[str, Image.Image]]


def overlay(photo: np.ndarray, mask: np.ndarray, classes: Classes) -> Image.Image:
    """A photo (H, W, 3), also as PIL has it, with its mask (H, W): tinted, outlined, named."""
    masks = {"mask": mask.astype(np.uint8)}
    return _tiles(Image.fromarray(np.asarray(photo)), masks, classes, None)["mask"][0]


def draw_page(
    photo: np.ndarray,
    classes: Classes,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    ious: np.ndarray | None = None,
    miou: float | None = None,
    title: str = "",
) -> Page:
    """A white page: the tiles that there is something for side by side, and a legend below.

    The tiles are "image", "ground truth", "prediction", "error" (of both) and "confidence". Where
    only strokes or clicks are labelled they are "labels", and there is no "error".

    Args:
        photo: resized to a tile whose longer side has 320 to 640 px.
        truth, prediction: masks of the photo's size; one of them at least.
        confidence: probability of the predicted class, (H, W) float32.
        ious: (C,) of the classes, nan where a class has none; the legend's last column.
        miou, title: written at the top.
    """
    image = Image.fromarray(photo)
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.BICUBIC)
    strokes = truth is not None and is_sparse(np.count_nonzero(truth == VOID), truth.size)
    masks = {"labels" if strokes else "ground truth": truth, "prediction": prediction}
    masks = {name: mask.astype(np.uint8) for name, mask in masks.items() if mask is not None}
    tiles = _tiles(image, masks, classes, confidence)
    rows = legend_rows(masks, with_bright_background(classes) if strokes else classes, ious)

    # In print a page is as wide as the paper, so the more tiles, the larger the letters.
    (width, height), count = image.size, len(tiles)
    size = int(np.clip(count * width / 92, 14, 34))
    letters, large, line = font(size), font(round(1.3 * size)), round(1.6 * size)
    pitch = size + max(width, 14 * size)  # of the tiles, with room for what is written around them
    headings = [*masks, "IoU"] if ious is not None else [*masks]
    legend = _legend(rows, headings, letters, count * pitch - size)
    inner = max(count * pitch - size, legend.width)
    top = 3 * line  # of the tiles: below the title and their captions
    below = top + height + line  # where the keys of their colours end
    page = Image.new("RGB", (inner + 2 * size, below + size + legend.height), WHITE)
    draw, boxes = ImageDraw.Draw(page), {}
    score = "" if miou is None else f"mIoU {miou:.3f}"
    title = shorten(title, large, inner - large.getlength(score) - size)
    draw.text((size, line), title, INK, large, anchor="lm")
    draw.text((size + inner, line), score, INK, large, anchor="rm")
    for index, (name, (tile, caption)) in enumerate(tiles.items()):
        left = size + index * pitch
        draw.text((left, top - line // 2), caption, GREY, letters, anchor="lm")
        page.paste(tile, (left, top))
        boxes[name] = left, top, left + width, top + height
        for place, (word, colour) in enumerate(KEYS.get(name, {}).items()):
            _entry(draw, (left + 5 * size * place, below - line // 2), word, colour, letters)
    page.paste(legend, (size, below))
    layers = partial(draw_layers, photo, masks, classes, confidence)
    return Page(page, boxes, rows, layers)


def _legend(
    rows: list[Row], headings: list[str], letters: ImageFont.FreeTypeFont, room: int
) -> Image.Image:
    """A line for each class that occurs, in as many columns as fit into `room` px, at least one."""
    size, line, number = letters.size, round(1.6 * letters.size), 8 * letters.size
    names = 3 * size + max(round(letters.getlength(row.name)) for row in rows)
    width = names + number * len(headings) + 2 * size
    columns = int(np.clip((room + 2 * size) // width, 1, -(-len(rows) // 4)))
    lines = -(-len(rows) // columns)  # below their headings
    legend = Image.new("RGB", (columns * width - 2 * size, line * (1 + lines)), WHITE)
    draw = ImageDraw.Draw(legend)
    for start in range(0, len(rows), lines):
        left, part = start // lines * width, rows[start : start + lines]
        draw.text((left, line // 2), "pixels in", GREY, letters, anchor="lm")
        for index, row in enumerate(part, start=1):
            _entry(draw, (left, index * line + line // 2), row.name, row.colour, letters)
        for index, cells in enumerate([headings, *(row.cells("IoU" in headings) for row in part)]):
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


def _tiles(
    image: Image.Image,
    masks: dict[str, np.ndarray],
    classes: Classes,
    confidence: np.ndarray | None,
) -> dict[str, tuple[Image.Image, str]]:
    """The tiles of a page, of the image's size, each with its caption."""
    shown = {name: fit(mask, image.size, name == "labels") for name, mask in masks.items()}
    captions = {}
    if {"ground truth", "prediction"} == set(masks):
        truth, prediction = masks.values()
        scored = truth != VOID
        if scored.any():
            captions["error"] = f"error {np.mean(prediction[scored] != truth[scored]):.1%}"
    if confidence is not None:
        captions["confidence"] = f"confidence {confidence.mean():.1%}"
        confidence = np.asarray(Image.fromarray(confidence).resize(image.size, Image.BILINEAR))
    reach = max(1, round(max(image.size) / 400))
    layers = draw_layers(np.asarray(image), shown, classes, confidence, reach)
    tiles = {}
    for name, layer in layers.items():
        if name in shown:
            layer = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
            if name != "labels":
                write_names(layer, shown[name], classes)
        tiles[name] = layer, captions.get(name, name)
    return tiles


def legend_rows(
    masks: dict[str, np.ndarray], classes: Classes, ious: np.ndarray | None = None
) -> list[Row]:
    """What occurs in masks (H, W) of one image, by class id, void last; `ious` (C,) with nan."""
    shares = {  # not by bincount, which takes 8 bytes a pixel
        name: np.array(Image.fromarray(mask.astype(np.uint8)).histogram()) / mask.size
        for name, mask in masks.items()
    }
    rows = []
    for label in np.flatnonzero(sum(shares.values())).tolist():
        name, colour, iou = "void", WHITE, np.nan
        if label != VOID:
            name, colour = classes.names[label], classes.colours[label]
            iou = np.nan if ious is None else ious[label]
        own = {mask: float(share[label]) for mask, share in shares.items()}
        rows.append(Row(label, name, colour, own, None if np.isnan(iou) else float(iou)))
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
