"""Cityscapes: CITY_.._leftImg8bit.png and CITY_.._gtFine_labelIds.png, anywhere in the folder."""

from pathlib import Path

from data.classes import VOID
from data.formats.source import Named, Options, files_in

PHOTO_END, MASK_END = "_leftImg8bit", "_gtFine_labelIds"
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
IDS = dict.fromkeys([*range(34), 255], VOID)  # 255: a number plate, whose id is -1
IDS |= {label: index for index, (label, _) in enumerate(CLASSES.values())}


def known(root: Path, options: Options) -> Options:
    """The options with what is known of Cityscapes, if its masks of label ids are there."""
    if options.masks or not any(path.name.endswith(f"{MASK_END}.png") for path in files_in(root)):
        return options
    if not (options.classes or options.values):  # a user's own stay
        classes: Named = {name: colour for name, (_, colour) in CLASSES.items()}
        options = options._replace(classes=classes, values=IDS)
    return options._replace(image_suffix=PHOTO_END, mask_suffix=MASK_END)
