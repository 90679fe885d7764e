"""What `data.convert` writes: photos and classes in VOC layout."""

import filecmp
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from data import UserError
from data.classes import VOID, Classes
from data.formats.source import Source
from data.voc import find_pair

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
        raise UserError(f"{out}: holds an earlier result; --force replaces it, but for its lists")


def keep_lists(old: Path, new: Path) -> dict[str, list[str]]:
    """Brings the lists of an earlier result along, if there are any.

    Returns:
        The ids of the images that came, went or changed, by what to say of them.
    """
    if not (old / "ImageSets").is_dir():
        return {}
    shutil.copytree(old / "ImageSets", new / "ImageSets")
    before, after = (
        {path.stem for path in (root / "SegmentationClass").iterdir()} for root in (old, new)
    )
    changed = [
        image_id
        for image_id in before & after
        if not all(map(filecmp.cmp, find_pair(old, image_id), find_pair(new, image_id)))
    ]
    found = {"new": after - before, "gone": before - after, "changed": changed}
    return {f"{what} since the earlier result": sorted(ids) for what, ids in found.items() if ids}


def write_classes(source: Source, folder: Path) -> Classes:
    """Writes the classes of a source to `classes.txt`, with colours: any name can be read so.

    Raises:
        UserError: fewer than 2 or more than 255.
    """
    if not 2 <= len(source.classes) <= VOID:
        raise UserError(f"{source.form}: {len(source.classes)} classes; needed are 2 to {VOID}")
    classes = Classes.from_named(source.classes)
    rows = zip(classes.names, classes.colours)
    text = "".join(f"{name} {red} {green} {blue}\n" for name, (red, green, blue) in rows)
    (folder / "classes.txt").write_text(text, encoding="utf-8")
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
