"""Pictures of masks: classes over the photo, errors, confidence, and the page that shows them all.

A mask is a uint8 or int64 array (H, W) of class ids, `VOID` where there is none; a photo is a uint8
array (H, W, 3), RGB.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data.classes import VOID, Classes, Colour, is_sparse

WHITE, BLACK, INK, GREY = (255, 255, 255), (0, 0, 0), (32, 33, 36), (110, 114, 120)
# They differ in hue and in lightness, so also in print.
RIGHT, WRONG, NOT_SCORED = (203, 224, 238), (213, 80, 0), (158, 158, 158)
HEAT = colormaps["viridis"]  # lightness increases: readable in grey and for colour-blind readers
KEYS = {  # what the colours of a tile mean, written below it
    "error": {"right": RIGHT, "wrong": WRONG, "void": NOT_SCORED},
    "confidence": {f"{p}%": tuple(round(255 * c) for c in HEAT(p / 100)[:3]) for p in (0, 50, 100)},
}
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page
# For strokes on the background, whose black is hard to see: that which is least like a class.
BRIGHT = (0, 255, 255), (255, 240, 0), (255, 0, 255)
OPACITY = 0.55  # of the tint of a class over the photo
NAMED_FROM = 0.002  # share of the image that a class needs to be named in it
Box = tuple[int, int, int, int]  # left, top, right, bottom, px


class Row(NamedTuple):
    """A class, or void, that occurs in an image: a row of the legend."""

    label: int
    name: str
    colour: tuple[int, int, int]
    shares: dict[str, float]  # of the pixels (0..1), by the name of the mask
    iou: float | None

    def cells(self, scored: bool) -> list[str]:
        """Its numbers in words: the shares and, where the image is scored, the IoU."""
        words = [percent(share) for share in self.shares.values()]
        return words + ["-" if self.iou is None else f"{self.iou:.3f}"] * scored


class Page(NamedTuple):
    """A page about one image."""

    picture: Image.Image
    tiles: dict[str, Box]  # where each is on the page; see `draw_page`
    rows: list[Row]  # of the legend, by class id, void last
    # What the tiles show, at the photo's size: see `draw_layers`. Of a large photo that takes long.
    layers: Callable[[], dict[str, Image.Image]]


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def overlay(photo: np.ndarray, mask: np.ndarray, classes: Classes) -> Image.Image:
    """The photo (H, W, 3) with its mask (H, W): classes are tinted, outlined and named."""
    masks = {"mask": mask.astype(np.uint8)}
    return _tiles(Image.fromarray(photo), masks, classes, None, ())["mask"][0]


def tint(mask: np.ndarray, classes: Classes, sparse: bool = False, reach: int = 1) -> Image.Image:
    """What lies over a photo: the classes of its mask (H, W) in RGBA, with outlines of `reach` px.

    The background, a class 0 whose colour is black, is clear, void whitish. Where the mask is
    sparse, its labels are opaque, and void is clear.
    """
    palette = np.full((256, 4), 255 if sparse else round(255 * OPACITY), np.uint8)
    palette[:, :3] = np.reshape(classes.palette(), (256, 3))
    if sparse:
        palette[VOID, 3] = 0
    else:
        palette[VOID, :3] = WHITE
        palette[0, 3] *= classes.colours[0] != BLACK
    pixels = palette[mask]
    if not sparse:
        pixels[_outlines(mask, reach)] = 255
    return Image.fromarray(pixels)


def _is_sparse(mask: np.ndarray) -> bool:
    return is_sparse(np.count_nonzero(mask == VOID), mask.size)


def _bright(classes: Classes) -> Colour:
    """Of the `BRIGHT` colours the one farthest from those of all classes."""
    others = np.array(classes.colours[1:])
    return max(BRIGHT, key=lambda colour: np.linalg.norm(others - colour, axis=1).min())


def _fit(mask: np.ndarray, size: tuple[int, int], sparse: bool) -> np.ndarray:
    """A mask (H, W) on a tile of this size (w, h), (h, w) uint8; a sparse one drawn with a pen.

    Nothing vanishes: where classes meet, the smaller lies on top, and no pen covers a pixel.
    """
    if not sparse:
        return np.asarray(Image.fromarray(mask).resize(size, Image.NEAREST))
    (width, height), (rows, columns) = size, mask.shape
    reach = round(max(size) / 200)  # px from the middle of the pen, which is a disc
    y, x = np.mgrid[: 2 * reach + 1, : 2 * reach + 1]
    pen = np.argwhere(np.hypot(y - reach, x - reach) < reach + 0.5)
    drawn, places = np.full((height, width), VOID, np.uint8), {}
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)[:VOID]
    for label in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]:
        own = mask == label
        places[label] = np.array(Image.fromarray(own).resize(size, Image.NEAREST))
        y, x = np.nonzero(own)
        places[label][y * height // rows, x * width // columns] = True
        framed = np.pad(places[label], reach)
        for down, right in pen:
            drawn[framed[down : down + height, right : right + width]] = label
    for label, place in places.items():
        drawn[place] = label
    return drawn


def _outlines(mask: np.ndarray, reach: int) -> np.ndarray:
    """Bool (H, W): pixels near a class of higher id, so a thin thing still shows its colour."""
    values = np.where(mask == VOID, np.uint8(0), mask)
    highest = Image.fromarray(values).filter(ImageFilter.MaxFilter(2 * reach + 1))
    return (np.asarray(highest) > values) & (mask != VOID)


def _write_names(picture: Image.Image, mask: np.ndarray, classes: Classes) -> None:
    """Writes the name of each class into its region, the largest first, where there is room."""
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[[0, VOID] if classes.colours[0] == BLACK else VOID] = 0
    size = max(11, round(max(picture.size) / 32))
    letters, draw, written = font(size), ImageDraw.Draw(picture), np.zeros(mask.shape, bool)
    for label in np.argsort(-counts, kind="stable"):
        if counts[label] < NAMED_FROM * mask.size:
            break
        name = classes.names[label]
        width, height = round(letters.getlength(name) + 0.8 * size), round(1.4 * size)
        if width > picture.width or height > picture.height:
            continue
        x, y = _middle(mask == label)
        left = min(max(x - width // 2, 0), picture.width - width)
        top = min(max(y - height // 2, 0), picture.height - height)
        covered = written[top : top + height, left : left + width]
        if not covered.any():
            covered[:] = True
            box = left, top, left + width - 1, top + height - 1
            draw.rounded_rectangle(box, radius=size // 3, fill=INK)
            middle = left + width // 2, top + height // 2
            draw.text(middle, name, WHITE, letters, anchor="mm")


def _middle(region: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a region, bool (H, W), in the middle of its middle row."""
    rows = np.flatnonzero(region.any(axis=1))
    y = rows[len(rows) // 2]
    columns = np.flatnonzero(region[y])
    return int(columns[len(columns) // 2]), int(y)


def error_map(prediction: np.ndarray, truth: np.ndarray) -> Image.Image:
    """Right pixels of the prediction (H, W) pale blue, wrong ones orange, void ones grey."""
    picture = np.where((prediction == truth)[..., None], np.uint8(RIGHT), np.uint8(WRONG))
    picture[truth == VOID] = NOT_SCORED
    return Image.fromarray(picture)


def heat_map(confidence: np.ndarray) -> Image.Image:
    """Probabilities (H, W), 0..1, from dark blue (0) to yellow (1)."""
    return Image.fromarray(HEAT(confidence, bytes=True)[..., :3])


def draw_layers(
    photo: np.ndarray,
    masks: dict[str, np.ndarray],
    classes: Classes,
    confidence: np.ndarray | None,
    sparse: Collection[str],
    reach: int = 1,
) -> dict[str, Image.Image]:
    """The image, and what lies over it: masks (see `tint`), "error" and "confidence", of its size.

    Args:
        sparse: the names of the masks that are.
    """
    layers = {"image": Image.fromarray(photo)}
    for name, mask in masks.items():
        layers[name] = tint(mask, classes, name in sparse, reach)
    if {"ground truth", "prediction"} == set(masks):
        layers["error"] = error_map(masks["prediction"], masks["ground truth"])
    if confidence is not None:
        layers["confidence"] = heat_map(confidence)
    return layers


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
        miou: written at the top right.
        title: written at the top left.
    """
    image = Image.fromarray(photo)
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.BICUBIC)
    known = "labels" if truth is not None and _is_sparse(truth) else "ground truth"
    masks = {known: truth, "prediction": prediction}
    masks = {name: mask.astype(np.uint8) for name, mask in masks.items() if mask is not None}
    sparse = [name for name, mask in masks.items() if _is_sparse(mask)]
    if sparse and not any(classes.colours[0]):
        classes = replace(classes, colours=(_bright(classes), *classes.colours[1:]))
    tiles = _tiles(image, masks, classes, confidence, sparse)
    rows = legend_rows(masks, classes, ious)

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
    layers = partial(draw_layers, photo, masks, classes, confidence, sparse)
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
    colour: tuple[int, int, int],
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
    sparse: Collection[str],
) -> dict[str, tuple[Image.Image, str]]:
    """The tiles of a page, of the image's size, each with its caption."""
    shown = {name: _fit(mask, image.size, name in sparse) for name, mask in masks.items()}
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
    layers = draw_layers(np.asarray(image), shown, classes, confidence, sparse, reach)
    tiles = {}
    for name, layer in layers.items():
        if name in shown:
            layer = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
            if name not in sparse:
                _write_names(layer, shown[name], classes)
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
