"""Cityscapes: CITY_.._leftImg8bit.png and CITY_.._gtFine_labelIds.png, anywhere in the folder."""

from functools import partial
from pathlib import Path

import numpy as np

from data import DataError
from data.classes import VOID
from data.formats.source import Options, Pair, Source, files_in
from data.images import read_mask

PHOTO_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
CLASSES = {  # those that Cityscapes trains and scores: label id, RGB; others are void
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
LABEL_IDS = 34  # 0..33
CLASS_OF = np.full(256, VOID, dtype=np.uint8)
CLASS_OF[[label for label, _ in CLASSES.values()]] = np.arange(len(CLASSES))


def find(root: Path, options: Options) -> Source | None:
    """The photos that have a mask of label ids; None if there are none."""
    files = files_in(root)
    masks = {_name(path, MASK_END): path for path in files if path.name.endswith(MASK_END)}
    photos = {_name(path, PHOTO_END): path for path in files if path.name.endswith(PHOTO_END)}
    if not masks or not photos:
        return None
    if options.classes:
        raise DataError("--classes: Cityscapes has its own 19; leave the flag out")
    classes = {name: colour for name, (_, colour) in CLASSES.items()}
    source = Source("Cityscapes", classes, images=len(photos))
    for name in sorted(masks.keys() | photos.keys()):
        if name not in masks:
            source.leave_out("photo without a mask", photos[name].name)
        elif name not in photos:
            source.leave_out("no photo", masks[name].name)
        else:
            source.add(name, partial(_load, photos[name], masks[name]))
    return source


def _name(path: Path, end: str) -> str:
    return path.name.removesuffix(end)


def _load(photo: Path, mask: Path) -> Pair:
    return Pair(photo, CLASS_OF[read_mask(mask, LABEL_IDS)])
