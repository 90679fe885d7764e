"""What a form gives to `data.convert`: its classes, and its images one at a time."""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

import numpy as np

from data import UserError
from data.classes import Colour

# What reading the files of other programs raises: JSON, XML, base64, zlib, NumPy, Pillow.
WRONG = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
WRONG += (zlib.error, OSError, SyntaxError)

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
    """One image: its photo, a file or what gives the bytes of one, and what makes its mask."""

    photo: Path | Callable[[], bytes]
    mask: Callable[[], np.ndarray]  # (H, W) uint8 class ids and VOID


@dataclass
class Source:
    """A data set that a form has recognised."""

    form: str  # in words
    options: Options
    note: str = ""  # what the user should know
    classes: Named = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)  # by id
    images: int = 0  # photos found, or images that the annotations tell of
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> names
    bad: list[str] = field(default_factory=list)  # reasons of images that `skip_bad` left out
    doubts: list[str] = field(default_factory=list)  # photos that may lie otherwise than their mask
    drawn: int | None = None  # shapes that have pixels, where annotations are drawn

    def add(self, name: PurePath | str, pair: Pair) -> None:
        """Adds a pair under an id made of its name without suffix: `a/b` becomes `a_b`.

        Raises:
            UserError: another photo has that id.
        """
        parts = PurePosixPath(str(name).replace("\\", "/")).parts
        kept = "_".join(part for part in parts if part not in ("..", "/"))
        image_id = "".join(letter if letter.isprintable() else "_" for letter in kept).strip()
        if self.pairs.setdefault(image_id, pair) is not pair:
            raise UserError(
                f"{name}: two photos would get the id {image_id!r}; rename or remove one"
            )

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, []).append(name)

    @contextmanager
    def leaving_out_bad(self) -> Iterator[None]:
        """With `skip_bad`, a UserError ends no more than the block and is kept."""
        try:
            yield
        except UserError as error:
            if not self.options.skip_bad:
                raise UserError(f"{error}; --skip-bad leaves such images out") from None
            self.bad.append(str(error))


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and in those below, links followed, hidden ones left aside, sorted.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (an archive must be unpacked first)")
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(place, name) for name in names if name[0] != "."]
    return sorted(found)


@contextmanager
def as_written(path: Path, form: str) -> Iterator[None]:
    """Turns what goes wrong in reading a file that is not as `form` wants it into a UserError."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path}: not {form} as it is known here: no {error} in it") from None
    except WRONG as error:
        if getattr(error, "errno", None):  # the system's word about the file, such as no permission
            raise
        raise UserError(f"{path}: not {form} as it is known here ({error})") from None
