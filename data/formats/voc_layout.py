"""What `data.convert` writes: photos, masks and classes in VOC layout."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from data import UserError
from data.classes import VOID, Classes, read_classes
from data.formats.source import Source
from data.image_files import EXIF_ORIENTATION, TURNS

NOTE = "converted.json"  # tells an earlier result from other data
RESULT = {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt", NOTE}
LAYOUT_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg", ".jfif": ".jpg", ".png": ".png"}


def check_free(out: Path, root: Path, force: bool) -> None:
    """Refuses a folder whose content may not be replaced.

    Raises:
        UserError: `out` lies in `root`, or holds something else than an earlier result.
    """
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out}: lies in SOURCE, which stays as it is; name a folder outside")
    there = {path.name for path in out.glob("[!.]*")}  # not what macOS leaves
    if there and NOTE not in there or not there <= RESULT:
        raise UserError(f"{out}: holds other data; name another OUT, or move it away")
    if there and not force:
        raise UserError(f"{out}: holds an earlier result; --force replaces it, and its lists")


def write_classes(source: Source, folder: Path) -> Classes:
    """Writes the classes of a source to `classes.txt`; gives them as the five steps read them.

    Raises:
        UserError: fewer than 2 or more than 255, or a name that cannot stand in such a file.
    """
    if not 2 <= len(source.classes) <= VOID:
        raise UserError(f"{source.form}: {len(source.classes)} classes; needed are 2 to {VOID}")
    lines = [" ".join([name, *map(str, rgb or ())]) for name, rgb in source.classes.items()]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    classes = read_classes(folder)
    if odd := source.classes.keys() - classes.names:
        raise UserError(f"{source.form}: {min(odd)!r} cannot be the name of a class; rename it")
    return classes


def place_photo(photo: Path, pixels: np.ndarray, place: Path) -> None:
    """Brings a photo to `place` plus its suffix, as a link if that can be, else as a copy.

    Of a form that the five steps do not read, the pixels (H, W, 3) uint8 are saved as PNG.
    """
    suffix = LAYOUT_SUFFIXES.get(photo.suffix.lower())
    place = place.with_name(f"{place.name}{suffix or '.png'}")
    if suffix is None:
        Image.fromarray(pixels).save(place)
        return
    try:
        os.link(photo.resolve(), place)
    except OSError:  # on another disk, or one without links
        shutil.copyfile(photo, place)


def check_fit(mask: np.ndarray, photo: Path, size: tuple[int, int], source: Source) -> None:
    """Compares a mask (H, W) with its photo upright, whose (height, width) is `size`.

    Where EXIF turns a photo and leaves its size, `source` notes that the mask may lie otherwise.

    Raises:
        UserError: the sizes differ.
    """
    with Image.open(photo) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if mask.shape != size:
        photo_size, mask_size = ("{1}x{0}".format(*shape) for shape in (size, mask.shape))
        remedy = "; EXIF turns the photo: turn the mask, too" * (orientation in TURNS)
        raise UserError(f"{photo}: the photo is {photo_size} but its mask {mask_size}{remedy}")
    if orientation in TURNS and (orientation < 5 or size[0] == size[1]):
        source.note("in doubt: EXIF turns the photo, its mask is taken as upright", photo.name)
