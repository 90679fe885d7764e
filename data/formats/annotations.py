"""From annotations to masks, for every form: photos found, classes numbered, shapes drawn, counted.

A form is a module with `NAME`; `find(files)`, which of them are of it; and `read(path, labels)`,
which yields a `Record` for each photo of a file and adds the classes that it lists to `labels`.
Whatever it raises, or a shape while it is drawn, becomes a UserError that names the file.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from data import UserError
from data.formats.class_names import number_labels
from data.formats.rasterize import Area, Size, stroke
from data.formats.source import Options, Pair, Source, as_written, files_in, name_in, plain
from data.image_files import PHOTO_SUFFIXES, check_sizes, upright_size


class Shape(NamedTuple):
    """One area, or points and lines, of one class; if neither, a kind that is not drawn."""

    kind: str  # as the form calls it
    label: str  # see `name_of`; void is no class
    area: Callable[[Size], Area] | None = None  # its pixels in a photo of this size
    lines: list[np.ndarray] | None = None  # each (n, 2) x, y; see `rasterize.stroke`


class Record(NamedTuple):
    """What a file tells of one photo; later shapes lie on earlier ones."""

    path: Path  # the file
    photo: str  # its name, perhaps with folders from there, perhaps without suffix
    size: tuple[Any, Any] | None  # (height, width), numbers or text; None or two: nothing is said
    shapes: Sequence[Shape]


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


def files_with(suffix: str, words: Iterable[str], files: Iterable[Path]) -> list[Path]:
    """Of the files those with this suffix whose text has all the words."""
    texts = ((path, path.read_bytes()) for path in files if path.suffix.lower() == suffix)
    return [path for path, text in texts if all(word.encode() in text for word in words)]


def read_form(form: ModuleType, paths: Iterable[Path], root: Path, options: Options) -> Source:
    """The photos of files of a form; they lie below `root`, or where `options` say.

    The id of a photo is made of its `name_in` there.

    Raises:
        UserError: see `number_labels`; a file is not as the form wants it; photos cannot be told
            apart; there are points or lines, and nothing says what all other pixels are.
    """
    source, labels = Source(form.NAME, options), {}
    records: list[Record] = []
    for path in paths:
        with source.leaving_out_bad(), as_written(path, form.NAME):
            records += form.read(path, labels)
    shapes = [shape for record in records for shape in record.shapes if shape.area or shape.lines]
    if options.unlabelled is None and (strokes := [shape.kind for shape in shapes if shape.lines]):
        raise UserError(
            f"{root}: {form.NAME} with points or lines ({strokes[0]}); say what the pixels beside "
            "them are: --unlabelled void (nothing is known of them) or --unlabelled background"
        )
    source.classes, ids = number_labels(labels, {shape.label for shape in shapes}, options)
    folder = root / (options.images or "")
    images = [path for path in files_in(folder) if path.suffix.lower() in PHOTO_SUFFIXES]
    photos = _find_photos(records, images, source)
    used = {photo for photo in photos if photo}
    names = {path: name_in(folder, path) for path in images}
    for record, photo in zip(records, photos):
        if photo:
            mask = partial(_draw, record, ids, source, photo)
            with source.leaving_out_bad():
                source.add(names[photo], Pair(photo, record.path, mask))
    lost = [record for record, photo in zip(records, photos) if not photo]
    told = (name for it in lost for name in (it.path.name, str(it.photo)))
    told = {PurePosixPath(_parts(name)[-1]).stem for name in told}  # of these much may be known
    unused = {
        path: names[path] if _parts(path.stem)[-1] not in told else "" for path in {*images} - used
    }
    source.add_unmasked(unused, folder, used)
    return source


def _parts(name: str) -> tuple[str, ...]:
    """Folders and name of a file, in which large and small letters are one."""
    return PurePosixPath(plain(name.replace("\\", "/")).casefold()).parts or ("",)


def _find_photos(
    records: Sequence[Record], images: Sequence[Path], source: Source
) -> list[Path | None]:
    """Of the images of its name that one whose folders are, from below, most like those said.

    Between equals the words of the record's path decide, as train and val, where records share the
    name; else there is none. A name that no other record has may lie in another folder than it
    says. Large and small letters are one. Notes what has no photo, or perhaps another one: photos
    may be renumbered after they were annotated.
    """
    files = defaultdict(list)
    for path in images:
        there, stem = _parts(os.path.abspath(path.parent))[::-1], _parts(path.stem)[-1]
        files[_parts(path.name)[-1]].append((path, there))
        if not stem.endswith(PHOTO_SUFFIXES):  # frames of a video are named without their suffix
            files[stem].append((path, there))
    names = [_parts(str(record.photo)) for record in records]
    namesakes, photos = Counter(name[-1] for name in names), []
    for record, (*folders, name) in zip(records, names):
        said = _parts(os.path.abspath(record.path.parent.joinpath(*folders)))[::-1]
        words = {*record.path.parent.parts, *record.path.stem.split("_")}
        ranks, is_alone = defaultdict(list), namesakes[name] == 1
        for path, there in files[name]:
            shared = len(os.path.commonprefix([said, there]))
            if is_alone or shared >= len(folders):
                like = 0 if is_alone else len(words & {*path.parent.parts})
                ranks[shared, like].append(path)
        found = ranks[max(ranks)] if ranks else []
        photo, own = found[0] if len(found) == 1 else None, record.path.stem
        if not photo:
            source.note(
                "left out: no photo of that name, or several, in SOURCE or --images",
                str(record.photo),
            )
        elif photo.stem != own and photo.with_stem(own).is_file():
            source.note("left out: names another photo than that of its own name", record.path.name)
            photo = None
        photos.append(photo)
    return photos


def _draw(record: Record, ids: dict[str, int], source: Source, photo: Path) -> np.ndarray:
    """The shapes of a photo as class ids, (H, W) uint8; notes those that draw nothing."""
    options, size = source.options, upright_size(photo)
    with as_written(record.path, source.form):
        height, width = record.size if record.size and all(record.size) else size
        check_sizes(photo, record.path, (int(height), int(width)))
        mask = np.full(size, options.undrawn, dtype=np.uint8)
        if not record.shapes and options.undrawn == 0:
            source.note("nothing is drawn, so background everywhere", photo.name)
        for shape in record.shapes:
            if shape.area:
                (left, top), inside = shape.area(size)
            elif shape.lines:
                (left, top), inside = stroke(shape.lines, options.stroke_width, size)
            else:
                source.note(f"left out: shape not drawn ({shape.kind})", photo.name)
                continue
            if not (pixels := np.count_nonzero(inside)):
                source.note("left out: shape without a pixel in its photo", photo.name)
            elif shape.label not in ids:
                what = f"{photo.name}: {pixels} pixels of {shape.label}"
                source.note("of a class that is not listed", what)
            here = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
            here[inside] = ids.get(shape.label, options.unknown)
    return mask
