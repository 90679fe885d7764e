"""What lies over a photo: the classes of masks, errors, confidence, names.

A mask is a uint8 array (H, W) of class ids, `VOID` where there is none; one called "labels" has
strokes or clicks alone. A photo is a uint8 array (H, W, 3), RGB.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data.classes import VOID, Classes

WHITE, BLACK, INK = (255, 255, 255), (0, 0, 0), (32, 33, 36)
# They differ in hue and in lightness, so also in print.
RIGHT, WRONG, NOT_SCORED = (203, 224, 238), (213, 80, 0), (158, 158, 158)
HEAT = colormaps["viridis"]  # lightness increases: readable in grey and for colour-blind readers
KEYS = {  # what the colours of a layer mean
    "error": {"right": RIGHT, "wrong": WRONG, "not scored": NOT_SCORED},
    "confidence": {f"{p} % sure": tuple(HEAT(p / 100, bytes=True)[:3]) for p in (0, 50, 100)},
}
BRIGHT = 0, 255, 255
OPACITY = 0.55  # of the tint of a class over the photo
NAMED_FROM = 0.002  # share of the image that a class needs to be named in it


def unnamed(classes: Classes) -> list[int]:
    """What is no thing to be named: void, and the background, a class 0 whose colour is black."""
    return [0, VOID] if classes.colours[0] == BLACK else [VOID]


def with_bright_background(classes: Classes) -> Classes:
    """For strokes on a black background, which would be hard to see."""
    if 0 not in unnamed(classes):
        return classes
    return replace(classes, colours=(BRIGHT, *classes.colours[1:]))


def tint(mask: np.ndarray, classes: Classes, sparse: bool = False, reach: int = 1) -> Image.Image:
    """What lies over a photo: the classes of its mask (H, W) in RGBA, with outlines of `reach` px.

    The background is clear, void whitish. Where the mask is sparse, its labels are opaque, and void
    is clear.
    """
    if sparse:
        palette = np.reshape(with_bright_background(classes).palette(), (256, 3)).astype(np.uint8)
        return Image.fromarray(np.dstack([palette[mask], np.uint8(255) * (mask != VOID)]))
    palette = np.full((256, 4), round(255 * OPACITY), np.uint8)
    palette[:, :3] = np.reshape(classes.palette(), (256, 3))
    palette[VOID, :3] = WHITE
    palette[0, 3] *= 0 not in unnamed(classes)
    pixels, values = palette[mask], np.where(mask == VOID, np.uint8(0), mask)
    highest = Image.fromarray(values).filter(ImageFilter.MaxFilter(2 * reach + 1))
    # Pixels near a class of higher id, so a thin thing still shows its colour.
    pixels[(np.asarray(highest) > values) & (mask != VOID)] = 255
    return Image.fromarray(pixels)


def pixel_shares(mask: np.ndarray) -> dict[int, float]:
    """The share of the pixels (H, W) uint8 of each value that occurs, the largest first."""
    counts = Image.fromarray(mask).histogram()  # numpy's bincount takes 8 bytes a pixel
    values = sorted(range(256), key=lambda value: -counts[value])
    return {value: counts[value] / mask.size for value in values if counts[value]}


def draw_layers(
    photo: np.ndarray,
    masks: dict[str, np.ndarray],
    classes: Classes,
    confidence: np.ndarray | None = None,
) -> dict[str, Image.Image]:
    """The "image" and what lies over it, of its size: masks by their names, "error", "confidence".

    Masks are as `tint` draws them. Errors, of "prediction" beside "ground truth", have right pixels
    pale blue, wrong ones orange, void ones grey. The confidence, probabilities (H, W) from 0 to 1,
    is from dark blue to yellow.
    """
    layers = {"image": Image.fromarray(photo)}
    for name, mask in masks.items():
        layers[name] = tint(mask, classes, name == "labels")
    if {"ground truth", "prediction"} == set(masks):
        truth, prediction = masks.values()
        errors = np.where((prediction == truth)[..., None], np.uint8(RIGHT), np.uint8(WRONG))
        errors[truth == VOID] = NOT_SCORED
        layers["error"] = Image.fromarray(errors)
    if confidence is not None:
        layers["confidence"] = Image.fromarray(HEAT(confidence, bytes=True)[..., :3])
    return layers


def write_names(picture: Image.Image, mask: np.ndarray, classes: Classes) -> None:
    """Writes the name of each class into its region, the largest first, where there is room."""
    size = max(11, round(max(picture.size) / 32))
    letters, draw, written = font(size), ImageDraw.Draw(picture), np.zeros(mask.shape, bool)
    for label, share in pixel_shares(mask).items():
        if share < NAMED_FROM or label in unnamed(classes):
            continue
        name, own = classes.names[label], mask == label
        width, height = round(letters.getlength(name) + 0.8 * size), round(1.4 * size)
        if width > picture.width or height > picture.height:
            continue
        rows = np.flatnonzero(own.any(axis=1))
        y = int(rows[len(rows) // 2])
        columns = np.flatnonzero(own[y])
        x = int(columns[len(columns) // 2])  # in the middle of the middle row
        left = min(max(x - width // 2, 0), picture.width - width)
        top = min(max(y - height // 2, 0), picture.height - height)
        covered = written[top : top + height, left : left + width]
        if not covered.any():
            covered[:] = True
            box = left, top, left + width - 1, top + height - 1
            draw.rounded_rectangle(box, radius=size // 3, fill=INK)
            middle = left + width // 2, top + height // 2
            draw.text(middle, name, WHITE, letters, anchor="mm")


def fit(mask: np.ndarray, size: tuple[int, int], sparse: bool) -> np.ndarray:
    """A mask (H, W) on a tile of this size (w, h), (h, w) uint8; a sparse one drawn with a pen.

    Of a sparse one nothing vanishes, and where pens meet, the class of fewer pixels lies on top.
    """
    if not sparse:
        return np.asarray(Image.fromarray(mask).resize(size, Image.NEAREST))
    reach, drawn = round(max(size) / 200), np.full(size[::-1], VOID, np.uint8)
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) < reach + 0.5
    pen = torch.from_numpy(disc)[None, None].float()
    for label in [value for value in pixel_shares(mask) if value != VOID]:
        own = torch.from_numpy(mask == label)[None].float()
        places = F.adaptive_max_pool2d(own, size[::-1])
        drawn[F.conv2d(places, pen, padding=reach)[0].numpy() > 0.5] = label
    return drawn


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
