"""What `data.convert` writes: photos and classes in VOC layout."""

import filecmp
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data import UserError, first_of
from data.classes import Classes, Colour
from data.files import hash_files, read_lines
from data.formats.source import image_id_of
from data.image_files import SUFFIXES
from data.voc_files import LISTS, find_pair, write_ids

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
    try:
        made, now = json.loads((out / NOTE).read_bytes())["made"] if there else {}, contents(out)
        changed = sorted(name for name in {*now, *made} if now.get(name) != made.get(name))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f"{out / NOTE}: damaged, or of an earlier version, which did not note what it made; "
            "name another OUT"
        ) from None
    if changed:
        raise UserError(
            f"{out}: has changed since it was made, and that would be lost: {first_of(changed)}; "
            "bring it into SOURCE, or name another OUT"
        )


def contents(out: Path) -> dict[str, int]:
    """What tells the masks and the list of classes of a result from others, by their names."""
    files = [*sorted(out.glob("SegmentationClass/[!.]*.png")), *out.glob("classes.txt")]
    return dict(zip((path.name for path in files), hash_files(files).tolist()))


def keep_lists(old: Path, new: Path) -> dict[str, list[str]]:
    """Brings the lists of an earlier result along.

    Returns:
        The ids of the images that came, went or changed, by what to say of them.
    """
    shutil.copytree(old / "ImageSets", new / "ImageSets")
    before, after = (
        {path.stem for path in root.glob("SegmentationClass/[!.]*")} for root in (old, new)
    )
    changed = [
        image_id
        for image_id in before & after
        if not all(map(filecmp.cmp, find_pair(old, image_id), find_pair(new, image_id)))
    ]
    found = {"new": after - before, "gone": before - after, "changed": changed}
    return {f"{what} since the earlier result": sorted(ids) for what, ids in found.items() if ids}


def write_lists(ids: Iterable[str], folder: Path, source: Path) -> dict[str, list[str]]:
    """Writes the lists that the source has of these ids, or else what these say of folders.

    Without both train and val only test is a list, which `data.lists` leaves as it is; of folders
    only if another one is called train.

    Returns:
        What to say: the ids that are in no list, if there is one to train on; and the source's
        lists that are not taken up.
    """
    known, told = {*(ids := sorted(ids))}, _lists(source)
    lists = {name: [it for it in its if it in known] for name, its in told.items()}
    if of_folders := not any(lists.values()):
        lists = {name: [it for it in ids if _split_of(it) == name] for name in SPLITS}
    if not (lists["train"] and lists["val"]):
        lists = {} if of_folders and not lists["train"] else {"test": lists["test"]}
    for name, members in lists.items():
        if members:
            write_ids(folder, name, members)
    beside = sorted(known.difference(*lists.values())) if "train" in lists else []
    unused = [f"{it}.txt" for it in told if told[it] and not {*told[it]} & {*lists.get(it, ())}]
    notes = {"in no list": beside, f"lists of {source / LISTS} not taken up": unused}
    return {what: names for what, names in notes.items() if names}


def add_to_lists(new: Sequence[str], folder: Path, source: Path) -> None:
    """Adds new ids to the lists that the source has them in, else to those of their folders.

    To the latter where all that is listed lies so: else `data.lists` has divided them.
    """
    told, lists = _lists(source), _lists(folder)
    others = {*new}.difference(*told.values())
    lies = {name: all(_split_of(it) == name for it in ids) for name, ids in lists.items()}
    lies["train"] = lies["val"] = lies["train"] and lies["val"]
    for name, ids in lists.items():
        more = {*new}.intersection(told[name])
        if ids and lies[name]:
            more.update(it for it in others if _split_of(it) == name)
        if more and (ids or name == "test"):  # what is new alone is no list to train on
            write_ids(folder, name, sorted(more.union(ids)))


def _lists(root: Path) -> dict[str, list[str]]:
    """The ids of the lists `SPLITS`, as `data.convert` makes ids; none where there is no list."""
    files = {name: root / LISTS / f"{name}.txt" for name in SPLITS}
    lines = {name: read_lines(path) if path.is_file() else [] for name, path in files.items()}
    return {
        name: [*dict.fromkeys(filter(None, map(image_id_of, it)))] for name, it in lines.items()
    }


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
