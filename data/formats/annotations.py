"""From annotations to masks, for every form: photos found, classes numbered, shapes drawn, counted.

A form is a module with `NAME`; `NOTE`, what the user should know of overlaps; `AREAS`, the kinds of
its shapes that are drawn; `SMALL_ON_TOP`, whether small shapes lie on large ones and void beneath,
else later ones on earlier; `find(root, options)`, its files; and `read(path, labels)`, which yields
the photos of a file and adds the classes that it lists. It may raise what is in `source.WRONG`.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from data import UserError
from data.classes import VOID
from data.formats.drawing import Patch, Size, paint
from data.formats.names import number
from data.formats.source import Options, Pair, Source, as_written, files_in
from data.images import PHOTO_SUFFIXES

MOST_PIXELS = 1 << 28  # of a photo; more is a mistake in the file


class Shape(NamedTuple):
    """One area, of one class."""

    kind: str
    label: Any  # name of its class, which may be a number; `void` is no class
    draw: Callable[[Size], Patch]


class Record(NamedTuple):
    """What a form tells of one photo."""

    name: PurePath | str  # makes the id
    photo: str  # its file name, perhaps with folders
    folder: Path  # where that begins
    size: Size  # (height, width), as numbers or text
    shapes: list[Shape]
    inside: Callable[[], bytes] | None = None  # gives the photo if it lies in the annotations


def find(form: ModuleType, root: Path, options: Options) -> Source | None:
    """The photos in the files of a form; None if there are no such files.

    Raises:
        UserError: see `number`; a file is not as the form wants it; photos cannot be told apart.
    """
    paths = form.find(root, options)
    if not paths:
        return None
    source, labels, told = Source(form.NAME, options, form.NOTE, drawn=0), {}, []
    for path in paths:
        with source.leaving_out_bad(), as_written(path, form.NAME):
            told += [(path, record) for record in form.read(path, labels)]
    source.images = len(told) + len(source.bad)
    used = set()
    for _, record in told:
        for shape in record.shapes:
            if shape.kind in form.AREAS:
                used.add(_text(shape.label))
            else:
                source.leave_out(f"shape not drawn ({shape.kind})", record.photo)
    labels = {_text(name): colour for name, colour in labels.items()}
    labels |= {name: None for name in sorted(used) if name not in labels}
    source.classes, ids = number(labels, used, options, root)
    photos = _find_photos(root / (options.images or ""), [record for _, record in told])
    folder, given = os.path.commonpath([path.parent for path in paths]), {}
    for (path, record), photo in zip(told, photos):
        if not photo:
            source.leave_out("no photo of that name, or several", record.photo)
            continue
        if _has_other_photo(record, photo):  # renamed after they were annotated
            source.leave_out("names another photo than that of its own name", path.name)
            continue
        with source.leaving_out_bad():
            if (first := given.setdefault(photo, path)) != path:
                raise UserError(f"{path}: names the photo {photo}, as {first} does; keep one")
            name = record.name
            name = name.relative_to(folder) if isinstance(name, Path) else name.replace("\\", "/")
            mask = partial(_mask, form, path, record, ids, source)
            source.add(PurePosixPath(name).with_suffix(""), Pair(photo, mask))
    return source


def _mask(
    form: ModuleType, path: Path, record: Record, ids: dict[str, int], source: Source
) -> np.ndarray:
    """The shapes of a photo as class ids, (H, W) uint8; counts those that draw nothing."""
    with as_written(path, form.NAME):
        size = tuple(map(int, record.size))
        if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
            raise ValueError(f"a photo of {size[1]}x{size[0]} pixels")
        mask = np.zeros(size, dtype=np.uint8)
        shapes = [shape for shape in record.shapes if shape.kind in form.AREAS]
        drawn = ((ids[_text(shape.label)], shape.draw(size)) for shape in shapes)
        if form.SMALL_ON_TOP:
            drawn = sorted(drawn, key=lambda one: (one[0] != VOID, -one[1].inside.sum()))
        for value, patch in drawn:
            paint(mask, patch, value)
            if patch.inside.any():
                source.drawn += 1
            else:
                source.leave_out("shape without a pixel in its photo", record.photo)
    return mask


def _text(label: Any) -> str:
    """A name as it stands in a list of classes: labels that differ by blanks are one."""
    return " ".join(str(label).split())


def _find_photos(folder: Path, records: list[Record]) -> list[Path | Callable | None]:
    """The photo of each record: where it should be, else the only one of that name elsewhere.

    What is where one record says is no other's photo.
    """
    by_name = defaultdict(list)
    for path in files_in(folder):
        if path.suffix.lower() in PHOTO_SUFFIXES:
            by_name[path.name].append(path)
    found, alike = [], []
    for record in records:
        name = str(record.photo).replace("\\", "/")  # annotated on Windows
        there = Path(os.path.normpath(record.folder / name))
        paths = by_name[PurePosixPath(name).name]
        ends = [path for path in paths if path.as_posix().endswith(f"/{name}")]
        found.append(there if there.is_file() else ends[0] if len(ends) == 1 else None)
        alike.append(ends or paths)
    taken = set(found)
    for place, paths in enumerate(alike):
        if found[place] is None:
            paths = [path for path in paths if path not in taken]
            found[place] = paths[0] if len(paths) == 1 else records[place].inside
    return found


def _has_other_photo(record: Record, photo: Path | Callable) -> bool:
    """Whether a photo called as a file of one photo lies beside the one that the file names."""
    if not (isinstance(photo, Path) and isinstance(record.name, Path)):
        return False
    own = photo.with_name(record.name.stem + photo.suffix)
    return own != photo and own.is_file()


def files_with(root: Path, options: Options, suffix: str, *words: str) -> list[Path]:
    """The files with this suffix whose text has all the words; only that which the user names."""
    paths = [root / options.annotations] if options.annotations else files_in(root)
    texts = ((path, path.read_bytes()) for path in paths if path.suffix.lower() == suffix)
    return [path for path, text in texts if all(word.encode() in text for word in words)]


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        UserError: it is not one.
    """
    with as_written(path, "JSON"):
        return dict(json.loads(path.read_bytes()))
