"""Masks of other programs: what values and colours they hold, and which classes these are."""

from collections import Counter
from collections.abc import Set
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import LISTED, UserError
from data.classes import VOID, Colour, voc_colour
from data.formats.class_names import fixed_id, number_classes
from data.formats.source import Named, Source
from data.image_files import INDEX_MODES, TURNS, check_sizes, open_image, orientation

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
JPEG_SUFFIXES = (".jpg", ".jpeg")  # values change along all edges: for those who say --unknown
COLOUR_MODES = ("P", "RGB", "RGBA", "LA", "PA")  # Pillow's
GREY = 0x010101
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # of TIFF: ImageJ's inverting LUT
ROWS = 40  # colours that a listing shows
RARE = 1e-3  # share of the pixels, below which a colour is more likely a mixture than a class

Drawn = tuple[int, int]  # a value and its colour 0xRRGGBB
CODE = 1 << 40  # a `Drawn` in one number: value * CODE + colour
CLEAR = (-2, 1 << 24)  # stands for transparent pixels
FEW_VALUES = 10  # masks of two classes with more have smoothed edges
MOST_CLASSES = 240  # smoothed masks have nearly all values of 8 bits
# Of --unknown nearest: a farther colour, in RGB, or value may be that of another class. VOC's
# colours are as far apart, so that of a class which is not listed becomes none of the others.
NEAR = 64


def read_pixels(path: Path, is_layer: bool = False, turn: int | None = None) -> np.ndarray:
    """The code of what is drawn in each pixel of a mask, (H, W) int64, with a `turn` of `TURNS`.

    The value of a pixel in a picture of colours is that of grey, and -1 of another colour. Values
    above 255 have a colour that no class can have. In a picture to draw on (`is_layer`) nobody has
    drawn what is transparent: it is `CLEAR`, and where that is not index 0 of a palette, which may
    then be a class, colours tell.

    Raises:
        UserError: the file is damaged, or no mask.
    """
    is_jpeg = path.suffix.lower() in JPEG_SUFFIXES
    image = open_image(path, ("JPEG",) if is_jpeg else ("PNG", "BMP", "TIFF", "GIF"))
    if image.mode == "L" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise UserError(f"{path}: a TIFF in which 0 is white, which inverts it; save it as PNG")
    image = image.transpose(TURNS[turn]) if turn in TURNS else image
    if image.mode in INDEX_MODES and image.mode != "P":
        return np.asarray(image, dtype=np.int64) * (CODE + GREY)
    if image.mode not in COLOUR_MODES:
        raise UserError(
            f"{path}: Pillow calls its kind of pixels {image.mode}; a mask has values of 8 or "
            "16 bits, a palette, or RGB"
        )
    rgba = np.asarray(image.convert("RGBA"), dtype=np.int64)
    colours, alpha = rgba @ (1 << 16, 1 << 8, 1, 0), rgba[:, :, 3]
    values = np.where(colours % GREY, -1, colours // GREY)
    indices = np.asarray(image, dtype=np.int64) if image.mode == "P" else alpha
    if image.mode == "P" and not (is_layer and indices[alpha == 0].any()):
        values = indices
    codes = values * CODE + colours
    if is_layer:
        return np.where(alpha, codes, CLEAR[0] * CODE + CLEAR[1])
    is_plain = image.mode.endswith("A") and np.ptp(alpha) and not np.ptp(colours)
    return alpha * (CODE + GREY) if is_plain else codes  # only the transparency may vary


def survey(pairs: dict[str, tuple[Path, Path]], source: Source) -> Counter[Drawn]:
    """The pixels of all that masks of pairs hold; pairs with an unreadable mask are taken out."""
    found: Counter[Drawn] = Counter()
    for name, (_, path) in tqdm([*pairs.items()], "look", disable=None, leave=False):
        pair = pairs.pop(name)
        with source.leaving_out_bad():
            codes = read_pixels(path, source.options.unlabelled is not None)
            for code, count in zip(*np.unique(codes, return_counts=True)):
                found[divmod(int(code), CODE)] += int(count)
            pairs[name] = pair
    return found


def listing(found: Counter[Drawn], classes_file: Path) -> str:
    """What the user can write into a list of classes about the colours of a survey."""
    pixels = Counter()  # two values of a palette may look alike
    for (_, colour), count in found.items():
        pixels[colour] += count
    head = (
        f"# the most frequent of {len(pixels)} colours; write those of classes to {classes_file}, "
        "the background first,\n# with names of yours, void for what is no class. Mixtures at "
        "smoothed edges are none: --unknown nearest"
    )
    lines, total = [head], sum(pixels.values())
    for name, (colour, count) in zip(_default_classes(ROWS), pixels.most_common(ROWS)):
        share = count / total
        lines.append(f"{f'# {share:.3%} are' if share < RARE else name} {_rgb(colour)}")
    return "\n".join(lines)


def find_legend(
    found: Counter[Drawn], listed: Named, source: Source, masks: Path
) -> tuple[Named, dict[Drawn, int]]:
    """The classes of surveyed masks, and the class id, or VOID, of what is drawn in them.

    `--map` decides, then the colours of the listed classes, but for grey of other values that are
    class ids; then the values, see `_ids_of_values`. What is of no class is left out, but with
    `--unknown nearest` what is near to a listed colour, or to a value of `--map`, has its class.

    Raises:
        UserError: that does not say enough; the message, about `masks`, says what to add.
    """
    options, legend = source.options, {CLEAR: source.options.undrawn}
    if options.unlabelled not in (options.values or ()):
        legend |= {drawn: VOID for drawn in found if drawn[0] == options.unlabelled}
    rest = found.keys() - legend.keys()
    classes, ids = number_classes(listed)
    painted = [(_code(colour), ids[name]) for name, colour in listed.items() if colour]
    known, border, part = dict(painted), {_code(voc_colour(VOID)): VOID}, 1
    ids_there = (*range(len(classes) + (options.unlabelled == 0)), VOID)
    are_ids = rest <= {(value, value * GREY) for value in ids_there}
    are_ids = are_ids and not {colour for _, colour in rest} <= known.keys()
    if not known or options.values is not None or are_ids:
        classes, known = _ids_of_values(rest, listed, source, masks)
        border, part = {}, 0
    elif len(known) < len({*painted}):
        raise UserError(f"{masks}: two of the listed classes have one colour")
    near = _nearest(known, {drawn[part] for drawn in rest}, part == 1) if options.nearest else {}
    of = near | border | known
    return classes, legend | {drawn: of[drawn[part]] for drawn in rest if drawn[part] in of}


def _nearest(known: dict[int, int], drawn: set[int], are_colours: bool) -> dict[int, int]:
    """The ids of the values or colours 0xRRGGBB that are near to a known one; see `NEAR`.

    Nearer than half of what is between two known ones: no other is as near.
    """
    keys, near = [one for one in drawn if one < CLEAR[1]], {}  # others are no colours
    own, others = (
        np.array([[*one.to_bytes(3, "big")] if are_colours else [one] for one in codes])
        for codes in (known, keys)
    )
    gaps = np.linalg.norm(own[:, None] - own, axis=2)
    limit = min(gaps[gaps > 0].min(initial=np.inf) / 2, NEAR)
    for place, label in zip(own, known.values()):
        there = np.linalg.norm(others - place, axis=1) < limit
        near |= dict.fromkeys(np.array(keys)[there].tolist(), label)
    return near


def _ids_of_values(
    drawn: Set[Drawn], listed: Named, source: Source, masks: Path
) -> tuple[Named, dict[int, int]]:
    """The classes, and the class id, or VOID, of values.

    Without `--map` a value is the id of its class, and 255 is void; but 0 and 255 are the classes
    if two are listed, and if 0 is unlabelled, 1 is the first class, as all programs have it that
    leave 0 to what nobody has drawn.
    """
    given, values = source.options.values, {value for value, _ in drawn}
    several = [value for value, count in Counter(it[0] for it in drawn).items() if count > 1]
    first = int(given is None and source.options.unlabelled == 0)
    last = max({*(given.values() if given else values)} - {VOID}, default=0)
    order = [*(listed or [*_default_classes(last)][first:])]
    classes, ids = number_classes(listed or dict.fromkeys(order))
    if given is not None:
        for value in several:  # unequal palettes
            source.note("in doubt: a value has several colours, which --map ignores", str(value))
    if given and last >= len(classes):
        raise UserError(f"--map: class {last}, but the classes are 0..{len(classes) - 1}")
    if given:
        return classes, given
    is_binary = given is None and not first and VOID in values and len(classes) == 2
    if is_binary and values <= {0, VOID}:
        return classes, {0: 0, VOID: 1}
    most = min(2 * len(values - {VOID}) + first, MOST_CLASSES)
    is_odd = len(values) > FEW_VALUES if is_binary else not listed and not 0 < last < most
    if given is None and (is_odd or several):
        pairs = [f"{value}={index}" for index, value in enumerate(sorted(values - {-1}))]
        raise UserError(
            f"{masks}: nothing says which classes the {len({*drawn})} values or colours of the "
            "masks are: --list-colours shows colours and what to write; of values add --map "
            f"{','.join(pairs[:LISTED])}{',..' * (len(pairs) > LISTED)} (=void for none), or "
            "--map same; of smoothed masks of 0 and 255 --map 0=0,255=1 --unknown nearest"
        )
    order = [name for name in order if name in classes] if first else [*classes]
    if not first and {0, len(order)} & values and order and fixed_id(order[0]) != 0:
        source.note("note: 0 is this class; if nobody has drawn it, --unlabelled 0", order[0])
    return classes, {VOID: VOID} | {value: ids[name] for value, name in enumerate(order, first)}


def read_mask(photo: Path, path: Path, legend: dict[Drawn, int], source: Source) -> np.ndarray:
    """The mask of a photo as (H, W) uint8 class ids and VOID; notes pixels of no class.

    Raises:
        UserError: nothing says what becomes of these, or the mask does not fit the photo.
    """
    options = source.options
    turn = orientation(photo) if options.turn_masks else None
    codes = read_pixels(path, options.unlabelled is not None, turn)
    check_sizes(photo, path, codes.shape)
    found, counts = np.unique(codes, return_counts=True)
    drawn = [divmod(code, CODE) for code in found.tolist()]
    lost = {it: count for it, count in zip(drawn, counts.tolist()) if it not in legend}
    if lost and options.unknown is None:
        value, colour = min(lost)
        name = f"value {value}" if colour == value * GREY else f"colour {_rgb(colour)}"
        raise UserError(
            f"{path}: {name} is of no class; list it (--list-colours shows all), go by values "
            "with --map; if nobody has drawn 0, --unlabelled 0: 1 is then the first class; "
            "--unknown void leaves it out, nearest is for smoothed edges"
        )
    if lost:
        source.note("pixels of no class", f"{path.name}: {sum(lost.values())}")
    ids = [legend.get(it, options.unknown) for it in drawn]
    return np.array(ids, dtype=np.uint8)[np.searchsorted(found, codes)]


def _code(colour: Colour) -> int:
    return int.from_bytes(bytes(colour), "big")


def _rgb(code: int) -> str:
    return f"{code >> 16} {code >> 8 & 255} {code & 255}"


def _default_classes(last: int) -> Named:
    return dict.fromkeys(["background", *(f"class {index}" for index in range(1, last + 1))])
