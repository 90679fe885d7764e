"""The classes of a data set: names, colours, void. PASCAL VOC's 21 unless the data folder brings a `classes.txt`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data import DataError

VOID = 255  # mask value of pixels that belong to no class: never sampled, never trained on, never scored

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


def voc_colour(index: int) -> tuple[int, int, int]:
    """RGB colour (0..255) of mask value `index` in the PASCAL VOC palette: its bits, dealt to R, G, B in turn.

    Source: `VOClabelcolormap.m` of the VOC 2012 development kit.
    """
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return tuple(colour)


@dataclass(frozen=True)
class Classes:
    """Names and RGB colours (0..255) of the classes; their position is the mask value, 0 is the background."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_lists(cls, names: list[str], colours: list[list[int]]) -> "Classes":
        """Classes from the plain lists that checkpoints and configurations hold."""
        return cls(tuple(names), tuple(tuple(colour) for colour in colours))

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, names: Iterable[str]) -> set[int]:
        """The ids of classes by their names.

        Raises:
            DataError: a name that is not there; it lists those that are.
        """
        found = set()
        for name in names:
            if name not in self.names:
                raise DataError(f"--classes: {name!r} is no class here; there are: {', '.join(self.names)}")
            found.add(self.names.index(name))
        return found

    def palette(self) -> list[int]:
        """256 colours as the 768 numbers that `PIL.Image.putpalette` takes; values that are no class keep VOC's."""
        colours = list(self.colours) + [voc_colour(index) for index in range(len(self), 256)]
        return [value for colour in colours for value in colour]


VOC = Classes(VOC_NAMES, tuple(voc_colour(index) for index in range(len(VOC_NAMES))))


def read_classes(folder: Path) -> Classes:
    """The classes of a data folder: its `classes.txt` (one `name [r g b]` a line, the background first), else VOC's.

    Raises:
        DataError: a line that cannot be read, a name given twice, or fewer than 2 or more than 255 classes.
    """
    path = Path(folder) / "classes.txt"
    if not path.is_file():
        return VOC
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a UTF-8 text file") from None
    names, colours = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        name, rgb = words[0], words[1:]
        if len(rgb) not in (0, 3) or not all(value.isdecimal() and int(value) <= 255 for value in rgb):
            raise DataError(f"{path}, line {number}: expected 'name' or 'name r g b' with 0..255, found {line!r}")
        if name in names:
            raise DataError(f"{path}, line {number}: class {name!r} is given twice")
        colours.append(tuple(int(value) for value in rgb) if rgb else voc_colour(len(names)))
        names.append(name)
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{path}: {len(names)} classes; a data set needs 2 to {VOID}, the background first")
    return Classes(tuple(names), tuple(colours))
