"""What a form of annotations tells of a photo; here alone text becomes names and numbers."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.formats.rasterize import Area, Size
from data.formats.source import Options, files_in


class Shape(NamedTuple):
    """One area, or points and lines, of one class; if neither, a kind that is not drawn."""

    kind: str  # as the form calls it
    label: str  # see `name_of`; void is no class
    area: Callable[[Size], Area] | None = None  # its pixels in a photo of this size
    lines: list[np.ndarray] | None = None  # each (n, 2) x, y; see `rasterize.stroke`


class Record(NamedTuple):
    """What a file tells of one photo; later shapes lie on earlier ones."""

    path: Path  # the file
    folder: Path  # of the photo, if it is where it should be
    photo: str  # its file name, perhaps with folders
    size: tuple[Any, Any] | None  # (height, width), as numbers or text; None: nothing is said
    shapes: list[Shape]
    small_on_top: bool = False  # instead: smaller shapes on larger ones, and void beneath all


def name_of(label: Any) -> str:
    """A name as it stands in a list of classes: those that differ by blanks are one.

    Raises:
        ValueError: it is neither text nor a whole number, or cannot be shown.
    """
    name = " ".join(str(label).split())
    if type(label) not in (str, int) or not name or not name.isprintable():
        raise ValueError(f"{label!r} cannot be the name of a class")
    return name


def numbers(values: Any) -> np.ndarray:
    """Numbers, or text of numbers, in nested lists as float64.

    Raises:
        ValueError: another thing is among them, infinity, or what no photo is large enough for.
    """
    found = np.asarray(values, dtype=float)
    if not (np.abs(found) < 1e7).all():
        raise ValueError("a coordinate that is no number, or is beyond all photos")
    return found


def files_with(suffix: str, words: Iterable[str], root: Path, options: Options) -> list[Path]:
    """The files with this suffix whose text has all the words; only that which the user names."""
    paths = [root / options.annotations] if options.annotations else files_in(root)
    texts = ((path, path.read_bytes()) for path in paths if path.suffix.lower() == suffix)
    return [path for path, text in texts if all(word.encode() in text for word in words)]
