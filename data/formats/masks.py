"""Masks as images: what values and colours they hold, and which classes these are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data import UserError
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
COLOUR_MODES = ("RGB", "RGBA", "LA", "PA")  # Pillow's
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

    def add(self, image: Image.Image, path: Path) -> None:
        """Counts a mask."""
        self.is_grey &= image.mode in INDEX_MODES and image.mode != "P"
        if image.mode in INDEX_MODES:
            values, counts = np.unique(index_values(image, path), return_counts=True)
            values, counts = values.tolist(), counts.tolist()
            colours = [(value, value, value) for value in values]
            if image.mode == "P":
                table = image.getpalette() + [0] * 768
                colours = [tuple(table[3 * value : 3 * value + 3]) for value in values]
                same = [self.palette.setdefault(*use) == use[1] for use in zip(values, colours)]
                self.contradiction = self.contradiction or (None if all(same) else path)
        else:
            counts, colours = zip(*image.convert("RGB").getcolors(image.width * image.height))
            values = [red for red, green, blue in colours if red == green == blue]
            self.in_colour = self.in_colour or (path if len(values) < len(colours) else None)
        self.values.update(values)
        for colour, count in zip(colours, counts):  # two values of a palette may look alike
            self.pixels[colour] += count
        self.images.update(set(colours))


def survey(paths: Sequence[Path], skip_bad: bool = False) -> Survey:
    """Reads all masks once; with `skip_bad`, those that can be read.

    Raises:
        UserError: a file is damaged or no mask.
    """
    found = Survey()
    for path in tqdm(paths, "look", unit="mask", disable=None, leave=False):
        try:
            found.add(_open_mask(path), path)
        except UserError:
            if not skip_bad:
                raise
    return found


def listing(found: Survey, classes_file: Path) -> str:
    """The colours of a survey, or its values if they are grey, and what the user can write."""
    total, rows = sum(found.pixels.values()), found.pixels.most_common(ROWS)
    in_colour = found.in_colour or found.palette
    lines = [("     colour" if in_colour else "      value") + "      share   images"]
    for colour, count in rows:
        name = "{:3} {:3} {:3}".format(*colour) if in_colour else f"{colour[0]:11}"
        lines.append(f"{name}{100 * count / total:9.3f} %{found.images[colour]:9}")
    if len(found.pixels) > ROWS:
        lines.append(
            f"and {len(found.pixels) - ROWS} more; so many come from edges that a program has "
            "smoothed: --unknown void makes them void"
        )
    if not in_colour:
        lines.append(f"a class id, or void, for each value: {_suggestion(found)}")
        return "\n".join(lines)
    if set(found.pixels) <= {*VOC.colours, voc_colour(VOID)}:
        lines.append("all are colours of VOC: if they mean its classes, add --classes voc; else")
    lines.append(f"write to {classes_file}, the background first, with names of yours;")
    lines.append("pixels of no class have the name void:")
    names = _default_classes(len(rows) - 1)
    lines += [f"{name} {' '.join(map(str, colour))}" for name, (colour, _) in zip(names, rows)]
    return "\n".join(lines)


@dataclass(frozen=True)
class Legend:
    """Which class a value or a colour of the masks is."""

    ids: dict[int, int]  # value, or colour as 0xRRGGBB -> class id or VOID
    hint: str  # what to do about another
    by_colour: bool = False
    unknown: int | None = None  # class id or VOID of all others; None: an error

    def read(self, path: Path) -> np.ndarray:
        """The mask in a file as (H, W) uint8 class ids and VOID.

        Raises:
            UserError: the file is damaged, or holds a colour or value that is not listed.
        """
        image = _open_mask(path)
        if image.mode in INDEX_MODES and not self.by_colour:
            codes = index_values(image, path)
        else:
            rgb = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.int32), -1, 0)
            codes = rgb[0] << 16 | rgb[1] << 8 | rgb[2] if self.by_colour else rgb[0]
            if not self.by_colour and (rgb != rgb[0]).any():
                raise UserError(
                    f"{path}: has colours, so --map, which is about values, cannot be used"
                )
        known = np.array(sorted(self.ids))
        places = np.searchsorted(known, codes).clip(max=len(known) - 1)
        mask = np.array([self.ids[code] for code in known.tolist()], dtype=np.uint8)[places]
        unlisted = known[places] != codes
        if unlisted.any() and self.unknown is None:
            y, x = np.argwhere(unlisted)[0].tolist()
            code = int(codes[y, x])
            name = f"value {code}"
            if self.by_colour:
                name = f"colour {code >> 16} {code >> 8 & 255} {code & 255}"
            raise UserError(
                f"{path}: {name} at x={x}, y={y} is of no class; {self.hint} or make all such "
                "pixels void with --unknown void"
            )
        mask[unlisted] = self.unknown or 0
        return mask


def find_legend(
    found: Survey, listed: ClassList | None, options: Options, masks: Path
) -> tuple[Named, Legend]:
    """The classes of surveyed masks, and which values or colours they are.

    `--map` decides, then the colours of the listed classes. Otherwise a value is the id of its
    class, and 255 is void; but 0 and 255 are the classes if two are listed.

    Raises:
        UserError: that does not say enough; the message, about `masks`, says what to add.
    """
    classes, unknown = listed.classes if listed else None, options.unknown
    if options.values:
        ids = options.values
        classes = classes or _default_classes(max(set(ids.values()) - {VOID}, default=0))
        if wrong := sorted(set(ids.values()) - {*range(len(classes)), VOID}):
            raise UserError(f"--map: class {wrong[0]}, but the classes are 0..{len(classes) - 1}")
        return classes, Legend(ids, "add it to --map", unknown=unknown)
    by_value = options.values is not None  # --map same
    colours = {colour: index for index, colour in enumerate((classes or {}).values()) if colour}
    if colours and not by_value and (not found.is_grey or found.pixels.keys() <= colours.keys()):
        void = dict.fromkeys([voc_colour(VOID), *listed.void], VOID)
        ids = {int.from_bytes(bytes(rgb), "big"): index for rgb, index in (void | colours).items()}
        hint = "list it (--list-colours shows all), or go by values with --map same,"
        return classes, Legend(ids, hint, by_colour=True, unknown=unknown)
    if found.in_colour:
        raise UserError(
            f"{found.in_colour}: has colours, and nothing says which classes they are; "
            "--list-colours shows them and what to write"
        )
    if found.contradiction and not by_value:
        raise UserError(
            f"{found.contradiction}: a value has another colour in its palette than in those "
            "before, so values are no class ids; --list-colours shows the colours and what to write"
        )
    values = sorted(found.values - {VOID})
    if classes is None and not by_value and not (any(values) and 2 * len(values) > values[-1]):
        raise UserError(
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
    return classes, Legend(ids, hint, unknown=unknown)


def _default_classes(last: int) -> Named:
    return {"background": None} | {f"class {index}": None for index in range(1, last + 1)}


def _suggestion(found: Survey) -> str:
    """The flag that gives each value a class of its own."""
    pairs = [f"{value}={index}" for index, value in enumerate(sorted(found.values))]
    return f"--map {','.join(pairs[:LISTED] + ['..'] * (len(pairs) > LISTED))}"


def _open_mask(path: Path) -> Image.Image:
    image = open_image(path, MASK_FORMATS + LOSSY_FORMATS)
    if image.format in LOSSY_FORMATS:  # whatever it is called
        raise UserError(f"{path}: {LOSSY}")
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
