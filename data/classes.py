"""The classes of a data set: names, colours, void.

They are PASCAL VOC's 21 unless the data folder has a `classes.txt`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data import UserError
from data.files import read_lines

# Lists of classes: ours, CVAT's, labelme2voc's, a usual one, and CamVid's.
CLASS_FILES = ("classes.txt", "labelmap.txt", "class_names.txt", "class_dict.csv")
CLASS_FILES += ("label_colors.txt",)
VOID = 255  # mask value of pixels of no class: never sampled, trained on or scored
NO_CLASS = ("void", "ignore", "__ignore__")  # what other programs call it
# fmt: off
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)
# fmt: on

Colour = tuple[int, ...]  # red, green, blue, 0..255


@cache
def voc_colour(index: int) -> Colour:
    """RGB colour (0..255) of a mask value in VOC's palette: its bits go to R, G, B in turn.

    Source: `VOClabelcolormap.m` of the VOC 2012 development kit.
    """
    return tuple(
        sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
        for channel in range(3)
    )


def is_sparse(void: int, pixels: int) -> bool:
    """Whether so many of the pixels are void that the labels are strokes or clicks: over half."""
    return void > pixels / 2


@dataclass(frozen=True)
class Classes:
    """Names and RGB colours (0..255) of the classes, by mask value; 0 is the background."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    @classmethod
    def from_named(cls, named: Mapping[str, Colour | None], where: object = "classes") -> "Classes":
        """Classes by their names; one without a colour gets VOC's of its place.

        But black, which pictures leave clear, only what is called background: `wall` gets another.

        Raises:
            UserError: fewer than 2 or more than 255; says `where` they are named.
        """
        if not 2 <= len(named) <= VOID:
            raise UserError(
                f"{where}: {len(named)} classes; a data set needs 2 to {VOID}, the background first"
            )
        colours = [own or voc_colour(place) for place, own in enumerate(named.values())]
        first, own = next(iter(named.items()))
        if not own and first.casefold().strip("_") != "background":
            colours[0] = voc_colour(VOID - 1)
        return cls(tuple(named), tuple(colours))

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, names: Iterable[str]) -> set[int]:
        """The ids of the classes with these names; a UserError lists the known ones."""
        if unknown := [name for name in names if name not in self.names]:
            known = ", ".join(self.names)
            raise UserError(f"--classes: {unknown[0]!r} is no class here; there are: {known}")
        return {self.names.index(name) for name in names}

    def palette(self) -> list[int]:
        """256 colours as 768 numbers, for `PIL.Image.putpalette`; VOC's after the classes."""
        colours = [*self.colours, *map(voc_colour, range(len(self), 256))]
        return [value for colour in colours for value in colour]


VOC = Classes(VOC_NAMES, tuple(map(voc_colour, range(len(VOC_NAMES)))))


def read_classes(folder: Path) -> Classes:
    """The classes of a data folder: those of its `classes.txt`, else VOC's.

    Raises:
        UserError: see `parse_classes` and `Classes.from_named`; or there is a list by a name that
            other programs give, or one with a name of void.
    """
    path, *others = (folder / name for name in CLASS_FILES)
    if not path.is_file():
        if named := [other.name for other in others if other.is_file()]:
            raise UserError(
                f"{folder}: the classes are in {named[0]}, and only classes.txt is read here; "
                "python -m data.convert goes by it, or write classes.txt, the background first"
            )
        return VOC
    named = parse_classes(read_lines(path), path)
    if void := [name for name in named if name.casefold() in NO_CLASS]:  # it would shift the others
        raise UserError(f"{path}: {void[0]!r} is no class; leave it out, in masks it is {VOID}")
    return Classes.from_named(named, path)


def parse_classes(lines: Iterable[str], path: Path) -> dict[str, Colour | None]:
    """The classes in lines of a file, each `name` or `name r g b`, with 0..255; None: no colour.

    Raises:
        UserError: a line that cannot be read, or a name given twice.
    """
    classes: dict[str, Colour | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rgb = re.fullmatch(r"\s*(.+?)((?:\s+\d{1,3}){3})?\s*", line).groups()
        name, colour = " ".join(name.split()), tuple(map(int, (rgb[0] or "").split()))
        # Two numbers side by side are of a colour that lacks a number, or has a sign, or stands
        # first, or of a table.
        is_table = not colour and re.search(r"(^|\s)[-+.\d]+\s+[-+.\d]+(\s|$)", name)
        if is_table or not name.isprintable() or max(colour, default=0) > 255:
            raise UserError(
                f"{path}, line {number}: expected 'name' or 'name r g b' with 0..255, "
                f"found {line!r}"
            )
        if name in classes:
            raise UserError(f"{path}, line {number}: class {name!r} is given twice")
        classes[name] = colour or None
    bare = [] if any(classes.values()) else [*classes]
    for first in (0, 1):
        if bare and all(re.match(rf"{n}\b\W*\w", name) for n, name in enumerate(bare, first)):
            raise UserError(f"{path}: its lines are numbered; leave the names alone in them")
    return classes
