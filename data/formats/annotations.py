"""From annotations to masks, for every form: photos found, classes numbered, shapes drawn, counted.

A form is a module with `NAME`; `AREAS`, the kinds of its shapes that are drawn, and `STROKES`, its
points and lines; `SMALL_ON_TOP`, whether small shapes lie on large ones and void beneath, else
later ones on earlier; `find(root, options)`, its files; `read(path, labels)`, which yields the
photos of a file and adds the classes that it lists to `labels`; `draw(geometry, size)` for areas,
see `rasterize`; and `lines(geometry)`, the lines x, y of a stroke. Whatever the last three raise
becomes a UserError that names the file.
"""

import os
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from data import UserError
from data.classes import VOID
from data.formats.class_names import number_labels
from data.formats.rasterize import stroke
from data.formats.source import Options, Pair, Source, as_written, files_in
from data.image_files import PHOTO_SUFFIXES, upright_size


class Shape(NamedTuple):
    """One area, of one class."""

    kind: str
    label: Any  # name of its class, which may be a number; `void` is no class
    geometry: Any  # what the form's `draw` or `lines` takes


class Record(NamedTuple):
    """What a form tells of one photo."""

    path: Path  # the file that tells it
    folder: Path  # of the photo, if it is where it should be
    photo: str  # its file name, perhaps with folders
    size: tuple[Any, Any] | None  # (height, width), as numbers or text; None: the photo's
    shapes: list[Shape]


def find(form: ModuleType, root: Path, options: Options) -> Source | None:
    """The photos in the files of a form; None if there are no such files.

    The id of a photo is its path below the folder that all of them share.

    Raises:
        UserError: see `number_labels`; a file is not as the form wants it; photos cannot be told
            apart; there are points or lines, and nothing says what all other pixels are.
    """
    paths = form.find(root, options)
    if not paths:
        return None
    source, labels = Source(form.NAME, options), {}
    records: list[Record] = []
    for path in paths:
        with source.leaving_out_bad(), as_written(path, form.NAME):
            records += form.read(path, labels)
    drawn = (*form.AREAS, *form.STROKES)
    shapes = [shape for record in records for shape in record.shapes if shape.kind in drawn]
    strokes = [shape.kind for shape in shapes if shape.kind in form.STROKES]
    if strokes and options.unlabelled is None:
        raise UserError(
            f"{root}: {form.NAME} with points or lines ({strokes[0]}); say what the pixels beside "
            "them are: --unlabelled void (nothing is known of them) or --unlabelled background"
        )
    labels = {text_of(label): colour for label, colour in labels.items()}
    source.classes, ids = number_labels(labels, {text_of(shape.label) for shape in shapes}, options)
    photos = _find_photos(records, root / (options.images or ""))
    top = os.path.commonpath([os.path.abspath(photo.parent) for photo in photos if photo] or ["."])
    for record, photo in zip(records, photos):
        if not photo:
            source.note("left out: no photo of that name, or several", record.photo)
        elif photo.stem != record.path.stem and photo.with_stem(record.path.stem).is_file():
            source.note("left out: names another photo than that of its own name", record.path.name)
        else:
            mask = partial(_draw, form, record, ids, source, photo)
            with source.leaving_out_bad():
                name = os.path.relpath(photo.with_suffix(""), top)
                source.add(name, Pair(photo, record.path, mask))
    return source


def text_of(label: Any) -> str:
    """A name as it stands in a list of classes: labels that differ by blanks are one."""
    return " ".join(str(label).split())


def _find_photos(records: list[Record], folder: Path) -> list[Path | None]:
    """Each photo where it should be, else the only one in `folder` with its folders, or its name.

    Only the photo of a name that no other record has may lie in another folder than it says.
    """
    names = [PurePosixPath(record.photo.replace("\\", "/")) for record in records]  # of Windows
    files, namesakes = defaultdict(list), Counter(name.name for name in names)
    for path in files_in(folder):
        if path.suffix.lower() in PHOTO_SUFFIXES:
            files[path.name].append(path)
    photos = []
    for record, name in zip(records, names):
        there = Path(os.path.normpath(record.folder / name))
        found = [path for path in files[name.name] if path.as_posix().endswith(f"/{name}")]
        if there.is_file():
            found = [there]
        elif not found and namesakes[name.name] == 1:
            found = files[name.name]
        photos.append(found[0] if len(found) == 1 else None)
    return photos


def _draw(
    form: ModuleType, record: Record, ids: dict[str, int], source: Source, photo: Path
) -> np.ndarray:
    """The shapes of a photo as class ids, (H, W) uint8; notes those that draw nothing."""
    drawn, options = [], source.options  # class id, box, the box's pixels in the shape
    with as_written(record.path, form.NAME):
        size = record.size or upright_size(photo)
        mask = np.full([int(side) for side in size], options.undrawn, dtype=np.uint8)
        for shape in record.shapes:
            if shape.kind in form.STROKES:
                image = stroke(form.lines(shape.geometry), options.stroke_width, mask.shape)
            elif shape.kind in form.AREAS:
                image = form.draw(shape.geometry, mask.shape)
            else:
                source.note(f"left out: shape not drawn ({shape.kind})", record.photo)
                continue
            if box := image.getbbox():
                drawn.append((ids[text_of(shape.label)], box, np.asarray(image.crop(box)) > 0))
            else:
                source.note("left out: shape without a pixel in its photo", record.photo)
    if form.SMALL_ON_TOP:
        drawn.sort(key=lambda shape: (shape[0] != VOID, -shape[2].sum()))
    for value, (left, top, right, bottom), inside in drawn:
        mask[top:bottom, left:right][inside] = value
    return mask


def files_with(root: Path, options: Options, suffix: str, *words: str) -> list[Path]:
    """The files with this suffix whose text has all the words; only that which the user names."""
    paths = [root / options.annotations] if options.annotations else files_in(root)
    texts = ((path, path.read_bytes()) for path in paths if path.suffix.lower() == suffix)
    return [path for path, text in texts if all(word.encode() in text for word in words)]
