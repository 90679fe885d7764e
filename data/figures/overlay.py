"""Pictures of masks: index image, class colours over the photo, errors, confidence, all on a page.

In this module a mask is a uint8 or int64 array (H, W) of class ids, `VOID` where there is none.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from data.classes import VOID, Classes

WHITE, INK, GREY, RULE = (255, 255, 255), (32, 33, 36), (110, 114, 120), (208, 211, 215)
# They differ in hue and in lightness, so also in print.
RIGHT, WRONG, NOT_SCORED = (203, 224, 238), (213, 80, 0), (158, 158, 158)
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page
NAMED_FROM = 0.002  # share of the image that a class needs to be named in it
HEAT = colormaps["viridis"]  # lightness increases: readable in grey and for colour-blind readers
Box = tuple[int, int, int, int]  # left, top, right, bottom, px


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
    tiles: dict[str, Box]  # where each is on the page; see `panel`
    classes: list[Occurrence]  # what its legend lists, by class id, void last


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def colour_mask(mask: np.ndarray, classes: Classes) -> Image.Image:
    """The mask (H, W) as a palette image (mode "P", 8 bits), whose pixel values are class ids."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(classes.palette())
    return picture


def overlay(
    image: Image.Image, mask: np.ndarray, classes: Classes, opacity: float = 0.55
) -> Image.Image:
    """The photo with its mask: classes are tinted, outlined and named, void is whitened.

    The background stays as it is.

    Args:
        image: W x H.
        mask: (H, W).
        classes: their names and colours.
        opacity: share of the class colour in a tinted pixel, 0..1.
    """
    mask = mask.astype(np.uint8)
    photo = np.asarray(image.convert("RGB"), np.float32)
    palette = np.float32(classes.palette()).reshape(256, 3)
    palette[VOID] = WHITE
    tinted = (1 - opacity) * photo + opacity * palette[mask]
    pixels = np.where((mask == 0)[..., None], photo, tinted).astype(np.uint8)
    pixels[_borders(mask)] = WHITE
    picture = Image.fromarray(pixels)
    _write_names(picture, mask, classes)
    return picture


def error_map(prediction: np.ndarray, target: np.ndarray) -> Image.Image:
    """Right pixels of the prediction (H, W) pale blue, wrong ones orange, void ones grey."""
    picture = np.where((prediction == target)[..., None], np.uint8(RIGHT), np.uint8(WRONG))
    picture[target == VOID] = NOT_SCORED
    return Image.fromarray(picture)


def heat_map(confidence: np.ndarray) -> Image.Image:
    """Probabilities (H, W), 0..1, from dark blue (0) to yellow (1)."""
    return Image.fromarray(HEAT(confidence, bytes=True)[..., :3])


def panel(
    image: Image.Image,
    prediction: np.ndarray | None,
    classes: Classes,
    target: np.ndarray | None = None,
    title: str = "",
    scores: Mapping[int, float | None] | None = None,
    miou: float | None = None,
    confidence: np.ndarray | None = None,
) -> Panel:
    """A white page: photo, ground truth, prediction and errors side by side, and a legend below.

    Its tiles are called "image", "ground truth", "prediction", "error" and "confidence"; those that
    need what is not given are left out.

    Args:
        image: the photo, W x H; it is resized to a tile whose longer side has 320 to 640 px.
        prediction: mask (H, W); None shows the ground truth alone.
        classes: their names and colours.
        target: mask (H, W), the ground truth; None shows the prediction alone.
        title: written at the top left.
        scores: IoU (0..1) of each class id, None where it has none; without scores the legend has
            no such column.
        miou: mean IoU (0..1), written at the top right.
        confidence: probability of the predicted class, (H, W) float32; a last tile with a scale.
    """
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    photo = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    masks = {"ground truth": target, "prediction": prediction}
    masks = {name: mask for name, mask in masks.items() if mask is not None}
    tiles = _tiles(photo, masks, classes, confidence)
    captions = _captions(list(tiles), masks, confidence)

    # In print a page is as wide as the paper, so the more tiles, the larger the letters.
    size = int(np.clip(max(max(photo.size) / 28, len(tiles) * width / 95), 14, 26))
    small, large = font(size), font(round(1.3 * size))
    gap, line = size, round(1.6 * size)
    keys = {"error": _error_key, "confidence": _heat_scale}
    keys = {name: key(small) for name, key in keys.items() if name in tiles}
    column = width  # of the page, for a tile and its caption
    for name, caption in captions.items():
        key = gap + keys[name].width if name in keys else 0
        column = max(column, round(small.getlength(caption)) + key)
    inner = max(len(tiles) * (column + gap) - gap, 24 * size)
    present = occurrences(masks, classes, scores)
    legend = _legend(present, list(masks), scores is not None, small, inner)
    inner = max(inner, legend.width)
    top = 2 * line if title or miou is not None else gap // 2
    below = top + line + height + gap
    page = Image.new("RGB", (inner + 2 * gap, below + legend.height + gap), WHITE)
    draw = ImageDraw.Draw(page)

    score = "" if miou is None else f"mIoU {miou:.3f}"
    room = inner - large.getlength(score) - 2 * gap
    draw.text((gap, line), shorten(title, large, room), INK, large, anchor="lm")
    draw.text((gap + inner, line), score, INK, large, anchor="rm")
    places = {}
    for index, (name, tile) in enumerate(tiles.items()):
        left = gap + index * (column + gap)
        draw.text((left, top + line // 2), captions[name], GREY, small, anchor="lm")
        if name in keys:
            page.paste(keys[name], (left + column - keys[name].width, top))
        box = left, top + line, left + width, top + line + height
        draw.rectangle((box[0] - 1, box[1] - 1, *box[2:]), outline=RULE)
        page.paste(tile, box[:2])
        places[name] = box
    page.paste(legend, (gap, below))
    return Panel(page, places, present)


def occurrences(
    masks: Mapping[str, np.ndarray],
    classes: Classes,
    scores: Mapping[int, float | None] | None = None,
) -> list[Occurrence]:
    """What occurs in masks (H, W) of one image, by class id, void last; scores as in `panel`."""
    shares = {
        name: np.bincount(mask.ravel(), minlength=256) / mask.size for name, mask in masks.items()
    }
    found = []
    for value in np.flatnonzero(sum(shares.values())).tolist():
        name, colour = "void", WHITE
        if value != VOID:
            name, colour = classes.names[value], classes.colours[value]
        own = {mask: float(share[value]) for mask, share in shares.items()}
        found.append(Occurrence(value, name, colour, own, (scores or {}).get(value)))
    return found


def percent(share: float) -> str:
    """A share (0..1) of the pixels in words; "-" only where there is no pixel at all."""
    return "-" if share == 0 else "<0.1%" if share < 0.0005 else f"{share:.1%}"


def _tiles(
    photo: Image.Image,
    masks: Mapping[str, np.ndarray],
    classes: Classes,
    confidence: np.ndarray | None,
) -> dict[str, Image.Image]:
    """The tiles of a page, of the photo's size, from masks and confidence of any size."""
    shown = {}
    for name, mask in masks.items():
        whole = Image.fromarray(mask.astype(np.uint8))
        shown[name] = np.asarray(whole.resize(photo.size, Image.Resampling.NEAREST))
    tiles = {"image": photo} | {name: overlay(photo, mask, classes) for name, mask in shown.items()}
    if len(shown) == 2:
        tiles["error"] = error_map(shown["prediction"], shown["ground truth"])
    if confidence is not None:
        resized = Image.fromarray(confidence).resize(photo.size, Image.Resampling.BILINEAR)
        tiles["confidence"] = heat_map(np.asarray(resized))
    return tiles


def _captions(
    tiles: list[str], masks: Mapping[str, np.ndarray], confidence: np.ndarray | None
) -> dict[str, str]:
    """What is written above each tile: its name and, if it has one, its share in percent."""
    captions = {name: name for name in tiles}
    if "error" in tiles and (scored := masks["ground truth"] != VOID).any():
        wrong = np.mean(masks["prediction"][scored] != masks["ground truth"][scored])
        captions["error"] = f"error {wrong:.1%}"
    if confidence is not None:
        captions["confidence"] = f"confidence {confidence.mean():.1%}"
    return captions


def _borders(mask: np.ndarray) -> np.ndarray:
    """Outlines, bool (H, W): the pixels that are next to a class of higher id.

    They are not on both sides of a border, so a thin thing still shows its colour. Void, which is
    white like an outline, has none.
    """
    reach = max(1, round(max(mask.shape) / 400))
    values = np.where(mask == VOID, np.uint8(0), mask)
    highest = Image.fromarray(values).filter(ImageFilter.MaxFilter(2 * reach + 1))
    return (np.asarray(highest) > values) & (mask != VOID)


def _write_names(picture: Image.Image, mask: np.ndarray, classes: Classes) -> None:
    """Writes the name of each class into its region, the largest region first.

    A name that would overlap an earlier one, or does not fit into the picture, is left out.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[[0, VOID]] = 0
    size = max(11, round(max(picture.size) / 32))
    letters, draw, written = font(size), ImageDraw.Draw(picture), np.zeros(mask.shape, bool)
    for value in np.argsort(-counts, kind="stable"):
        if counts[value] < NAMED_FROM * mask.size:
            break
        name = classes.names[value]
        width, height = round(letters.getlength(name) + 0.8 * size), round(1.4 * size)
        if width > picture.width or height > picture.height:
            continue
        x, y = _deepest(mask == value)
        left = min(max(x - width // 2, 0), picture.width - width)
        top = min(max(y - height // 2, 0), picture.height - height)
        covered = written[top : top + height, left : left + width]
        if not covered.any():
            covered[:] = True
            box = left, top, left + width - 1, top + height - 1
            draw.rounded_rectangle(box, radius=size // 3, fill=INK)
            middle = left + width // 2, top + height // 2
            draw.text(middle, name, WHITE, letters, anchor="mm")


def _deepest(region: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a region, bool (H, W), that has most of the region around it."""
    shape = Image.fromarray(np.uint8(255) * region)
    # Pillow's blur repeats the border of an image, so the region would count as larger there:
    # hence a margin of zeros.
    margin = round(0.4 * min(shape.size))
    blurred = ImageOps.expand(shape, margin).filter(ImageFilter.GaussianBlur(margin / 3))
    depth = np.asarray(ImageOps.crop(blurred, margin))
    depth = np.where(region, depth + 1.0, 0)  # + 1: in the region even if the blur rounds to 0
    deepest = np.argwhere(depth == depth.max())  # many, as the blur has 256 levels
    y, x = deepest[len(deepest) // 2].tolist()
    return x, y


def _error_key(letters: ImageFont.FreeTypeFont) -> Image.Image:
    """The meaning of the colours of an error map: one line high."""
    words = {"right": RIGHT, "wrong": WRONG, "void": NOT_SCORED}
    line, swatch, space = round(1.6 * letters.size), round(0.8 * letters.size), letters.size // 3
    lengths = [math.ceil(letters.getlength(word)) + 1 + swatch + space for word in words]
    key = Image.new("RGB", (sum(lengths) + 2 * letters.size, line), WHITE)
    draw, left, top = ImageDraw.Draw(key), 0, (line - swatch) // 2
    for (word, colour), length in zip(words.items(), lengths):
        draw.rectangle((left, top, left + swatch, top + swatch), fill=colour)
        draw.text((left + swatch + space, line // 2), word, GREY, letters, anchor="lm")
        left += length + letters.size
    return key


def _heat_scale(letters: ImageFont.FreeTypeFont) -> Image.Image:
    """The colours of a heat map from left to right, with what the ends mean: one line high."""
    line, bar, space = round(1.6 * letters.size), round(5 * letters.size), letters.size // 3
    first, last = (math.ceil(letters.getlength(text)) + 1 for text in ("0%", "100%"))
    scale = Image.new("RGB", (first + last + bar + 2 * space, line), WHITE)
    draw = ImageDraw.Draw(scale)
    draw.text((0, line // 2), "0%", GREY, letters, anchor="lm")
    draw.text((scale.width, line // 2), "100%", GREY, letters, anchor="rm")
    colours = heat_map(np.linspace(0, 1, bar)[None].repeat(round(0.8 * letters.size), 0))
    scale.paste(colours, (first + space, (line - colours.height) // 2))
    return scale


def _legend(
    present: list[Occurrence],
    masks: list[str],
    scored: bool,
    letters: ImageFont.FreeTypeFont,
    room: int,
) -> Image.Image:
    """A line for each class that occurs, in as many columns as fit into `room` px, at least one."""
    size = letters.size
    table = [["pixels in", *masks] + ["IoU"] * scored]
    for row in present:
        cells = [shorten(row.name, letters, 10 * size), *map(percent, row.shares.values())]
        table.append(cells + ["-" if row.iou is None else f"{row.iou:.3f}"] * scored)
    swatch, line, gap = round(1.1 * size), round(1.6 * size), 2 * size
    widths = [max(math.ceil(letters.getlength(text)) for text in cells) for cells in zip(*table)]
    indent = swatch + size // 2
    width = indent + sum(widths) + len(widths[1:]) * size + 2  # round letters overhang
    columns = max(1, min((room + gap) // (width + gap), math.ceil(len(present) / 4)))
    rows = math.ceil(len(present) / columns)
    legend = Image.new("RGB", (columns * (width + gap) - gap, (rows + 1) * line), WHITE)
    draw = ImageDraw.Draw(legend)
    heading, *entries = zip([None, *(row.colour for row in present)], table)
    for start in range(0, len(entries), rows):
        left, middle = start // rows * (width + gap), line // 2
        for colour, (name, *numbers) in [heading, *entries[start : start + rows]]:
            ink = GREY if colour is None else INK
            if colour is not None:
                top = middle - swatch // 2
                box = left, top, left + swatch - 1, top + swatch - 1
                draw.rounded_rectangle(box, swatch // 5, fill=colour, outline=GREY)
            draw.text((left + indent, middle), name, ink, letters, anchor="lm")
            right = left + indent + widths[0]
            for number, wide in zip(numbers, widths[1:]):
                right += size + wide
                draw.text((right, middle), number, ink, letters, anchor="rm")
            middle += line
    return legend


def shorten(text: str, letters: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line of at most `room` px, with an ellipsis for an end that does not fit."""
    text = short = " ".join(text.split())
    while short and letters.getlength(short) > room:
        text = text[:-1]
        short = text and text + "…"
    return short
