"""Masks as images: what values and colours they hold, and which classes these are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data import DataError
from data.classes import VOC, VOID, Colour, voc_colour
from data.formats.source import ClassList, Named, Options
from data.images import INDEX_MODES, LISTED, first_of, index_values, open_image

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".webp")
LOSSY_FORMATS = ("JPEG", "WEBP")
LOSSY = (
    "JPEG and WebP change the values along every edge of a mask; save the masks anew, as PNG, from "
    "the program that drew them"
)
COLOUR_MODES = ("RGB", "RGBA", "LA", "PA")  # Pillow's; transparency does not matter
ROWS = 40  # colours that a listing shows


@dataclass
class Survey:
    """What masks hold. A grey RGB mask counts as values, too."""

    pixels: Counter[Colour] = field(default_factory=Counter)
    images: Counter[Colour] = field(default_factory=Counter)
    values: set[int] = field(default_factory=set)
    palette: dict[int, Colour] = field(default_factory=dict)  # of the palettes' used values
    is_grey: bool = True  # none has a palette or is RGB
    in_colour: Path | None = None  # the first RGB mask that is not grey
    contradiction: Path | None = None  # the first mask whose palette differs from those before


def survey(paths: Sequence[Path], skip_bad: bool = False) -> Survey:
    """Reads all masks once; with `skip_bad`, those that can be read.

    Raises:
        DataError: a file is damaged or no mask.
    """
    found = Survey()
    for path in tqdm(paths, "look", unit="mask", disable=None, leave=False):
        try:
            image = _open_mask(path)
        except DataError:
            if skip_bad:
                continue
            raise
        found.is_grey &= image.mode in INDEX_MODES and image.mode != "P"
        if image.mode in INDEX_MODES:
            values, counts = np.unique(index_values(image, path), return_counts=True)
            values, counts = values.tolist(), counts.tolist()
            colours = [(value, value, value) for value in values]
            if image.mode == "P":
                table = image.getpalette() + [0] * 768
                colours = [tuple(table[3 * value : 3 * value + 3]) for value in values]
                same = [found.palette.setdefault(*use) == use[1] for use in zip(values, colours)]
                if not all(same):
                    found.contradiction = found.contradiction or path
        else:
            counts, colours = zip(*image.convert("RGB").getcolors(image.width * image.height))
            values = [red for red, green, blue in colours if red == green == blue]
            if len(values) < len(colours):
                found.in_colour = found.in_colour or path
        found.values.update(values)
        found.pixels.update(dict(zip(colours, counts)))
        found.images.update(colours)
    return found


def listing(found: Survey, classes_file: Path) -> str:
    """The colours of a survey, or its values if they are grey, and what the user can write."""
    total = sum(found.pixels.values())
    rows = found.pixels.most_common(ROWS)
    in_colour = found.in_colour or found.palette
    lines = ["     colour" if in_colour else "      value"]
    lines[0] += "      share   images"
    for colour, count in rows:
        name = "{:3} {:3} {:3}".format(*colour) if in_colour else f"{colour[0]:11}"
        lines.append(f"{name}{100 * count / total:9.3f} %{found.images[colour]:9}")
    if len(found.pixels) > ROWS:
        lines.append(
            f"and {len(found.pixels) - ROWS} more; so many come from edges that a program has "
            "smoothed: --unknown void makes them void"
        )
    if in_colour:
        if set(found.pixels) <= {*VOC.colours, voc_colour(VOID)}:
            lines.append(
                "all are colours of VOC: if they mean its classes, add --classes voc; else"
            )
        lines.append(f"write to {classes_file}, the background first, with names of yours;")
        lines.append("pixels of no class have the name void:")
        names = ["background", *(f"class {number}" for number in range(1, len(rows)))]
        lines += [f"{name} {' '.join(map(str, colour))}" for name, (colour, _) in zip(names, rows)]
    else:
        lines.append(f"a class id, or void, for each value: {_suggestion(found)}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Legend:
    """Which class a value or a colour of the masks is."""

    ids: dict[int, int]  # value, or colour as 0xRRGGBB -> class id or VOID
    by_colour: bool
    unknown: int | None  # class id or VOID of all others; None: an error
    hint: str  # what to do then

    def read(self, path: Path) -> np.ndarray:
        """The mask in a file as (H, W) uint8 class ids and VOID.

        Raises:
            DataError: the file is damaged, or holds a colour or value that is not listed.
        """
        image = _open_mask(path)
        codes = _colour_codes(image) if self.by_colour else _values(image, path)
        known = np.array(sorted(self.ids))
        places = np.searchsorted(known, codes).clip(max=len(known) - 1)
        mask = np.array([self.ids[code] for code in known.tolist()], dtype=np.uint8)[places]
        unlisted = known[places] != codes
        if unlisted.any():
            if self.unknown is None:
                y, x = np.argwhere(unlisted)[0].tolist()
                code = int(codes[y, x])
                name = f"value {code}"
                if self.by_colour:
                    name = "colour {} {} {}".format(*code.to_bytes(3, "big"))
                raise DataError(
                    f"{path}: {name} at x={x}, y={y} is of no class; {self.hint} "
                    "or make all such pixels void with --unknown void"
                )
            mask[unlisted] = self.unknown
        return mask


def find_legend(
    found: Survey, listed: ClassList | None, options: Options, masks: Path
) -> tuple[Named, Legend]:
    """The classes of surveyed masks, and which values or colours they are.

    `--map` decides, then the colours of the listed classes. Otherwise a value is the id of its
    class, and 255 is void; but 0 and 255 are the classes if two are listed.

    Args:
        found: what the masks hold.
        listed: the classes that the user lists.
        options: `values` and `unknown` matter.
        masks: their folder, for messages.

    Raises:
        DataError: that does not say enough; the message says what to add.
    """
    classes, unknown = listed.classes if listed else None, options.unknown
    if options.values:
        ids = options.values
        classes = classes or _default_classes(max(set(ids.values()) - {VOID}, default=0))
        if wrong := sorted(set(ids.values()) - {*range(len(classes)), VOID}):
            raise DataError(f"--map: class {wrong[0]}, but the classes are 0..{len(classes) - 1}")
        return classes, Legend(ids, False, unknown, "add it to --map")
    by_value = options.values is not None  # --map same
    colours = {colour: index for index, colour in enumerate((classes or {}).values()) if colour}
    if colours and not by_value and (not found.is_grey or found.pixels.keys() <= colours.keys()):
        void = dict.fromkeys([voc_colour(VOID), *listed.void], VOID)
        ids = {_code(colour): index for colour, index in (void | colours).items()}
        hint = "list it (--list-colours shows all), or go by values with --map same,"
        return classes, Legend(ids, True, unknown, hint)
    if found.in_colour:
        raise DataError(
            f"{found.in_colour}: has colours, and nothing says which classes they are; "
            "--list-colours shows them and what to write"
        )
    if found.contradiction and not by_value:
        raise DataError(
            f"{found.contradiction}: a value has another colour in its palette than in those "
            "before, so values are no class ids; --list-colours shows the colours and what to write"
        )
    values = sorted(found.values - {VOID})
    if classes is None and not by_value and not (any(values) and 2 * len(values) > values[-1]):
        raise DataError(
            f"{masks}: the masks hold {first_of([*map(str, sorted(found.values))])}, which do not "
            f"look like class ids; if they are classes, add {_suggestion(found)} (=void for none)"
        )
    classes = classes or _default_classes(max(values, default=0))
    ids = {index: index for index in range(len(classes))} | {VOID: VOID}
    if found.values <= {0, VOID} and len(classes) == 2 and not by_value:
        ids = {0: 0, VOID: 1}
    if any(len(set(colour)) > 1 for colour in found.palette.values()):  # not all grey
        named = enumerate(classes.items())
        classes = {name: colour or found.palette.get(index) for index, (name, colour) in named}
    hint = f"the classes are 0..{len(classes) - 1}; give it one with --map,"
    return classes, Legend(ids, False, unknown, hint)


def _default_classes(last: int) -> Named:
    return {"background": None} | {f"class {index}": None for index in range(1, last + 1)}


def _suggestion(found: Survey) -> str:
    """The flag that gives each value a class of its own."""
    values = sorted(found.values)
    pairs = ",".join(f"{value}={index}" for index, value in enumerate(values[:LISTED]))
    return f"--map {pairs}{',..' if len(values) > LISTED else ''}"


def _open_mask(path: Path) -> Image.Image:
    image = open_image(path, MASK_FORMATS + LOSSY_FORMATS)
    if image.format in LOSSY_FORMATS:  # whatever it is called
        raise DataError(f"{path}: {LOSSY}")
    if image.mode not in INDEX_MODES and image.mode not in COLOUR_MODES:
        raise DataError(
            f"{path}: Pillow calls its kind of pixels {image.mode}; a mask has values of 8 or "
            "16 bits, a palette, or RGB"
        )
    return image


def _values(image: Image.Image, path: Path) -> np.ndarray:
    """The values of a mask, (H, W); those of a grey RGB image, too."""
    if image.mode in INDEX_MODES:
        return index_values(image, path)
    rgb = np.asarray(image.convert("RGB"))
    if (rgb != rgb[:, :, :1]).any():
        raise DataError(f"{path}: has colours, so --map, which is about values, cannot be used")
    return rgb[:, :, 0]


def _colour_codes(image: Image.Image) -> np.ndarray:
    """The colours of a mask as 0xRRGGBB, (H, W) int32."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _code(colour: Colour) -> int:
    return int.from_bytes(bytes(colour), "big")
