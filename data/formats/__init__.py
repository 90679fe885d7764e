"""The forms in which people have photos with masks, one file each, for `data.convert`.

A new form of annotations is a module as `annotations` describes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from data import UserError
from data.formats import annotations, cityscapes, clicks, coco, cvat, folders, labelme, supervisely
from data.formats.source import Options, Source, unread

FORMS: list[Callable[[Path, Options], Source | None]] = [  # in the order in which they are tried
    cityscapes.find,
    *(partial(annotations.find, form) for form in (supervisely, cvat, coco, labelme, clicks)),
    folders.find,
]


def recognise(root: Path, options: Options) -> Source:
    """The data set in a folder, by the first of the `FORMS` that it has.

    Raises:
        UserError: it is of no form, or cannot be used.
    """
    forms = [folders.find] if options.masks else FORMS
    source = next(filter(None, (find(root, options) for find in forms)), None)
    if source is None:
        path = root / options.annotations
        raise UserError(f"{path}: annotations of no form known here{unread([path])}")
    return source
