"""From annotations to masks, for every form: photos found, classes numbered, shapes drawn, counted.

A form is a module with `NAME`; `AREAS`, the kinds of its shapes that are drawn; `SMALL_ON_TOP`,
whether small shapes lie on large ones and void beneath, else later ones on earlier;
`find(root, options)`, its files; and `read(path, labels)`, which yields the photos of a file and
adds the classes that it lists to `labels`.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from data import UserError
from data.classes import VOID
from data.formats.drawing import Drawn, Size
from data.formats.names import number
from data.formats.source import Options, Pair, Source, as_written, files_in
from data.images import PHOTO_SUFFIXES

MOST_PIXELS = 1 << 28  # of a photo; more is a mistake in the file


class Shape(NamedTuple):
    """One area, of one class."""

    kind: str
    label: Any  # name of its class, which may be a number; `void` is no class
    draw: Callable[[Size], Drawn]


class Record(NamedTuple):
    """What a form tells of one photo."""

    name: str  # makes the id
    photo: str  # its file name, perhaps with folders
    folder: Path  # where that begins
    size: tuple[Any, Any]  # (height, width), as numbers or text
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
    source, named, told = Source(form.NAME, options), {}, []
    for path in paths:
        with source.leaving_out_bad(), as_written(path, form.NAME):
            told += [(path, record) for record in form.read(path, named)]
    source.images = len(told)
    shapes = [shape for _, record in told for shape in record.shapes if shape.kind in form.AREAS]
    named = {text_of(name): colour for name, colour in named.items()}
    source.classes, ids = number(named, {text_of(shape.label) for shape in shapes}, options)
    files, namesakes = defaultdict(list), Counter(_photo_name(record).name for _, record in told)
    for path in files_in(root / (options.images or "")):
        if path.suffix.lower() in PHOTO_SUFFIXES:
            files[path.name].append(path)
    folder, first = os.path.commonpath([path.parent for path in paths]), {}
    for path, record in told:
        photo = _find_photo(record, files, namesakes) or record.inside
        if not photo:
            source.note("left out: no photo of that name, or several", record.photo)
            continue
        own = photo.with_name(path.stem + photo.suffix) if isinstance(photo, Path) else photo
        if own != photo and own.is_file():  # as after photos were renumbered
            source.note("left out: names another photo than that of its own name", path.name)
            continue
        with source.leaving_out_bad():
            if first.setdefault(photo, path) != path:
                raise UserError(
                    f"{path}: names the photo {photo}, as {first[photo]} does; keep one"
                )
            name = record.name.replace("\\", "/").removeprefix(f"{Path(folder).as_posix()}/")
            mask = partial(_draw, form, path, record, ids, source)
            source.add(str(PurePosixPath(name).with_suffix("")), Pair(photo, mask))
    return source


def text_of(label: Any) -> str:
    """A name as it stands in a list of classes: labels that differ by blanks are one."""
    return " ".join(str(label).split())


def _draw(
    form: ModuleType, path: Path, record: Record, ids: dict[str, int], source: Source
) -> np.ndarray:
    """The shapes of a photo as class ids, (H, W) uint8; notes those that draw nothing."""
    drawn = []
    with as_written(path, form.NAME):
        height, width = map(int, record.size)
        if not 0 < height * width <= MOST_PIXELS:
            raise ValueError(f"a photo of {width}x{height} pixels")
        mask = np.zeros((height, width), dtype=np.uint8)
        for shape in record.shapes:
            if shape.kind in form.AREAS:
                drawn.append((ids[text_of(shape.label)], *shape.draw(mask.shape)))
            else:
                source.note(f"left out: shape not drawn ({shape.kind})", record.photo)
    if form.SMALL_ON_TOP:
        drawn.sort(key=lambda shape: (shape[0] != VOID, -shape[2].sum()))
    for value, window, inside in drawn:
        mask[window][inside] = value
        if not inside.any():
            source.note("left out: shape without a pixel in its photo", record.photo)
    return mask


def _photo_name(record: Record) -> PurePosixPath:
    return PurePosixPath(record.photo.replace("\\", "/"))  # perhaps annotated on Windows


def _find_photo(
    record: Record, files: dict[str, list[Path]], namesakes: Counter[str]
) -> Path | None:
    """The photo where it should be, else the only one with these folders, or of that name alone.

    Only the photo of a name that no other record has may lie in another folder than it says.
    """
    name = _photo_name(record)
    there = Path(os.path.normpath(record.folder / name))
    if there.is_file():
        return there
    found = [path for path in files[name.name] if path.as_posix().endswith(f"/{name}")]
    if not found and namesakes[name.name] == 1:
        found = files[name.name]
    return found[0] if len(found) == 1 else None


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
