"""The classes of a data set: names, colours, void. PASCAL VOC's 21 unless the data folder brings a `classes.txt`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import DataError

VOID = 255  # mask value of pixels that belong to no class: never sampled, never trained on, never scored

Colour = tuple[int, int, int]

GRID = (0, 28, 57, 85, 113, 142, 170, 198, 227, 255)  # levels of each channel that `distinct_colours` chooses from
DARKEST = 0.3  # lightness in OKLab: black is 0, white 1
RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
CONES_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

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
    """RGB colour (0..255) of mask value `index` in the PASCAL VOC palette: its bits, dealt to R, G, B in turn.

    Source: `VOClabelcolormap.m` of the VOC 2012 development kit.
    """
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return tuple(colour)


def distinct_colours(count: int, taken: Sequence[Colour]) -> list[Colour]:
    """So many RGB colours (0..255), each as far as can be from those before it, from `taken`, from white and from void.

    Far to the eye: in OKLab (Ottosson 2020), without what is nearly black. Farthest-first choice (Gonzalez 1985) from a
    grid of colours; fewer of them are the first of more.
    """
    grid = np.stack(np.meshgrid(GRID, GRID, GRID, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _oklab(grid)
    grid, places = grid[places[:, 0] >= DARKEST], places[places[:, 0] >= DARKEST]
    others = _oklab(np.array([*taken, (255, 255, 255), voc_colour(VOID)]))
    nearest = np.linalg.norm(places[:, None] - others, axis=2).min(1)
    colours = []
    for _ in range(count):
        farthest = nearest.argmax()
        colours.append(tuple(grid[farthest].tolist()))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[farthest], axis=1))
    return colours


def _oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB (n, 3), 0..255, in a space where distances are about those that the eye sees: OKLab (n, 3)."""
    rgb = colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ RGB_TO_CONES.T) @ CONES_TO_LAB.T


@dataclass(frozen=True)
class Classes:
    """Names and RGB colours (0..255) of the classes; their position is the mask value, 0 is the background."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

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

    Up to 21 classes without a colour get VOC's, by their place, where no other class is given that one. The others, and
    all but the background of a longer list, get `distinct_colours`: VOC's palette goes on in shades of a few hues.

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
        colours.append(tuple(int(value) for value in rgb) if rgb else None)
        names.append(name)
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{path}: {len(names)} classes; a data set needs 2 to {VOID}, the background first")
    return Classes(tuple(names), _fill_in(colours))


def _fill_in(colours: Sequence[Colour | None]) -> tuple[Colour, ...]:
    """The colours with one in each place where there is none; see `read_classes`."""
    usual = VOC.colours if len(colours) <= len(VOC) else VOC.colours[:1]
    filled = [
        usual[place] if colour is None and place < len(usual) and usual[place] not in colours else colour
        for place, colour in enumerate(colours)
    ]
    more = iter(distinct_colours(filled.count(None), [colour for colour in filled if colour is not None]))
    return tuple(next(more) if colour is None else colour for colour in filled)
