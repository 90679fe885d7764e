"""What `data.convert` writes: photos and classes in VOC layout."""

import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from data import UserError, first_of
from data.classes import Classes, Colour
from data.files import hash_files, read_lines
from data.formats.source import image_id_of
from data.image_files import SUFFIXES
from data.voc_files import LISTS, write_ids
from models.run.folder import read, read_json

NOTE = "converted.json"  # tells an earlier result from other data
SPLITS = ("train", "val", "test")
RESULT = {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt", NOTE}
# In ids: the folders train, training, train2017, val, valid, validation, test, testing.
SPLIT = re.compile("(?i)(?:^|_)(train|val|test)(?:ing|id|idation|[0-9]+)?_")


def check_free(out: Path, root: Path, force: bool) -> dict[str, int]:
    """Refuses a folder whose content may not be replaced; gives `contents` of an earlier result.

    Raises:
        UserError: `out` lies in `root`, or holds something else than an earlier result, or masks or
            classes that were changed there.
    """
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out}: lies in SOURCE, which stays as it is; name a folder outside")
    there = {path.name for path in out.glob("[!.]*")}  # not what macOS leaves
    if there and NOTE not in there or not there <= RESULT:
        raise UserError(f"{out}: holds other data; name another OUT, or move it away")
    if not there:
        return {}
    if not force:
        raise UserError(f"{out}: holds an earlier result; --force replaces it, but for its lists")
    made = read(lambda path: dict(read_json(path)["made"]), out / NOTE, "name another OUT")
    if changed := sorted(dict(contents(out).items() ^ made.items())):
        raise UserError(
            f"{out}: has changed since it was made, and that would be lost: {first_of(changed)}; "
            "bring it into SOURCE, or name another OUT"
        )
    return made


def contents(out: Path) -> dict[str, int]:
    """What tells the masks and the list of classes of a result from others, by their names."""
    files = [*sorted(out.glob("SegmentationClass/[!.]*.png")), *out.glob("classes.txt")]
    return dict(zip((path.name for path in files), hash_files(files).tolist()))


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, list[str]]:
    """The ids of images that came or went, or whose mask changed, by what to say of them."""
    both = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    found = {"new": after.keys() - before, "gone": before.keys() - after, "changed": both}
    return {
        f"{what} since the earlier result": sorted(ids)
        for what, names in found.items()
        if before and (ids := [Path(name).stem for name in names if name != "classes.txt"])
    }


def write_lists(
    ids: Iterable[str], old: Collection[str], folder: Path, source: Path
) -> dict[str, list[str]]:
    """Writes the lists that the source has of these ids, or else what these say of folders.

    Without both train and val only test is a list, which `data.lists` leaves as it is; of folders
    only if another one is called train. To lists that are there only ids are added that are new.

    Args:
        old: the ids of the earlier result, whose lists are there.

    Returns:
        What to say: the ids that are in no list, if there is one to train on; and the source's
        lists that are not taken up.
    """
    known, told, kept = {*(ids := sorted(ids))}, _lists(source), _lists(folder)
    lists = {name: [it for it in its if it in known] for name, its in told.items()}
    if of_folders := not any(lists.values()):
        lists = {name: [it for it in ids if _split_of(it) == name] for name in SPLITS}
    if not (lists["train"] and lists["val"]):
        lists = {} if of_folders and not lists["train"] else {"test": lists["test"]}
    for name, members in lists.items():
        held = {*sum(kept.values(), []), *(old if kept[name] else ())}
        if more := [it for it in members if it not in held]:
            write_ids(folder, name, kept[name] + more)
    written = _lists(folder)
    beside = sorted(known.difference(*written.values())) if written["train"] else []
    unused = [f"{it}.txt" for it in told if told[it] and not {*told[it]} & {*written[it]}]
    notes = {"in no list": beside, f"lists of {source / LISTS} not taken up": unused}
    return {what: names for what, names in notes.items() if names}


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
