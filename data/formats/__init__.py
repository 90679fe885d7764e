"""The forms in which people have photos with masks, one file each, for `data.convert`.

FORMS are functions `find(root, options) -> Source | None`: what they recognise in a folder, see
`source`. A new form of annotations is a module as `annotations` describes.
"""

from functools import partial

from data.formats import annotations, cityscapes, coco, cvat, folders, labelme, supervisely

FORMS = [  # in the order in which they are tried
    cityscapes.find,
    *(partial(annotations.find, form) for form in (supervisely, cvat, coco, labelme)),
    folders.find,
]
