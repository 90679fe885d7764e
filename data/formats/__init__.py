"""The forms in which people have photos with masks, one file each, for `data.convert`.

A new form of annotations is a module as `annotations` describes.
"""

from pathlib import Path

from data import UserError
from data.formats import annotations, cityscapes, clicks, coco, cvat, folders, labelme, supervisely
from data.formats.source import Options, Source, files_in, unread

FORMS = (supervisely, cvat, coco, labelme, clicks)  # in the order in which they are tried


def recognise(root: Path, options: Options) -> Source:
    """The data set in a folder, by the first of the `FORMS` that it has, or else by masks.

    Raises:
        UserError: it is of no form, or cannot be used.
    """
    files = [root / options.annotations] if options.annotations else files_in(root)
    for form in () if options.masks else FORMS:
        if paths := form.find(files):
            return annotations.read_form(form, paths, root, options)
    if options.annotations and not options.masks:
        raise UserError(f"{files[0]}: annotations of no form known here{unread(files)}")
    return folders.find(root, cityscapes.known(root, options))
