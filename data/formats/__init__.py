"""The forms in which people have photos with masks, one file each, for `data.convert`.

A new form of annotations is a module as `annotations` describes.
"""

from pathlib import Path

from data import UserError
from data.formats import annotations, cityscapes, clicks, coco, cvat, folders, labelme, supervisely
from data.formats.source import Options, Source, unread

FORMS = (supervisely, cvat, coco, labelme, clicks)  # in the order in which they are tried


def recognise(root: Path, options: Options) -> Source:
    """The data set in a folder, by the first of the `FORMS` that it has, or else by masks.

    Raises:
        UserError: it is of no form, or cannot be used.
    """
    for form in () if options.masks else FORMS:
        if source := annotations.find(form, root, options):
            return source
    if options.annotations and not options.masks:
        path = root / options.annotations
        raise UserError(f"{path}: annotations of no form known here{unread([path])}")
    return folders.find(root, cityscapes.known(root, options))
