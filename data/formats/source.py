"""What a form gives to `data.convert`: its classes, and its images one at a time."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

import numpy as np

from data import DataError
from data.classes import Colour
from data.images import PHOTO_SUFFIXES

# What reading a file of another form raises: JSON, base64, NumPy; zlib; Pillow and XML.
WRONG = (TypeError, ValueError, IndexError, AttributeError, zlib.error, OSError, SyntaxError)

Named = dict[str, Colour | None]  # class names, the background first, with RGB where known


class ClassList(NamedTuple):
    """Classes that the user lists."""

    classes: Named
    void: tuple[Colour, ...] = ()  # colours of pixels of no class


@dataclass(frozen=True)
class Options:
    """What the user says about a source; None leaves it to the form."""

    images: Path | None = None  # folder of the photos
    masks: Path | None = None  # folder of the masks
    annotations: Path | None = None  # the only file of annotations
    image_suffix: str | None = None  # end of the photos' names, before `.jpg`
    mask_suffix: str | None = None
    classes: ClassList | None = None
    values: dict[int, int] | None = None  # mask value -> class id or VOID; {}: each is its class
    unknown: int | None = None  # what colours, values and names become that no class has
    skip_bad: bool = False  # leave out images that cannot be used


class Pair(NamedTuple):
    """One image: its photo, as a file or the bytes of one, and its mask."""

    photo: Path | bytes
    mask: np.ndarray  # (H, W) uint8 class ids and VOID


@dataclass
class Source:
    """A data set that a form has recognised. Its masks are made when `pairs[id]()` is called.

    `pairs[id]()` raises a DataError where that image cannot be used.
    """

    form: str  # in words
    classes: Named = field(default_factory=dict)
    pairs: dict[str, Callable[[], Pair]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> names
    bad: list[str] = field(default_factory=list)  # reasons of images that `skip_bad` left out
    images: int = 0  # photos found, or images that the annotations tell of
    note: str = ""  # what the user should know
    doubts: list[str] = field(default_factory=list)  # photos that may lie otherwise than their mask

    def add(self, name: PurePath | str, load: Callable[[], Pair]) -> None:
        """Adds a pair under an id made of its name without suffix: `a/b` becomes `a_b`.

        Raises:
            DataError: another photo has that id.
        """
        parts = PurePosixPath(str(name).replace("\\", "/")).parts
        kept = "_".join(part for part in parts if part not in ("..", "/"))
        image_id = "".join(letter if letter.isprintable() else "_" for letter in kept).strip()
        if image_id in self.pairs:
            raise DataError(
                f"{name}: two photos would get the id {image_id!r}; rename or remove one"
            )
        self.pairs[image_id] = load

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, []).append(name)

    @contextmanager
    def leaving_out_bad(self, options: Options) -> Iterator[None]:
        """With `skip_bad`, a DataError ends no more than the block and is kept."""
        try:
            yield
        except DataError as error:
            if not options.skip_bad:
                raise DataError(f"{error}; --skip-bad leaves such images out") from None
            self.bad.append(str(error))


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and in those below, links followed, hidden ones left aside, sorted.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (an archive must be unpacked first)")
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(place, name) for name in names if name[0] != "."]
    return sorted(found)


class Photos:
    """The photos below a folder, found by the names that annotations give."""

    def __init__(self, folder: Path):
        self.by_name: dict[str, list[Path]] = {}
        for path in files_in(folder):
            if path.suffix.lower() in PHOTO_SUFFIXES:
                self.by_name.setdefault(path.name, []).append(path)

    def find(self, name: str, beside: Path) -> Path | None:
        """The photo at `name` from the folder `beside`, else the only one with that file name."""
        name = name.replace("\\", "/")  # annotated on Windows
        if (beside / name).is_file():
            return beside / name
        paths = self.by_name.get(PurePosixPath(name).name, [])
        paths = [path for path in paths if path.as_posix().endswith(f"/{name}")] or paths
        return paths[0] if len(paths) == 1 else None


NO_PHOTO = "no photo of that name, or several"  # why `find` finds none


def annotations_in(root: Path, options: Options, suffix: str, *words: str) -> list[Path]:
    """The files with this suffix whose text has all the words; only that which the user names."""
    paths = [root / options.annotations] if options.annotations else files_in(root)
    wanted = [word.encode() for word in words]

    def has_all(path: Path) -> bool:
        text = path.read_bytes()
        return all(word in text for word in wanted)

    return [path for path in paths if path.suffix.lower() == suffix and has_all(path)]


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        DataError: it is not one.
    """
    with as_written(path, "JSON"):
        return dict(json.loads(path.read_bytes()))


@contextmanager
def as_written(path: Path, form: str) -> Iterator[None]:
    """Turns what goes wrong in reading a file that is not as `form` wants it into a DataError."""
    try:
        yield
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{path}: not {form} as it is known here: no {error} in it") from None
    except WRONG as error:
        if getattr(error, "errno", None):  # the system's word about the file, such as no permission
            raise
        raise DataError(f"{path}: not {form} as it is known here ({error})") from None
