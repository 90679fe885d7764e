"""The forms in which people have photos with masks, one file each, for `data.convert`.

A form has `find(root, options) -> Source | None`: what it recognises in a folder, see `source`. For
a new one, write such a file and add it to `FORMS`.
"""

from data.formats import cityscapes, coco, cvat, folders, labelme, supervisely

FORMS = {  # in the order in which they are tried
    "cityscapes": cityscapes,
    "supervisely": supervisely,
    "cvat": cvat,
    "coco": coco,
    "labelme": labelme,
    "folders": folders,
}
