"""Pictures of masks: index image, class colours over the photo, errors, confidence, and a page of all.

In this module a mask is a uint8 or int64 array (H, W) of class ids, `VOID` where there is none.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from torch.nn.functional import max_pool2d
from torchvision.utils import draw_segmentation_masks

from data.classes import VOID, Classes

WHITE, INK, GREY, RULE = (255, 255, 255), (32, 33, 36), (110, 114, 120), (208, 211, 215)
RIGHT, WRONG, NOWHERE = (203, 224, 238), (213, 80, 0), (158, 158, 158)  # apart in hue and in lightness, also in print
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page
LABEL_COVER = 0.7  # a name is written inside its class where that covers this share of the name's box, else beside it,
NAMED_FROM = 0.002  # unless the class has less than this share of the image
HEAT = colormaps["viridis"]  # grows lighter all the way: readable in grey and for colour-blind readers


class Occurrence(NamedTuple):
    """A class, or void, that occurs in an image."""

    label: int
    name: str
    colour: tuple[int, int, int]
    shares: dict[str, float]  # of the pixels (0..1), by the name of the mask
    iou: float | None


class Panel(NamedTuple):
    """A page about one image."""

    picture: Image.Image
    tiles: dict[str, tuple[int, int, int, int]]  # left, top, right, bottom of each on the page, px; see `panel`
    classes: list[Occurrence]  # what its legend lists, by class id, void last


def colour_mask(mask: np.ndarray, classes: Classes) -> Image.Image:
    """The mask (H, W) as a palette image (mode "P", 8 bits): pixel values are class ids, colours are for the eye."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(classes.palette())
    return picture


def overlay(image: Image.Image, mask: np.ndarray, classes: Classes, opacity: float = 0.55) -> Image.Image:
    """The photo (W x H) under its mask (H, W): classes tinted, outlined and named, void whitened, background as it is.

    Args:
        opacity: share of the class colour in a tinted pixel, 0..1.
    """
    mask = mask.astype(np.uint8)
    counts = np.bincount(mask.ravel(), minlength=256)
    present = [value for value in np.flatnonzero(counts) if value != 0]
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    if present:
        regions = torch.from_numpy(np.stack([mask == value for value in present]))
        colours = [WHITE if value == VOID else classes.colours[value] for value in present]
        pixels = draw_segmentation_masks(pixels, regions, alpha=opacity, colors=colours)
    pixels[:, _borders(mask)] = 255
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    named = sorted((value for value in present if value != VOID), key=lambda value: -counts[value])
    _write_names(picture, {classes.names[value]: mask == value for value in named})
    return picture


def error_map(prediction: np.ndarray, target: np.ndarray) -> Image.Image:
    """Where the prediction (H, W) is right (pale blue), wrong (orange) or, the target being void, not scored (grey)."""
    picture = np.where((prediction == target)[..., None], np.uint8(RIGHT), np.uint8(WRONG))
    picture[target == VOID] = NOWHERE
    return Image.fromarray(picture)


def heat_map(confidence: np.ndarray) -> Image.Image:
    """Probabilities (H, W), 0..1, from dark blue (0) to yellow (1)."""
    return Image.fromarray(HEAT(confidence, bytes=True)[..., :3])


def panel(
    image: Image.Image,
    prediction: np.ndarray,
    classes: Classes,
    target: np.ndarray | None = None,
    title: str = "",
    scores: Mapping[int, float | None] | None = None,
    miou: float | None = None,
    confidence: np.ndarray | None = None,
) -> Panel:
    """A white page: photo, ground truth, prediction and errors side by side, below them the classes that occur.

    Its tiles are called "image", "ground truth", "prediction", "error" and "confidence".

    Args:
        image: the photo, W x H; large and small ones are resized to a tile of 320 to 640 px.
        prediction, target: masks (H, W); without a target there is neither ground truth nor error.
        scores: IoU (0..1) of each class id, None where it has none; without scores the legend has no such column.
        miou: mean IoU (0..1), written at the top right.
        confidence: probability of the predicted class, (H, W) float32; a last tile with a scale.
    """
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    photo = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    masks = {"prediction": prediction} if target is None else {"ground truth": target, "prediction": prediction}
    tiles = _tiles(photo, masks, classes, confidence)
    captions = {name: name for name in tiles}
    if target is not None and (scored := target != VOID).any():
        captions["error"] += f" {np.mean(prediction[scored] != target[scored]):.1%}"
    if confidence is not None:
        captions["confidence"] += f" {confidence.mean():.1%}"

    # In print a page is as wide as the paper, so the more tiles, the larger the letters.
    size = int(np.clip(max(max(photo.size) / 28, len(tiles) * width / 95), 14, 26))
    font, large = ImageFont.load_default(size=size), ImageFont.load_default(size=round(1.3 * size))
    gap, line = size, round(1.6 * size)
    keys = {"error": _error_key, "confidence": _heat_scale}
    keys = {name: key(font) for name, key in keys.items() if name in tiles}
    wide = {name: gap + key.width for name, key in keys.items()}
    column = max(width, *(round(font.getlength(text)) + wide.get(name, 0) for name, text in captions.items()))
    present = occurrences(masks, classes, scores)
    heading, *entries = _legend(present, list(masks), scores is not None, font)
    inner = max(len(tiles) * (column + gap) - gap, heading.width, 24 * size)
    per_row = min((inner + 2 * gap) // (heading.width + 2 * gap), -(-len(entries) // 4))
    rows = -(-len(entries) // per_row)
    top = 2 * line if title or miou is not None else gap // 2
    page = Image.new("RGB", (inner + 2 * gap, top + line + height + 2 * gap + (rows + 1) * line), WHITE)
    draw = ImageDraw.Draw(page)

    score = "" if miou is None else f"mIoU {miou:.3f}"
    draw.text((gap, line), shorten(title, large, inner - large.getlength(score) - 2 * gap), INK, large, anchor="lm")
    draw.text((gap + inner, line), score, INK, large, anchor="rm")
    places = {}
    for index, (name, tile) in enumerate(tiles.items()):
        left = gap + index * (column + gap)
        draw.text((left, top + line // 2), captions[name], GREY, font, anchor="lm")
        if name in keys:
            page.paste(keys[name], (left + column - keys[name].width, top))
        draw.rectangle((left - 1, top + line - 1, left + width, top + line + height), outline=RULE)
        page.paste(tile, (left, top + line))
        places[name] = (left, top + line, left + width, top + line + height)
    below = top + line + height + gap
    for index, entry in enumerate(entries):
        left, row = gap + index // rows * (entry.width + 2 * gap), index % rows
        if row == 0:
            page.paste(heading, (left, below))
        page.paste(entry, (left, below + (row + 1) * line))
    return Panel(page, places, present)


def occurrences(
    masks: Mapping[str, np.ndarray], classes: Classes, scores: Mapping[int, float | None] | None = None
) -> list[Occurrence]:
    """What occurs in masks (H, W) of one image, by class id, void last; see `panel` for the scores."""
    shares = {name: np.bincount(mask.ravel(), minlength=256) / mask.size for name, mask in masks.items()}
    found = []
    for value in np.flatnonzero(sum(shares.values())).tolist():
        name, colour = ("void", WHITE) if value == VOID else (classes.names[value], classes.colours[value])
        own = {mask: float(share[value]) for mask, share in shares.items()}
        found.append(Occurrence(value, name, colour, own, (scores or {}).get(value)))
    return found


def percent(share: float) -> str:
    """A share (0..1) of the pixels in words: a class of a few pixels is not one that is not there."""
    return "-" if share == 0 else "<0.1%" if share < 0.0005 else f"{share:.1%}"


def _tiles(
    photo: Image.Image, masks: Mapping[str, np.ndarray], classes: Classes, confidence: np.ndarray | None
) -> dict[str, Image.Image]:
    """The tiles of a page, of the photo's size, from masks and confidence of any size."""
    shown = {
        name: np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST))
        for name, mask in masks.items()
    }
    tiles = {"image": photo} | {name: overlay(photo, mask, classes) for name, mask in shown.items()}
    if "ground truth" in shown:
        tiles["error"] = error_map(shown["prediction"], shown["ground truth"])
    if confidence is not None:
        resized = Image.fromarray(confidence).resize(photo.size, Image.Resampling.BILINEAR)
        tiles["confidence"] = heat_map(np.asarray(resized))
    return tiles


def _borders(mask: np.ndarray) -> torch.Tensor:
    """Bool (H, W): the pixels next to a class of higher id, so that thin things keep their own pixels for the colour.

    Void has no borders: whitened it is one already.
    """
    reach = max(1, round(max(mask.shape) / 400))
    values = torch.from_numpy(mask).float()
    void = values == VOID
    values = values.masked_fill(void, 0)[None]
    rows = max_pool2d(values, (1, 2 * reach + 1), 1, (0, reach))
    highest = max_pool2d(rows, (2 * reach + 1, 1), 1, (reach, 0))
    return (highest > values)[0] & ~void


def _write_names(picture: Image.Image, regions: dict[str, np.ndarray]) -> None:
    """Write each name inside its region, bool (H, W), or beside it, where there is room; the first ones go first."""
    size, margin = max(11, round(max(picture.size) / 32)), round(0.4 * min(picture.size))
    font, draw, taken = ImageFont.load_default(size=size), ImageDraw.Draw(picture), {}
    for name, region in regions.items():
        half_w, half_h = round(font.getlength(name) / 2 + 0.4 * size), round(0.7 * size)
        if 2 * half_w >= picture.width or 2 * half_h >= picture.height or region.mean() < NAMED_FROM:
            continue
        shape = Image.fromarray(np.uint8(255) * region)
        cover = np.asarray(shape.filter(ImageFilter.BoxBlur((half_w, half_h)))) / 255
        # The thick of the region is preferred; without the margin Pillow would see it go on outside the image.
        blurred = ImageOps.expand(shape, margin).filter(ImageFilter.GaussianBlur(margin / 3))
        depth = np.asarray(ImageOps.crop(blurred, margin)) / 255
        inside = (2 * cover + depth)[half_h:-half_h, half_w:-half_w]
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        box = int(x), int(y), int(x) + 2 * half_w, int(y) + 2 * half_h
        if cover[y + half_h, x + half_w] >= LABEL_COVER and _is_free(box, taken):
            taken[box] = name
        elif beside := _beside(region, half_w, half_h, size, taken):
            box, spot = beside
            taken[box] = name
            line = (spot, ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2))
            draw.line(line, WHITE, size // 3), draw.line(line, INK, max(1, size // 8))
            dot = size // 5
            draw.ellipse((spot[0] - dot, spot[1] - dot, spot[0] + dot, spot[1] + dot), INK, WHITE)
    for box, name in taken.items():
        draw.rounded_rectangle(box, radius=size // 3, fill=INK)
        draw.text(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2), name, WHITE, font, anchor="mm")


def _beside(
    region: np.ndarray, half_w: int, half_h: int, size: int, taken: Mapping[tuple, str]
) -> tuple[tuple[int, int, int, int], tuple[int, int]] | None:
    """A free box for a name next to its region, the one that hides the least of it, and the spot (x, y) it means."""
    height, width = region.shape
    thick = Image.fromarray(np.uint8(255) * region).filter(ImageFilter.GaussianBlur(size / 3))
    y, x = map(int, np.unravel_index((np.asarray(thick) * region).argmax(), region.shape))
    best = None
    for away in (1, 2, 4):
        for right, down in ((0, -1), (0, 1), (1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1)):
            left = x + right * (half_w + away * size) - half_w
            top = y + down * (half_h + away * size) - half_h
            box = left, top, left + 2 * half_w, top + 2 * half_h
            if left >= 0 and top >= 0 and box[2] < width and box[3] < height and _is_free(box, taken):
                hidden = region[top : box[3], left : box[2]].mean()
                if best is None or hidden < best[0]:
                    best = hidden, box
    return best and (best[1], (x, y))


def _is_free(box: tuple[int, int, int, int], taken: Mapping[tuple, str]) -> bool:
    return all(box[0] > other[2] or other[0] > box[2] or box[1] > other[3] or other[1] > box[3] for other in taken)


def _error_key(font: ImageFont.FreeTypeFont) -> Image.Image:
    """What the colours of an error map mean: one line high."""
    words = {"right": RIGHT, "wrong": WRONG, "void": NOWHERE}
    line, swatch, space = round(1.6 * font.size), round(0.8 * font.size), font.size // 3
    lengths = [math.ceil(font.getlength(word)) + 1 + swatch + space for word in words]
    key = Image.new("RGB", (sum(lengths) + 2 * font.size, line), WHITE)
    draw, left, top = ImageDraw.Draw(key), 0, (line - swatch) // 2
    for (word, colour), length in zip(words.items(), lengths):
        draw.rectangle((left, top, left + swatch, top + swatch), fill=colour)
        draw.text((left + swatch + space, line // 2), word, GREY, font, anchor="lm")
        left += length + font.size
    return key


def _heat_scale(font: ImageFont.FreeTypeFont) -> Image.Image:
    """The colours of a heat map from left to right, with what the ends mean: one line high."""
    line, bar, space = round(1.6 * font.size), round(5 * font.size), font.size // 3
    first, last = (math.ceil(font.getlength(text)) + 1 for text in ("0%", "100%"))
    scale = Image.new("RGB", (first + last + bar + 2 * space, line), WHITE)
    draw = ImageDraw.Draw(scale)
    draw.text((0, line // 2), "0%", GREY, font, anchor="lm")
    draw.text((scale.width, line // 2), "100%", GREY, font, anchor="rm")
    colours = heat_map(np.linspace(0, 1, bar)[None].repeat(round(0.8 * font.size), 0))
    scale.paste(colours, (first + space, (line - colours.height) // 2))
    return scale


def _legend(
    present: list[Occurrence], masks: list[str], scored: bool, font: ImageFont.FreeTypeFont
) -> list[Image.Image]:
    """The legend as pictures of equal size: its heading, then a line for each class that occurs."""
    table = [["pixels in", *masks] + ["IoU"] * scored]
    for row in present:
        cells = [shorten(row.name, font, 10 * font.size), *map(percent, row.shares.values())]
        table.append(cells + ["-" if row.iou is None else f"{row.iou:.3f}"] * scored)
    swatch, line, space = round(1.1 * font.size), round(1.6 * font.size), round(font.size)
    widths = [max(round(font.getlength(text)) for text in cells) for cells in zip(*table)]
    left, middle, entries = swatch + space // 2, line // 2, []
    for colour, (name, *numbers) in zip([None, *(row.colour for row in present)], table):
        entry = Image.new(
            "RGB", (left + sum(widths) + len(numbers) * space + 2, line), WHITE
        )  # rounded glyphs reach out
        draw, ink = ImageDraw.Draw(entry), GREY if colour is None else INK
        if colour is not None:
            edge = middle - swatch // 2
            draw.rounded_rectangle((0, edge, swatch - 1, edge + swatch - 1), swatch // 5, fill=colour, outline=GREY)
        draw.text((left, middle), name, ink, font, anchor="lm")
        for index, number in enumerate(numbers, start=1):
            right = left + sum(widths[: index + 1]) + index * space
            draw.text((right, middle), number, ink, font, anchor="rm")
        entries.append(entry)
    return entries


def shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line of at most `room` px, its end replaced by an ellipsis where it is too long."""
    text = short = " ".join(text.split())
    while short and font.getlength(short) > room:
        text = text[:-1]
        short = text and text + "…"
    return short
