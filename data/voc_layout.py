"""What `data.convert` writes: photos and classes in VOC layout."""

import filecmp
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data import UserError
from data.classes import Classes, Colour
from data.files import read_lines
from data.image_files import SUFFIXES
from data.voc_files import LISTS, find_pair, read_ids, write_ids

NOTE = "converted.json"  # tells an earlier result from other data
SPLITS = ("train", "val", "test")
RESULT = {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt", NOTE}
# In ids: the folders train, training, train2017, val, valid, validation, test, testing.
SPLIT = re.compile("(?i)(?:^|_)(train|val|test)(?:ing|id|idation|[0-9]+)?_")


def check_free(out: Path, root: Path, force: bool) -> None:
    """Refuses a folder whose content may not be replaced.

    Raises:
        UserError: `out` lies in `root`, or holds something else than an earlier result, or masks or
            classes that were changed there.
    """
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out}: lies in SOURCE, which stays as it is; name a folder outside")
    there = {path.name for path in out.glob("[!.]*")}  # not what macOS leaves
    if there and NOTE not in there or not there <= RESULT:
        raise UserError(f"{out}: holds other data; name another OUT, or move it away")
    if there and not force:
        raise UserError(f"{out}: holds an earlier result; --force replaces it, but for its lists")
    for path in [*sorted(out.glob("SegmentationClass/*.png")), *out.glob("classes.txt")]:
        if path.stat().st_mtime > (out / NOTE).stat().st_mtime:  # which was written last
            raise UserError(
                f"{path}: has changed since it was made, and would be replaced; bring what you "
                "changed into SOURCE, or name another OUT"
            )


def keep_lists(old: Path, new: Path) -> dict[str, list[str]]:
    """Brings the lists of an earlier result along.

    Returns:
        The ids of the images that came, went or changed, by what to say of them.
    """
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


def write_lists(ids: Iterable[str], folder: Path, source: Path) -> list[str]:
    """Writes the lists that the source has of these ids, or else what these say of folders.

    Of folders train and test alone only the latter is a list: `data.lists` divides the rest.

    Returns:
        The ids that are in no list, if there is one to train on.
    """
    ids = sorted(ids)
    there = [name for name in SPLITS if (source / LISTS / f"{name}.txt").is_file()]
    lists = {name: [it for it in read_ids(source, name) if it in ids] for name in there}
    if not any(lists.values()):
        lists = {name: [it for it in ids if _split_of(it) == name] for name in SPLITS}
        if not (lists["train"] and lists["val"]):
            lists = {"test": lists["test"]} if lists["train"] else {}
    for name, members in lists.items():
        if members:
            write_ids(folder, name, members)
    return sorted({*ids}.difference(*lists.values())) if "train" in lists else []


def add_to_lists(new: Sequence[str], folder: Path) -> None:
    """Adds new ids to the lists of their folders, where all that is listed lies so."""
    files = {name: folder / LISTS / f"{name}.txt" for name in SPLITS}
    lists = {name: read_lines(path) for name, path in files.items() if path.is_file()}
    lists = {name: [*filter(None, map(str.strip, lines))] for name, lines in lists.items()}
    if all(_split_of(image_id) == name for name, ids in lists.items() for image_id in ids):
        for name, ids in lists.items():
            if more := [image_id for image_id in new if _split_of(image_id) == name]:
                write_ids(folder, name, sorted({*ids, *more}))


def _split_of(image_id: str) -> str:
    """train, val or test, or "" where the id does not say."""
    found = SPLIT.search(image_id)
    return found[1].lower() if found else ""


def write_classes(named: Mapping[str, Colour | None], folder: Path, source: Path) -> Classes:
    """Writes the classes of a source to `classes.txt`, with colours: any name can be read so.

    Raises:
        UserError: see `Classes.from_named`.
    """
    classes = Classes.from_named(named, source)
    rows = zip(classes.names, classes.colours)
    text = "".join(f"{name} {red} {green} {blue}\n" for name, (red, green, blue) in rows)
    (folder / "classes.txt").write_text(text, encoding="utf-8")
    return classes


def place_photo(photo: Path, pixels: np.ndarray, place: Path) -> None:
    """Brings a photo to `place` plus its suffix, as a link if that can be, else as a copy.

    Of a form that the five steps do not read, the pixels (H, W, 3) uint8 are saved as PNG.
    """
    suffix = photo.suffix.lower().replace(".jfif", ".jpg")
    if suffix not in SUFFIXES:
        Image.fromarray(pixels).save(f"{place}.png")
        return
    place = place.with_name(place.name + suffix)
    try:
        os.link(photo.resolve(), place)
    except OSError:  # on another disk, or one without links
        shutil.copyfile(photo, place)
