"""Masks of other programs: what values and colours they hold, and which classes these are."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import UserError
from data.classes import VOID, Colour, voc_colour
from data.formats.class_names import number_classes
from data.formats.source import Named, Options, Source
from data.image_files import INDEX_MODES, LISTED, index_values, open_image

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")
COLOUR_MODES = ("RGB", "RGBA", "LA", "PA")  # Pillow's
GREY = 0x010101
CLEAR = (-2, 1 << 24)  # stand for value and colour of transparent pixels
ROWS = 40  # colours that a listing shows

Survey = Counter[tuple[int, int]]  # (value, colour 0xRRGGBB) -> pixels


def read_pixels(path: Path, is_layer: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask and their colours 0xRRGGBB, both (H, W) int64.

    The value of a pixel in a picture of colours is that of grey, and -1 of another colour. Values
    above 255 have a colour that no class can have.

    Args:
        is_layer: a picture to draw on, whose transparent pixels nobody has drawn: they get `CLEAR`.

    Raises:
        UserError: the file is damaged, or no mask.
    """
    image = open_image(path, MASK_FORMATS)
    if image.mode not in (*INDEX_MODES, *COLOUR_MODES):
        raise UserError(
            f"{path}: Pillow calls its kind of pixels {image.mode}; a mask has values of 8 or "
            "16 bits, a palette, or RGB"
        )
    if (
        image.mode.endswith("A") and not is_layer
    ):  # a picture of one colour in which only the transparency varies
        alpha, extremes = image.getchannel("A"), image.convert("RGB").getextrema()
        if len(set(alpha.getextrema())) > 1 and all(low == high for low, high in extremes):
            image = alpha
    if image.mode in INDEX_MODES and image.mode != "P":
        values = index_values(image, path).astype(np.int64)
        return values, values * GREY
    rgb = np.asarray(image.convert("RGB"), dtype=np.int64)
    colours = rgb @ (1 << 16, 1 << 8, 1)
    if image.mode == "P":
        return np.asarray(image, dtype=np.int64), colours
    values = np.where(colours == rgb[:, :, 0] * GREY, rgb[:, :, 0], -1)
    if is_layer and image.mode.endswith("A"):
        is_clear = np.asarray(image.getchannel("A")) == 0
        values[is_clear], colours[is_clear] = CLEAR
    return values, colours


def survey(pairs: dict[str, tuple[Path, Path]], source: Source) -> Survey:
    """What the masks of pairs hold; pairs whose mask cannot be read are taken out."""
    found: Survey = Survey()
    for name, (_, path) in tqdm([*pairs.items()], "look", disable=None, leave=False):
        pair = pairs.pop(name)
        with source.leaving_out_bad():
            values, colours = read_pixels(path, source.options.unlabelled is not None)
            codes, counts = np.unique(values << 40 | colours, return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist()):
                found[code >> 40, code & (1 << 40) - 1] += count
            pairs[name] = pair
    return found


def listing(found: Survey, classes_file: Path) -> str:
    """What the user can write into a list of classes about the colours of a survey."""
    pixels = Counter()  # two values of a palette may look alike
    for drawn, count in found.items():
        if drawn != CLEAR:
            pixels[drawn[1]] += count
    lines = [
        f"the most frequent of {len(pixels)} colours; write them to {classes_file}, the background "
        "first, with names of yours, void for what is no class; --unknown void for smoothed edges"
    ]
    for name, (colour, _) in zip(_default_classes(ROWS), pixels.most_common(ROWS)):
        lines.append(f"{name} {_rgb(colour)}")
    return "\n".join(lines)


def find_legend(
    found: Survey, listed: Named | None, options: Options, masks: Path
) -> tuple[Named, Callable[[Path], np.ndarray]]:
    """The classes of surveyed masks, and what reads a mask as (H, W) uint8 class ids and VOID.

    `--map` decides, then the colours of the listed classes. Otherwise a value is the id of its
    class, and 255 is void; but 0 and 255 are the classes if two are listed, and if 0 is unlabelled,
    1 is the first class, as all programs have it that leave 0 to what nobody has drawn.

    Raises:
        UserError: that does not say enough; the message, about `masks`, says what to add.
    """
    unlabelled = options.unlabelled
    undrawn = {CLEAR: options.undrawn} | {drawn: VOID for drawn in found if drawn[0] == unlabelled}
    found = {drawn: count for drawn, count in found.items() if drawn not in undrawn}
    values, shown = {value for value, _ in found}, {colour for _, colour in found}
    classes, ids = number_classes(listed or {})
    first = int(unlabelled == 0 and options.values is None)  # the value of the first class
    painted = {(_code(rgb), ids[name]) for name, rgb in (listed or {}).items() if rgb}
    colours = dict(painted)
    all_grey = all(colour == value * GREY for value, colour in found)
    known = {*range(first, first + len(classes)), VOID}
    as_values = all_grey and values <= known and not shown <= colours.keys()
    is_layer = unlabelled is not None
    if colours and options.values is None and not as_values:
        if len(colours) < len(painted):
            raise UserError(f"{masks}: two of the listed classes have one colour")
        colours = {_code(voc_colour(VOID)): VOID} | colours
        colours |= {colour: label for (_, colour), label in undrawn.items()}
        return classes, partial(_read, colours, True, options.unknown, is_layer)
    if -1 in values or options.values is None and len(found) > len(values):  # unequal palettes
        raise UserError(
            f"{masks}: masks have colours, and nothing says which classes they are (--map is about "
            "values); --list-colours shows them and what to write"
        )
    used = {*options.values.values()} if options.values else values
    last = max(used - {VOID}, default=0)
    guessed = listed is None and options.values is None
    if guessed and not 0 < last < 2 * len(values - {VOID}) + first:
        some = sorted(values)[:LISTED]
        pairs = ",".join(f"{value}={index}" for index, value in enumerate(some))
        raise UserError(
            f"{masks}: the masks hold {len(values)} values, which do not look like class ids; if "
            f"they are classes, add --map {pairs}{',..' * (len(values) > LISTED)} (=void for none)"
        )
    if not classes:
        names = [*_default_classes(last)][first:]
        classes, ids = number_classes(dict.fromkeys(names))
    if options.values and last >= len(classes):
        raise UserError(f"--map: class {last}, but the classes are 0..{len(classes) - 1}")
    in_order = [name for name in listed or classes if name in classes] if first else classes
    ids_of = {value: ids[name] for value, name in enumerate(in_order, first)} | {VOID: VOID}
    if values <= {0, VOID} and len(classes) == 2 and options.values is None and not first:
        ids_of = {0: 0, VOID: 1}
    ids_of = {value: label for (value, _), label in undrawn.items()} | (options.values or ids_of)
    return classes, partial(_read, ids_of, False, options.unknown, is_layer)


def _read(
    ids: dict[int, int], by_colour: bool, unknown: int | None, is_layer: bool, path: Path
) -> np.ndarray:
    """The mask in a file as (H, W) uint8 class ids and VOID.

    `ids` are those of values or of colours, `unknown` that of all others; without it they raise.
    """
    codes = read_pixels(path, is_layer)[by_colour]
    found = np.unique(codes)
    ids_of_found = [ids.get(code, unknown) for code in found.tolist()]
    if None in ids_of_found:
        code = int(found[ids_of_found.index(None)])
        name = f"colour {_rgb(code)}" if by_colour else f"value {code}"
        raise UserError(
            f"{path}: {name} is of no class; list it (--list-colours shows all), go by values with "
            "--map, or make all such pixels void with --unknown void"
        )
    return np.array(ids_of_found, dtype=np.uint8)[np.searchsorted(found, codes)]


def _code(colour: Colour) -> int:
    return int.from_bytes(bytes(colour), "big")


def _rgb(code: int) -> str:
    return f"{code >> 16} {code >> 8 & 255} {code & 255}"


def _default_classes(last: int) -> Named:
    return dict.fromkeys(["background", *(f"class {index}" for index in range(1, last + 1))])
