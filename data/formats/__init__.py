"""The forms in which people have photos with masks, one file each, for `data.convert`.

FORMS has for each a function `find(root, options) -> Source | None`: what it recognises in a
folder, see `source`. A new form of annotations is a module as `annotations` describes.
"""

from functools import partial

from data.formats import annotations, cityscapes, coco, cvat, folders, labelme, supervisely

FORMS = {  # in the order in which they are tried
    "cityscapes": cityscapes.find,
    "supervisely": partial(annotations.find, supervisely),
    "cvat": partial(annotations.find, cvat),
    "coco": partial(annotations.find, coco),
    "labelme": partial(annotations.find, labelme),
    "folders": folders.find,
}
