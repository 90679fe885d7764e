"""Masks as images: what values and colours they hold, and which classes these are."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data import UserError
from data.classes import VOID, Colour, voc_colour
from data.formats.names import numbered
from data.formats.source import Named, Options
from data.images import INDEX_MODES, LISTED, first_of, index_values, open_image

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".webp")
LOSSY_FORMATS = ("JPEG", "WEBP")
COLOUR_MODES = ("RGB", "RGBA", "LA", "PA")  # Pillow's
ROWS = 40  # colours that a listing shows

Survey = Counter[tuple[int | None, Colour]]  # value, its colour -> pixels; None: no value, no grey


def survey(paths: Sequence[Path], skip_bad: bool = False) -> Survey:
    """Reads all masks once; with `skip_bad`, those that can be read. Grey RGB counts as values.

    Raises:
        UserError: a file is damaged or no mask.
    """
    found = Survey()
    for path in tqdm(paths, "look", unit="mask", disable=None, leave=False):
        try:
            found.update(_held(path))
        except UserError:
            if not skip_bad:
                raise
    return found


def _held(path: Path) -> Survey:
    """What one mask holds."""
    image = _open_mask(path)
    if image.mode not in INDEX_MODES:
        counts, colours = zip(*image.convert("RGB").getcolors(image.width * image.height))
        values = [rgb[0] if len(set(rgb)) == 1 else None for rgb in colours]
    else:
        values, counts = np.unique(index_values(image, path), return_counts=True)
        values, counts = values.tolist(), counts.tolist()
        colours = [(value, value, value) for value in values]
        if image.mode == "P":
            palette = [*image.getpalette(), *bytes(768)]  # it may be short
            colours = [tuple(palette[3 * value : 3 * value + 3]) for value in values]
    return Survey(dict(zip(zip(values, colours), counts)))


def listing(found: Survey, classes_file: Path) -> str:
    """What the user can write about the colours of a survey, or its values if all are grey."""
    if all(colour == (value, value, value) for value, colour in found):
        return f"a class id, or void, for each value: {_suggestion(found)}"
    pixels = Counter()  # two values of a palette may look alike
    for (_, colour), count in found.items():
        pixels[colour] += count
    lines = [
        f"the colours, that of most pixels first: write this to {classes_file}, the background "
        "first, with names of yours; what is no class has the name void"
    ]
    for name, (colour, _) in zip(_default_classes(ROWS), pixels.most_common(ROWS)):
        lines.append(f"{name} {' '.join(map(str, colour))}")
    if len(pixels) > ROWS:
        lines.append(
            f"and {len(pixels) - ROWS} more; so many come from edges that a program has "
            "smoothed: --unknown void makes them void"
        )
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
    values = sorted({value for value, _ in found if value is not None})
    in_colour = any(colour != (value, value, value) for value, colour in found)
    classes, ids = numbered(listed) if listed else (None, {})
    colours = {colour: ids[name] for name, colour in (listed or {}).items() if colour}
    as_ids = options.values is not None  # --map: values count, whatever their colours
    shown = {colour for _, colour in found}
    by_colour = in_colour or shown <= colours.keys()
    if not {*values} <= {*range(len(ids)), VOID}:  # no ids: white for one, with smoothed edges
        by_colour |= not (shown - {(0, 0, 0)}).isdisjoint(colours)
    if colours and by_colour and not as_ids:
        colours = {voc_colour(VOID): VOID} | colours
        hint = "list it (--list-colours shows all), or go by values with --map same,"
        codes = {int.from_bytes(bytes(rgb), "big"): index for rgb, index in colours.items()}
        return classes, partial(_read, codes, True, options.unknown, hint)
    if any(value is None for value, _ in found):
        raise UserError(
            f"{masks}: masks have colours, and nothing says which classes they are (--map is about "
            "values); --list-colours shows them and what to write"
        )
    if options.values:
        last = max(set(options.values.values()) - {VOID}, default=0)
        classes = classes or _default_classes(last)
        if last >= len(classes):
            raise UserError(f"--map: class {last}, but the classes are 0..{len(classes) - 1}")
        return classes, partial(_read, options.values, False, options.unknown, "add it to --map")
    if len(found) > len(values) and not as_ids:
        raise UserError(
            f"{masks}: palettes of masks give a value more than one colour, so values are no class "
            "ids; --list-colours shows the colours and what to write"
        )
    last = max([value for value in values if value != VOID], default=0)
    if classes is None and not as_ids and not 0 < last < 2 * len({*values} - {VOID}):
        raise UserError(
            f"{masks}: the masks hold {first_of([*map(str, values)])}, which do not look like "
            f"class ids; if they are classes, add {_suggestion(found)} (=void for none)"
        )
    classes = classes or _default_classes(last)
    ids = {index: index for index in range(len(classes))} | {VOID: VOID}
    if {*values} <= {0, VOID} and len(classes) == 2 and not as_ids:
        ids = {0: 0, VOID: 1}
    if in_colour:  # those of the palette
        palette = dict(found.keys())
        named = enumerate(classes.items())
        classes = {name: colour or palette.get(index) for index, (name, colour) in named}
    hint = f"the classes are 0..{len(classes) - 1}; give it one with --map,"
    return classes, partial(_read, ids, False, options.unknown, hint)


def _read(
    ids: dict[int, int], by_colour: bool, unknown: int | None, hint: str, path: Path
) -> np.ndarray:
    """The mask in a file as (H, W) uint8 class ids and VOID.

    `ids` are those of values or of colours 0xRRGGBB, `unknown` that of all others; without it they
    are an error that gives the `hint`.

    Raises:
        UserError: the file is damaged, or holds a colour or value that is not listed.
    """
    image = _open_mask(path)
    if image.mode in INDEX_MODES and not by_colour:
        codes = index_values(image, path)
    else:
        rgb = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.int32), -1, 0)
        codes = rgb[0] << 16 | rgb[1] << 8 | rgb[2] if by_colour else rgb[0]  # else it is grey
    known = np.array(sorted(ids))
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    mask = np.array([ids[code] for code in known.tolist()], dtype=np.uint8)[places]
    unlisted = known[places] != codes
    if unlisted.any() and unknown is None:
        y, x = np.argwhere(unlisted)[0].tolist()
        code = int(codes[y, x])
        rgb = f"{code >> 16} {code >> 8 & 255} {code & 255}"
        name = f"colour {rgb}" if by_colour else f"value {code}"
        raise UserError(
            f"{path}: {name} at x={x}, y={y} is of no class; {hint} or make all such pixels void "
            "with --unknown void"
        )
    mask[unlisted] = unknown or 0
    return mask


def _default_classes(last: int) -> Named:
    return dict.fromkeys(["background", *(f"class {index}" for index in range(1, last + 1))])


def _suggestion(found: Survey) -> str:
    """The flag that gives each value a class of its own."""
    values = sorted({value for value, _ in found if value is not None})
    pairs = [f"{value}={index}" for index, value in enumerate(values)]
    return f"--map {','.join(pairs[:LISTED] + ['..'] * (len(pairs) > LISTED))}"


def _open_mask(path: Path) -> Image.Image:
    image = open_image(path, MASK_FORMATS + LOSSY_FORMATS)
    if image.format in LOSSY_FORMATS:  # whatever it is called
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
        alpha, colours = image.getchannel("A"), image.convert("RGB").getextrema()
        if len(set(alpha.getextrema())) > 1 and all(low == high for low, high in colours):
            return alpha
    return image
