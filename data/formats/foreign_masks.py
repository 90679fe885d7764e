"""Masks as images: what values and colours they hold, and which classes these are."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data import UserError
from data.classes import VOID, Colour, voc_colour
from data.formats.class_names import numbered
from data.formats.source import Named, Options
from data.images import INDEX_MODES, LISTED, first_of, index_values, open_image

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")
COLOUR_MODES = ("RGB", "RGBA", "LA", "PA")  # Pillow's
GREY = 0x010101
ROWS = 40  # colours that a listing shows

Survey = Counter[tuple[int, int]]  # (value, colour 0xRRGGBB) -> pixels


def read_pixels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask and their colours 0xRRGGBB, both (H, W) int64.

    The value of a pixel in a picture of colours is that of grey, and -1 of another colour. Values
    above 255 have a colour that no class can have.

    Raises:
        UserError: the file is damaged, or no mask.
    """
    image = open_image(path, (*MASK_FORMATS, "JPEG", "WEBP"))
    if image.format not in MASK_FORMATS:  # whatever it is called
        raise UserError(
            f"{path}: JPEG and WebP change the values along every edge of a mask; save the masks "
            "anew, as PNG, from the program that drew them"
        )
    if image.mode not in INDEX_MODES and image.mode not in COLOUR_MODES:
        raise UserError(
            f"{path}: Pillow calls its kind of pixels {image.mode}; a mask has values of 8 or "
            "16 bits, a palette, or RGB"
        )
    if image.mode.endswith("A"):  # a picture of one colour in which only the transparency varies
        alpha, extremes = image.getchannel("A"), image.convert("RGB").getextrema()
        if len(set(alpha.getextrema())) > 1 and all(low == high for low, high in extremes):
            image = alpha
    if image.mode in INDEX_MODES:
        values = index_values(image, path).astype(np.int64)
        if image.mode != "P":
            return values, values * GREY
    rgb = np.asarray(image.convert("RGB"), dtype=np.int64)
    colours = rgb @ (1 << 16, 1 << 8, 1)
    if image.mode != "P":
        values = np.where(colours == rgb[:, :, 0] * GREY, rgb[:, :, 0], -1)
    return values, colours


def held(path: Path) -> Survey:
    """What one mask holds; see `read_pixels`."""
    values, colours = read_pixels(path)
    found, counts = np.unique(values << 40 | colours, return_counts=True)
    pairs = zip((found >> 40).tolist(), (found & (1 << 40) - 1).tolist())
    return Survey(dict(zip(pairs, counts.tolist())))


def listing(found: Survey, classes_file: Path) -> str:
    """What the user can write about the colours of a survey, or its values if all are grey."""
    if all(colour == value * GREY for value, colour in found):
        return f"a class id, or void, for each value: {_suggestion(found)}"
    pixels = Counter()  # two values of a palette may look alike
    for (_, colour), count in found.items():
        pixels[colour] += count
    lines = [
        f"the colours, that of most pixels first: write this to {classes_file}, the background "
        "first, with names of yours; what is no class has the name void"
    ]
    for name, (colour, _) in zip(_default_classes(ROWS), pixels.most_common(ROWS)):
        lines.append(f"{name} {_rgb(colour)}")
    if len(pixels) > ROWS:
        lines.append(f"and {len(pixels) - ROWS} more; --unknown void makes smoothed edges void")
    return "\n".join(lines)


def find_legend(
    found: Survey, listed: Named | None, options: Options, masks: Path
) -> tuple[Named, Callable[[Path], np.ndarray]]:
    """The classes of surveyed masks, and what reads a mask as (H, W) uint8 class ids and VOID.

    `--map` decides, then the colours of the listed classes. Otherwise a value is the id of its
    class, and 255 is void; but 0 and 255 are the classes if two are listed.

    Raises:
        UserError: that does not say enough; the message, about `masks`, says what to add.
    """
    values, shown = ({*part} for part in zip(*found)) if found else (set(), set())
    classes, ids = numbered(listed) if listed else (None, {})
    colours = {_code(rgb): ids[name] for name, rgb in (listed or {}).items() if rgb}
    in_colour = any(colour != value * GREY for value, colour in found)
    as_values = values <= {*ids.values(), VOID} and not (in_colour or shown <= colours.keys())
    if colours and options.values is None and not as_values:
        colours = {_code(voc_colour(VOID)): VOID} | colours
        return classes, partial(_read, colours, True, options.unknown)
    if -1 in values:
        raise UserError(
            f"{masks}: masks have colours, and nothing says which classes they are (--map is about "
            "values); --list-colours shows them and what to write"
        )
    if options.values is None and len(found) > len(values):
        raise UserError(
            f"{masks}: palettes of masks give a value more than one colour, so values are no class "
            "ids; --list-colours shows the colours and what to write"
        )
    used = {*options.values.values()} if options.values else values
    last = max(used - {VOID}, default=0)
    guessed = listed is None and options.values is None
    if guessed and not 0 < last < 2 * len(values - {VOID}):
        raise UserError(
            f"{masks}: the masks hold {first_of([*map(str, sorted(values))])}, which do not look "
            f"like class ids; if they are classes, add {_suggestion(found)} (=void for none)"
        )
    classes = classes or _default_classes(last)
    if options.values and last >= len(classes):
        raise UserError(f"--map: class {last}, but the classes are 0..{len(classes) - 1}")
    ids = {index: index for index in range(len(classes))} | {VOID: VOID}
    if values <= {0, VOID} and len(classes) == 2 and options.values is None:
        ids = {0: 0, VOID: 1}
    return classes, partial(_read, options.values or ids, False, options.unknown)


def _read(ids: dict[int, int], by_colour: bool, unknown: int | None, path: Path) -> np.ndarray:
    """The mask in a file as (H, W) uint8 class ids and VOID.

    `ids` are those of values or of colours, `unknown` that of all others; without it they raise.
    """
    values, colours = read_pixels(path)
    codes = colours if by_colour else values
    found = np.unique(codes)
    ids_of_found = [ids.get(code, unknown) for code in found.tolist()]
    if None in ids_of_found:
        y, x = np.argwhere(codes == found[ids_of_found.index(None)])[0]
        value, colour = values[y, x], _rgb(colours[y, x])
        name = f"colour {colour}" if by_colour and value <= VOID else f"value {value}"
        raise UserError(
            f"{path}: {name} at x={x}, y={y} is of no class; list it (--list-colours shows all), "
            "go by values with --map, or make all such pixels void with --unknown void"
        )
    return np.array(ids_of_found, dtype=np.uint8)[np.searchsorted(found, codes)]


def _code(colour: Colour) -> int:
    return int.from_bytes(bytes(colour), "big")


def _rgb(code: int) -> str:
    return f"{code >> 16} {code >> 8 & 255} {code & 255}"


def _default_classes(last: int) -> Named:
    return dict.fromkeys(["background", *(f"class {index}" for index in range(1, last + 1))])


def _suggestion(found: Survey) -> str:
    """The flag that gives each value a class of its own."""
    values = sorted({value for value, _ in found if value >= 0})
    pairs = [f"{value}={index}" for index, value in enumerate(values)]
    return f"--map {','.join(pairs[:LISTED] + ['..'] * (len(pairs) > LISTED))}"
