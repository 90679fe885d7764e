"""The classes of a data set: names, colours, void.

They are PASCAL VOC's 21 unless the data folder has a `classes.txt`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import DataError

VOID = 255  # mask value of pixels of no class: never sampled, trained on or scored

Colour = tuple[int, int, int]

VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_colour(index: int) -> Colour:
    """RGB colour (0..255) of a mask value in VOC's palette: its bits go to R, G, B in turn.

    Source: `VOClabelcolormap.m` of the VOC 2012 development kit.
    """
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return tuple(colour)


def distinct_colours(count: int, taken: Sequence[Colour]) -> list[Colour]:
    """`count` RGB colours (0..255) far from each other, from `taken`, white and the colour of void.

    Each is, in a grid of colours that are not nearly black, the farthest from all before it
    (Gonzalez 1985), so fewer colours are the first of more. Distances are those of OKLab, which
    are close to those that the eye sees.
    """
    levels = np.linspace(0, 255, 10).round().astype(int)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[_oklab(grid)[:, 0] >= DARKEST]
    places = _oklab(grid)
    others = _oklab(np.array([*taken, (255, 255, 255), voc_colour(VOID)]))
    nearest = np.linalg.norm(places[:, None] - others, axis=2).min(axis=1)
    colours = []
    for _ in range(count):
        farthest = nearest.argmax()
        colours.append(tuple(grid[farthest].tolist()))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[farthest], axis=1))
    return colours


DARKEST = 0.3  # least lightness in OKLab; black is 0, white 1
RGB_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def _oklab(colours: np.ndarray) -> np.ndarray:
    """OKLab (n, 3) of sRGB colours (n, 3), 0..255; source: Ottosson, "A perceptual color space"."""
    rgb = colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.transpose(RGB_TO_LMS)) @ np.transpose(LMS_TO_LAB)


@dataclass(frozen=True)
class Classes:
    """Names and RGB colours (0..255) of the classes, by mask value; 0 is the background."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    @classmethod
    def from_lists(cls, names: list[str], colours: list[list[int]]) -> "Classes":
        """Classes from the plain lists that checkpoints and configurations hold."""
        return cls(tuple(names), tuple(tuple(colour) for colour in colours))

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, names: Iterable[str]) -> set[int]:
        """The ids of the classes with these names.

        Raises:
            DataError: an unknown name; it lists the known ones.
        """
        found = set()
        for name in names:
            if name not in self.names:
                known = ", ".join(self.names)
                raise DataError(f"--classes: {name!r} is no class here; there are: {known}")
            found.add(self.names.index(name))
        return found

    def palette(self) -> list[int]:
        """256 colours as the 768 numbers that `PIL.Image.putpalette` takes.

        Values that are no class have VOC's.
        """
        colours = list(self.colours) + [voc_colour(index) for index in range(len(self), 256)]
        return [value for colour in colours for value in colour]


VOC = Classes(VOC_NAMES, tuple(voc_colour(index) for index in range(len(VOC_NAMES))))


def read_classes(folder: Path) -> Classes:
    """The classes of a data folder: those of its `classes.txt`, else VOC's.

    The file has a class a line, the background first: `name` or `name r g b`, with 0..255. A name
    may hold blanks. Up to 21 classes without a colour get VOC's of the same place, unless another
    class has it. All others, and all but the background of a longer list, get `distinct_colours`,
    because VOC's palette soon repeats itself in shades that look alike.

    Raises:
        DataError: a line that cannot be read, a name given twice, or fewer than 2 or more than 255
            classes.
    """
    path = Path(folder) / "classes.txt"
    if not path.is_file():
        return VOC
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a UTF-8 text file") from None
    classes = parse_classes(lines, path)
    if not 2 <= len(classes) <= VOID:
        raise DataError(
            f"{path}: {len(classes)} classes; a data set needs 2 to {VOID}, the background first"
        )
    return Classes(tuple(classes), _fill_in(list(classes.values())))


def parse_classes(lines: Iterable[str], path: Path) -> dict[str, Colour | None]:
    """The classes in lines of a file, each `name` or `name r g b`; None without a colour.

    Raises:
        DataError: a line that cannot be read, or a name given twice.
    """
    classes: dict[str, Colour | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, rgb = _name_and_colour(line)
        if not name or not all(
            value.isdecimal() and len(value) <= 3 and int(value) <= 255 for value in rgb
        ):
            raise DataError(
                f"{path}, line {number}: expected 'name' or 'name r g b' with 0..255, "
                f"found {line!r}"
            )
        if not name.isprintable():
            raise DataError(
                f"{path}, line {number}: {name!r} holds characters that cannot be shown"
            )
        if name in classes:
            raise DataError(f"{path}, line {number}: class {name!r} is given twice")
        classes[name] = tuple(int(value) for value in rgb) or None
    return classes


def _name_and_colour(line: str) -> tuple[str, list[str]]:
    """Name and the words of the colour, which are there if the last two words look like numbers.

    So a name may end in a number, and a colour that lacks a number or has a sign is noticed.
    """
    words = line.split()
    if len(words) > 2 and all(re.fullmatch(r"[-+.\d]+", word) for word in words[-2:]):
        return " ".join(words[:-3]), words[-3:]
    return " ".join(words), []


def _fill_in(colours: list[Colour | None]) -> tuple[Colour, ...]:
    """The colours, with one for each None as `read_classes` says."""
    usual = VOC.colours if len(colours) <= len(VOC) else VOC.colours[:1]
    filled = list(colours)
    for place, colour in enumerate(usual[: len(colours)]):
        if filled[place] is None and colour not in colours:
            filled[place] = colour
    taken = [colour for colour in filled if colour is not None]
    more = iter(distinct_colours(filled.count(None), taken))
    return tuple(next(more) if colour is None else colour for colour in filled)
