"""The page of an image: what `layers` draws of it side by side, and a legend."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.classes import VOID, Classes, Colour, is_sparse
from data.figures import layers
from data.figures.charts import short
from data.figures.layers import INK, WHITE, font

GREY = (110, 114, 120)
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page
WIDE = 0.75  # width of a letter, as a share of its size; few are wider


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
    """A row of the legend: what a colour means; its heading has none."""

    name: str
    colour: Colour | None
    cells: list[str]  # of a class: its share of each mask and, where the image is scored, its IoU


class Page(NamedTuple):
    """A page about one image."""

    picture: Image.Image
    layers: dict[str, Image.Image]  # see `draw_layers`; at the size of the photo
    tiles: dict[str, Image.Image]  # the same as they are on the page
    masks: dict[str, np.ndarray]  # (H, W) uint8, by the names of their tiles
    legend: list[Row]  # see `legend_rows`


def overlay(photo: np.ndarray, mask: np.ndarray, classes: Classes) -> Image.Image:
    """A photo (H, W, 3), also as PIL has it, with its mask (H, W): tinted, outlined, named."""
    return _lay_over(Image.fromarray(np.asarray(photo)), mask.astype(np.uint8), classes)


def draw_page(record: Record, classes: Classes) -> Page:
    """A white page: the tiles that there is something for side by side, and a legend below.

    The tiles are "image", "ground truth", "prediction", "error" (of both) and "confidence". Where
    only strokes or clicks are labelled they are "labels", and there is no "error". Their longer
    side has 320 to 640 px.
    """
    truth, sides = record.truth, np.array(record.photo.shape[1::-1])
    scale = np.clip(sides.max(), *TILE_SIDES) / sides.max()
    width, height = np.maximum(1, np.rint(sides * scale)).astype(int).tolist()
    strokes = truth is not None and is_sparse(np.count_nonzero(truth == VOID), truth.size)
    masks = {"labels" if strokes else "ground truth": truth, "prediction": record.prediction}
    masks = {name: mask for name, mask in masks.items() if mask is not None}
    drawn = layers.draw_layers(record.photo, masks, classes, record.confidence)
    smooth = {"image": Image.BICUBIC, "confidence": Image.BILINEAR}
    tiles = {
        name: layer.resize((width, height), smooth.get(name, Image.NEAREST))
        for name, layer in drawn.items()
    }
    for name, mask in masks.items():
        tiles[name] = _lay_over(tiles["image"], mask, classes, sparse=name == "labels")

    captions = dict(zip(tiles, tiles))
    if "error" in tiles and (scored := truth != VOID).any():
        captions["error"] = f"error {np.mean((record.prediction != truth)[scored]):.1%}"
    if record.confidence is not None:
        captions["confidence"] = f"confidence {record.confidence.mean():.1%}"
    # In print a page is as wide as the paper, so the more tiles, the larger the letters.
    count = len(tiles)
    size = int(np.clip(count * width / 92, 14, 34))
    letters, large, line = font(size), font(round(1.3 * size)), round(1.6 * size)
    pitch = size + max(width, 14 * size)  # of the tiles, with room for what is written around them
    rows = legend_rows(masks, classes, record.ious)
    rows += [Row(*key, []) for name in tiles for key in layers.KEYS.get(name, {}).items()]
    legend = _draw_legend(rows, letters, count * pitch - size)
    inner = max(count * pitch - size, legend.width)
    top = 3 * line  # of the tiles: below the title and their captions
    below = top + height + size  # of the legend
    page = Image.new("RGB", (inner + 2 * size, below + legend.height + size), WHITE)
    draw = ImageDraw.Draw(page)
    score = "" if record.miou is None else f"mIoU {record.miou:.3f}"
    title = short(record.title, int((inner - large.getlength(score)) / large.size / WIDE))
    draw.text((size, line), title, INK, large, anchor="lm")
    draw.text((size + inner, line), score, INK, large, anchor="rm")
    for index, (name, tile) in enumerate(tiles.items()):
        left = size + index * pitch
        draw.text((left, top - line // 2), captions[name], GREY, letters, anchor="lm")
        page.paste(tile, (left, top))
    page.paste(legend, (size, below))
    return Page(page, drawn, tiles, masks, rows)


def _lay_over(
    image: Image.Image, mask: np.ndarray, classes: Classes, sparse: bool = False
) -> Image.Image:
    """A mask (H, W) over an image of any size; unless it is sparse, with the names of classes."""
    shown, reach = layers.fit(mask, image.size, sparse), max(1, round(max(image.size) / 400))
    tinted = layers.tint(shown, classes, sparse, reach)
    tile = Image.alpha_composite(image.convert("RGBA"), tinted).convert("RGB")
    if not sparse:
        layers.write_names(tile, shown, classes)
    return tile


def _draw_legend(rows: list[Row], letters: ImageFont.FreeTypeFont, room: int) -> Image.Image:
    """Lines below a heading, in as many columns beside one another as fit into `room` px."""
    heading, *others = rows
    size, line, number = letters.size, round(1.6 * letters.size), 8 * letters.size
    names = 3 * size + max(round(letters.getlength(row.name)) for row in others)
    width = names + number * len(heading.cells) + 2 * size
    parts = int(np.clip((room + 2 * size) // width, 1, -(-len(others) // 4)))
    lines = -(-len(others) // parts)
    legend = Image.new("RGB", (parts * width - 2 * size, line * (1 + lines)), WHITE)
    draw = ImageDraw.Draw(legend)
    columns = [others[start : start + lines] for start in range(0, len(others), lines)]
    empty = Row("", None, [])  # above keys alone, which are of no class
    table = [row for part in columns for row in (heading if part[0].cells else empty, *part)]
    for index, (name, colour, cells) in enumerate(table):
        left, middle = index // (1 + lines) * width, index % (1 + lines) * line + line // 2
        ink, half = INK if colour else GREY, size // 2
        if colour:
            draw.rectangle((left, middle - half, left + 2 * half, middle + half), colour, GREY)
        draw.text((left + 3 * half * bool(colour), middle), name, ink, letters, anchor="lm")
        for place, cell in enumerate(cells, start=1):
            draw.text((left + names + number * place, middle), cell, ink, letters, anchor="rm")
    return legend


def legend_rows(
    masks: dict[str, np.ndarray], classes: Classes, ious: np.ndarray | None = None
) -> list[Row]:
    """A heading, then the classes in masks (H, W) of an image, void last; `ious` (C,) with nan."""
    shares = [layers.pixel_shares(mask) for mask in masks.values()]
    shown = layers.with_bright_background(classes) if "labels" in masks else classes
    rows = [Row("pixels in", None, [*masks, *["IoU"] * (ious is not None)])]
    for label in sorted(set().union(*shares)):
        is_void = label == VOID
        name, colour = ("void", WHITE) if is_void else (shown.names[label], shown.colours[label])
        rows.append(Row(name, colour, [percent(share.get(label, 0)) for share in shares]))
        if ious is not None:
            is_absent = is_void or np.isnan(ious[label])
            rows[-1].cells.append("-" if is_absent else f"{ious[label]:.3f}")
    return rows


def percent(share: float) -> str:
    """A share (0..1) of the pixels in words; "-" only where there is no pixel at all."""
    return "-" if share == 0 else "<0.1%" if share < 0.0005 else f"{share:.1%}"
