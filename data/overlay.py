"""Pictures of masks: the index image for the VOC server, class colours over the photo, errors, and a page of them all.

In this module a mask is a uint8 or int64 array (H, W) of class ids, `VOID` where there is none.
"""

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from torch.nn.functional import max_pool2d
from torchvision.utils import draw_segmentation_masks

from data.classes import VOID, Classes

WHITE, INK, GREY, RULE = (255, 255, 255), (32, 33, 36), (110, 114, 120), (208, 211, 215)
RIGHT, WRONG, NOWHERE = (203, 224, 238), (213, 80, 0), (158, 158, 158)  # apart in hue and in lightness, also in print
TILE_SIDES = 320, 640  # px, the longer side of a tile on a page
LABEL_COVER = 0.7  # a name is written only where its class covers this share of the name's box


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


def panel(
    image: Image.Image,
    prediction: np.ndarray,
    classes: Classes,
    target: np.ndarray | None = None,
    title: str = "",
    scores: Mapping[int, float | None] | None = None,
    miou: float | None = None,
) -> Image.Image:
    """A white page: photo, ground truth, prediction and errors side by side, below them the classes that occur.

    Args:
        image: the photo, W x H; large and small ones are resized to a tile of 320 to 640 px.
        prediction, target: masks (H, W); without a target there are two tiles.
        scores: IoU (0..1) of each class id, None where it has none; without scores the legend has no such column.
        miou: mean IoU (0..1), written at the top right.
    """
    scale = np.clip(max(image.size), *TILE_SIDES) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    photo = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    masks = {"prediction": prediction} if target is None else {"ground truth": target, "prediction": prediction}
    shown = {
        name: np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST))
        for name, mask in masks.items()
    }
    tiles = {"image": photo} | {name: overlay(photo, mask, classes) for name, mask in shown.items()}
    if target is not None:
        scored = target != VOID
        wrong = f" {np.mean(prediction[scored] != target[scored]):.1%}" if scored.any() else ""
        tiles["error" + wrong] = error_map(shown["prediction"], shown["ground truth"])

    size = int(np.clip(max(photo.size) / 32, 13, 18))
    font, large = ImageFont.load_default(size=size), ImageFont.load_default(size=round(1.3 * size))
    gap, line = size, round(1.6 * size)
    column = max([width, *(round(font.getlength(caption)) for caption in tiles)])
    heading, *entries = _legend(masks, classes, scores, font)
    inner = max(len(tiles) * (column + gap) - gap, heading.width, 24 * size)
    per_row = min((inner + 2 * gap) // (heading.width + 2 * gap), -(-len(entries) // 4))
    rows = -(-len(entries) // per_row)
    top = 2 * line if title or miou is not None else gap // 2
    page = Image.new("RGB", (inner + 2 * gap, top + line + height + 2 * gap + (rows + 1) * line), WHITE)
    draw = ImageDraw.Draw(page)

    score = "" if miou is None else f"mIoU {miou:.3f}"
    draw.text((gap, line), _shorten(title, large, inner - large.getlength(score) - 2 * gap), INK, large, anchor="lm")
    draw.text((gap + inner, line), score, INK, large, anchor="rm")
    for index, (caption, tile) in enumerate(tiles.items()):
        left = gap + index * (column + gap)
        draw.text((left, top + line // 2), caption, GREY, font, anchor="lm")
        draw.rectangle((left - 1, top + line - 1, left + width, top + line + height), outline=RULE)
        page.paste(tile, (left, top + line))
    below = top + line + height + gap
    for index, entry in enumerate(entries):
        left, row = gap + index // rows * (entry.width + 2 * gap), index % rows
        if row == 0:
            page.paste(heading, (left, below))
        page.paste(entry, (left, below + (row + 1) * line))
    return page


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
    """Write each name well inside its region, bool (H, W), where there is room; the first ones go first."""
    size, margin = max(10, round(max(picture.size) / 38)), round(0.4 * min(picture.size))
    font, draw, taken = ImageFont.load_default(size=size), ImageDraw.Draw(picture), []
    for name, region in regions.items():
        half_w, half_h = round(font.getlength(name) / 2 + 0.4 * size), round(0.7 * size)
        if 2 * half_w >= picture.width or 2 * half_h >= picture.height:
            continue
        if region.sum() < LABEL_COVER * 4 * half_w * half_h:
            continue
        shape = Image.fromarray(np.uint8(255) * region)
        cover = np.asarray(shape.filter(ImageFilter.BoxBlur((half_w, half_h)))) / 255
        # The thick of the region is preferred; without the margin Pillow would see it go on outside the image.
        blurred = ImageOps.expand(shape, margin).filter(ImageFilter.GaussianBlur(margin / 3))
        depth = np.asarray(ImageOps.crop(blurred, margin)) / 255
        inside = (2 * cover + depth)[half_h:-half_h, half_w:-half_w]
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        box = int(x), int(y), int(x) + 2 * half_w, int(y) + 2 * half_h
        apart = all(x > b[2] or b[0] > box[2] or y > b[3] or b[1] > box[3] for b in taken)
        if apart and cover[y + half_h, x + half_w] >= LABEL_COVER:
            draw.rounded_rectangle(box, radius=size // 3, fill=INK)
            draw.text((x + half_w, y + half_h), name, WHITE, font, anchor="mm")
            taken.append(box)


def _legend(masks: dict, classes: Classes, scores: Mapping | None, font: ImageFont.FreeTypeFont) -> list[Image.Image]:
    """The legend as pictures of equal size: its heading, then a line for each class that occurs, void last."""
    shares = {name: np.bincount(mask.ravel(), minlength=256) / mask.size for name, mask in masks.items()}
    table = [["pixels in", *masks] + ["IoU"] * (scores is not None)]
    colours = [None]
    for value in np.flatnonzero(sum(shares.values())):
        name = "void" if value == VOID else _shorten(classes.names[value], font, 10 * font.size)
        cells = [name, *(f"{share[value]:.1%}" for share in shares.values())]
        if scores is not None:
            iou = scores.get(int(value))
            cells.append("" if value == VOID else "-" if iou is None else f"{iou:.3f}")
        table.append(cells)
        colours.append(WHITE if value == VOID else classes.colours[value])
    swatch, line, space = round(1.1 * font.size), round(1.6 * font.size), round(font.size)
    widths = [max(round(font.getlength(text)) for text in cells) for cells in zip(*table)]
    left, middle, entries = swatch + space // 2, line // 2, []
    for colour, (name, *numbers) in zip(colours, table):
        entry = Image.new("RGB", (left + sum(widths) + len(numbers) * space, line), WHITE)
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


def _shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line of at most `room` px, its end replaced by an ellipsis where it is too long."""
    text = short = " ".join(text.split())
    while short and font.getlength(short) > room:
        text = text[:-1]
        short = text and text + "…"
    return short
