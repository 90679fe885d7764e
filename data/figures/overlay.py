"""Pictures of masks: index image, class colours over the photo, errors, confidence, all on a page.

In this module a mask is a uint8 or int64 array (H, W) of class ids, `VOID` where there is none.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from torch.nn.functional import max_pool2d
from torchvision.utils import draw_segmentation_masks

from data.classes import VOID, Classes

WHITE, INK, GREY, RULE = (255, 255, 255), (32, 33, 36), (110, 114, 120), (208, 211, 215)
# They differ in hue and in lightness, so also in print.
RIGHT, WRONG, NOT_SCORED = (203, 224, 238), (213, 80, 0), (158, 158, 158)
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page
# A name is written inside its class if the class covers this share of the name's box, else beside
# it. Classes that have less than that share of the image are not named.
LABEL_COVER, NAMED_FROM = 0.7, 0.002
HEAT = colormaps["viridis"]  # lightness increases: readable in grey and for colour-blind readers
DIRECTIONS = (0, -1), (0, 1), (1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1)  # (x, y)
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
    counts = np.bincount(mask.ravel(), minlength=256)
    present = [value for value in np.flatnonzero(counts) if value != 0]
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    if present:
        regions = torch.from_numpy(np.stack([mask == value for value in present]))
        colours = [WHITE if value == VOID else classes.colours[value] for value in present]
        pixels = draw_segmentation_masks(pixels, regions, alpha=opacity, colors=colours)
    pixels[:, _borders(mask)] = 255
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    largest_first = sorted(present, key=lambda value: -counts[value])
    regions = {classes.names[value]: mask == value for value in largest_first if value != VOID}
    _write_names(picture, regions)
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
    prediction: np.ndarray,
    classes: Classes,
    target: np.ndarray | None = None,
    title: str = "",
    scores: Mapping[int, float | None] | None = None,
    miou: float | None = None,
    confidence: np.ndarray | None = None,
) -> Panel:
    """A white page: photo, ground truth, prediction and errors side by side, and a legend below.

    Its tiles are called "image", "ground truth", "prediction", "error" and "confidence".

    Args:
        image: the photo, W x H; it is resized to a tile whose longer side has 320 to 640 px.
        prediction: mask (H, W).
        classes: their names and colours.
        target: mask (H, W); without it there are neither ground truth nor errors.
        title: written at the top left.
        scores: IoU (0..1) of each class id, None where it has none; without scores the legend has
            no such column.
        miou: mean IoU (0..1), written at the top right.
        confidence: probability of the predicted class, (H, W) float32; a last tile with a scale.
    """
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    photo = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    masks = {"prediction": prediction}
    if target is not None:
        masks = {"ground truth": target, "prediction": prediction}
    tiles = _tiles(photo, masks, classes, confidence)
    captions = _captions(list(tiles), masks, confidence)

    # In print a page is as wide as the paper, so the more tiles, the larger the letters.
    size = int(np.clip(max(max(photo.size) / 28, len(tiles) * width / 95), 14, 26))
    small, large = font(size), font(round(1.3 * size))
    gap, line = size, round(1.6 * size)
    keys = {"error": _error_key, "confidence": _heat_scale}
    keys = {name: key(small) for name, key in keys.items() if name in tiles}
    present = occurrences(masks, classes, scores)
    heading, *entries = _legend(present, list(masks), scores is not None, small)

    column = width  # of the page, for a tile and its caption
    for name, caption in captions.items():
        key = gap + keys[name].width if name in keys else 0
        column = max(column, round(small.getlength(caption)) + key)
    inner = max(len(tiles) * (column + gap) - gap, heading.width, 24 * size)
    per_row = min((inner + 2 * gap) // (heading.width + 2 * gap), -(-len(entries) // 4))
    rows = -(-len(entries) // per_row)
    top = 2 * line if title or miou is not None else gap // 2
    below = top + line + height + gap
    page = Image.new("RGB", (inner + 2 * gap, below + gap + (rows + 1) * line), WHITE)
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
    for index, entry in enumerate(entries):
        left, row = gap + index // rows * (entry.width + 2 * gap), index % rows
        if row == 0:
            page.paste(heading, (left, below))
        page.paste(entry, (left, below + (row + 1) * line))
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
    if "ground truth" in shown:
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
    target = masks.get("ground truth")
    if target is not None and (scored := target != VOID).any():
        wrong = np.mean(masks["prediction"][scored] != target[scored])
        captions["error"] = f"error {wrong:.1%}"
    if confidence is not None:
        captions["confidence"] = f"confidence {confidence.mean():.1%}"
    return captions


def _borders(mask: np.ndarray) -> torch.Tensor:
    """Outlines, bool (H, W): the pixels that are next to a class of higher id.

    They are not on both sides of a border, so a thin thing still shows its colour. Void, which is
    white like an outline, has none.
    """
    reach = max(1, round(max(mask.shape) / 400))
    values = torch.from_numpy(mask).float()
    void = values == VOID
    values = values.masked_fill(void, 0)[None]
    rows = max_pool2d(values, (1, 2 * reach + 1), 1, (0, reach))
    highest = max_pool2d(rows, (2 * reach + 1, 1), 1, (reach, 0))
    return (highest > values)[0] & ~void


def _write_names(picture: Image.Image, regions: dict[str, np.ndarray]) -> None:
    """Writes each name inside its region, bool (H, W), or beside it; the first ones have priority.

    A name without room is left out.
    """
    size = max(11, round(max(picture.size) / 32))
    letters, draw, taken = font(size), ImageDraw.Draw(picture), {}
    for name, region in regions.items():
        half = round(letters.getlength(name) / 2 + 0.4 * size), round(0.7 * size)
        too_large = 2 * half[0] >= picture.width or 2 * half[1] >= picture.height
        if too_large or region.mean() < NAMED_FROM:
            continue
        box = _inside(region, half)
        if box is not None and _is_free(box, taken):
            taken[box] = name
        elif beside := _beside(region, half, size, taken):
            box, (x, y) = beside
            taken[box] = name
            line, dot = (x, y, *_middle(box)), size // 5
            draw.line(line, WHITE, size // 3)
            draw.line(line, INK, max(1, size // 8))
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), INK, WHITE)
    for box, name in taken.items():
        draw.rounded_rectangle(box, radius=size // 3, fill=INK)
        draw.text(_middle(box), name, WHITE, letters, anchor="mm")


def _inside(region: np.ndarray, half: tuple[int, int]) -> Box | None:
    """The best box, of twice the size `half` (w, h), inside a region; None where it is too thin."""
    half_w, half_h = half
    shape = Image.fromarray(np.uint8(255) * region)
    cover = np.asarray(shape.filter(ImageFilter.BoxBlur(half))) / 255
    # The middle of the region is preferred. Pillow's blur repeats the border of an image, so the
    # region would count as larger there: hence a margin of zeros.
    margin = round(0.4 * min(shape.size))
    blurred = ImageOps.expand(shape, margin).filter(ImageFilter.GaussianBlur(margin / 3))
    depth = np.asarray(ImageOps.crop(blurred, margin)) / 255
    suits = (2 * cover + depth)[half_h:-half_h, half_w:-half_w]
    y, x = map(int, np.unravel_index(suits.argmax(), suits.shape))
    if cover[y + half_h, x + half_w] < LABEL_COVER:
        return None
    return x, y, x + 2 * half_w, y + 2 * half_h


def _beside(
    region: np.ndarray, half: tuple[int, int], size: int, taken: Mapping[Box, str]
) -> tuple[Box, tuple[int, int]] | None:
    """A free box near a region, which hides the least of it, and the spot (x, y) it refers to."""
    height, width = region.shape
    half_w, half_h = half
    blur = ImageFilter.GaussianBlur(size / 3)
    thick = np.asarray(Image.fromarray(np.uint8(255) * region).filter(blur)) * region
    y, x = map(int, np.unravel_index(thick.argmax(), region.shape))
    best = None
    for away in (1, 2, 4):
        for right, down in DIRECTIONS:
            left = x + right * (half_w + away * size) - half_w
            top = y + down * (half_h + away * size) - half_h
            box = left, top, left + 2 * half_w, top + 2 * half_h
            fits = left >= 0 and top >= 0 and box[2] < width and box[3] < height
            if fits and _is_free(box, taken):
                hidden = region[top : box[3], left : box[2]].mean()
                if best is None or hidden < best[0]:
                    best = hidden, box
    return best and (best[1], (x, y))


def _middle(box: Box) -> tuple[int, int]:
    return (box[0] + box[2]) // 2, (box[1] + box[3]) // 2


def _is_free(box: Box, taken: Mapping[Box, str]) -> bool:
    left, top, right, bottom = box
    return all(
        left > other[2] or other[0] > right or top > other[3] or other[1] > bottom
        for other in taken
    )


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
    present: list[Occurrence], masks: list[str], scored: bool, letters: ImageFont.FreeTypeFont
) -> list[Image.Image]:
    """The legend as pictures of equal size: its heading, then a line for each class that occurs."""
    size = letters.size
    table = [["pixels in", *masks] + ["IoU"] * scored]
    for row in present:
        cells = [shorten(row.name, letters, 10 * size), *map(percent, row.shares.values())]
        table.append(cells + ["-" if row.iou is None else f"{row.iou:.3f}"] * scored)
    swatch, line, space = round(1.1 * size), round(1.6 * size), round(size)
    widths = [max(math.ceil(letters.getlength(text)) for text in cells) for cells in zip(*table)]
    left, middle = swatch + space // 2, line // 2
    width = left + sum(widths) + len(widths[1:]) * space + 2  # round letters overhang
    entries = []
    for colour, (name, *numbers) in zip([None, *(row.colour for row in present)], table):
        entry = Image.new("RGB", (width, line), WHITE)
        draw, ink = ImageDraw.Draw(entry), GREY if colour is None else INK
        if colour is not None:
            box = 0, middle - swatch // 2, swatch - 1, middle - swatch // 2 + swatch - 1
            draw.rounded_rectangle(box, swatch // 5, fill=colour, outline=GREY)
        draw.text((left, middle), name, ink, letters, anchor="lm")
        right = left + widths[0]
        for number, wide in zip(numbers, widths[1:]):
            right += space + wide
            draw.text((right, middle), number, ink, letters, anchor="rm")
        entries.append(entry)
    return entries


def shorten(text: str, letters: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line of at most `room` px, with an ellipsis for an end that does not fit."""
    text = short = " ".join(text.split())
    while short and letters.getlength(short) > room:
        text = text[:-1]
        short = text and text + "…"
    return short
