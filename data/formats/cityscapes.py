"""Cityscapes: CITY_.._leftImg8bit.png and CITY_.._gtFine_labelIds.png, anywhere in the folder."""

from pathlib import Path

from data.classes import VOID, parse_classes
from data.formats.source import Options, files_in

PHOTO_END, MASK_END = "_leftImg8bit", "_gtFine_labelIds"
COLOURS = """road 128 64 128, sidewalk 244 35 232, building 70 70 70, wall 102 102 156,
fence 190 153 153, pole 153 153 153, traffic light 250 170 30, traffic sign 220 220 0,
vegetation 107 142 35, terrain 152 251 152, sky 70 130 180, person 220 20 60, rider 255 0 0,
car 0 0 142, truck 0 0 70, bus 0 60 100, train 0 80 100, motorcycle 0 0 230, bicycle 119 11 32"""
# The ids of these classes, which Cityscapes trains and scores; all others are void.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
IDS = dict.fromkeys([*range(34), 255], VOID)  # 255: a number plate, whose id is -1
IDS |= {label: index for index, label in enumerate(LABEL_IDS)}


def known(root: Path, options: Options) -> Options:
    """The options with what is known of Cityscapes, if its masks of label ids are there."""
    if options.masks or not any(path.name.endswith(f"{MASK_END}.png") for path in files_in(root)):
        return options
    if not (options.classes or options.values):  # a user's own stay
        options = options._replace(classes=parse_classes(COLOURS.split(","), root), values=IDS)
    return options._replace(image_suffix=PHOTO_END, mask_suffix=MASK_END)
