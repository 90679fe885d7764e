"""The split lists of one's own data: which ids train and which validate. Its command is `python -m data.voc`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import DataError
from data.images import SUFFIXES, first_of

HELP = """Writes the lists train.txt and val.txt of a folder with photos and masks, so that the five steps can read it.

    python -m data.voc --make-lists DIR --val 0.2

DIR holds JPEGImages/ID.jpg (or .jpeg, .png) and SegmentationClass/ID.png, and gets ImageSets/Segmentation/train.txt and
val.txt, each with the ids of photos that have a mask. Equal files and an equal seed give equal lists."""


class Lists(NamedTuple):
    """What `make_lists` found and wrote: sorted ids."""

    train: list[str]
    val: list[str]
    without_mask: list[str]  # photos
    without_photo: list[str]  # masks
    others: list[str]  # names of files that are neither


def make_lists(root: Path, val: float, seed: int = 0, force: bool = False) -> Lists:
    """Divides the ids that have both a photo and a mask between `train.txt` and `val.txt`, by chance.

    Args:
        root: folder with JPEGImages and SegmentationClass.
        val: share of the ids that validate, between 0 and 1; each list gets at least one.
        force: replace lists that are there.

    Raises:
        DataError: the folders are not there, fewer than two ids have both, a name cannot stand in a list, there are
            lists already, or they cannot be written.
    """
    root = Path(root)
    photos, no_photos = _ids(root / "JPEGImages", SUFFIXES)
    masks, no_masks = _ids(root / "SegmentationClass", (".png",))
    ids = sorted(photos & masks)
    if len(ids) < 2:
        raise DataError(
            f"{root}: {len(ids)} of {len(photos)} photos in JPEGImages have a mask of the same name in "
            "SegmentationClass (ID.jpg and ID.png); two are the least, one to train and one to validate"
        )
    odd = next((image_id for image_id in ids if not _can_be_listed(image_id)), None)
    if odd is not None:
        raise DataError(
            f"{root}: the name {odd!r} cannot stand in a list; no blanks at its ends, backslash or line end"
        )
    chosen = np.random.default_rng(seed).permutation(len(ids))[: min(max(1, round(val * len(ids))), len(ids) - 1)]
    validate = {ids[index] for index in chosen}
    lists = Lists(
        [image_id for image_id in ids if image_id not in validate],
        sorted(validate),
        sorted(photos - masks),
        sorted(masks - photos),
        sorted(no_photos + no_masks),
    )
    _write(root / "ImageSets" / "Segmentation", {"train": lists.train, "val": lists.val}, force)
    return lists


def _ids(folder: Path, suffixes: Sequence[str]) -> tuple[set[str], list[str]]:
    """The stems of the files with one of these suffixes, and the names of the other files but hidden ones."""
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror}; --make-lists wants photos in JPEGImages and masks in SegmentationClass"
        ) from None
    fitting = {path.stem for path in files if path.suffix in suffixes}
    return fitting, [f"{folder.name}/{path.name}" for path in files if path.suffix not in suffixes]


def _can_be_listed(image_id: str) -> bool:
    """Whether a line of a UTF-8 file that holds this id is read as this id; surrogates stand for bytes of no text."""
    is_text = not any("\ud800" <= letter <= "\udfff" for letter in image_id)
    return is_text and image_id.strip().splitlines() == [image_id] and "\\" not in image_id


def _write(folder: Path, lists: dict[str, list[str]], force: bool) -> None:
    """Writes the lists, an id a line; whatever ends it, no list of this time is left beside one of an earlier time."""
    paths = {name: folder / f"{name}.txt" for name in lists}
    there = [path for path in paths.values() if path.exists()]
    if there and not force:
        raise DataError(
            f"{there[0]}: is there already; --force replaces it, and with it what trains and what validates"
        )
    parts = {name: folder / f".{name}.txt.part" for name in lists}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, ids in lists.items():
                with open(parts[name], "w", encoding="utf-8", newline="\n") as file:
                    file.write("".join(f"{image_id}\n" for image_id in ids))
                    file.flush()
                    os.fsync(file.fileno())
            for name in list(lists)[1:]:  # so that a new first list never has an old second one beside it
                paths[name].unlink(missing_ok=True)
            for name, part in parts.items():
                os.replace(part, paths[name])
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from None


def share(text: str) -> float:
    """argparse type: a number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1, like 0.2")
    return value


def natural(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m data.voc", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--make-lists", type=Path, required=True, metavar="DIR", help="the folder of the data")
    parser.add_argument("--val", type=share, default=0.2, help="share of the images that validate (default: 0.2)")
    parser.add_argument("--seed", type=natural, default=0, help="another seed divides otherwise (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace lists that are there")
    options = parser.parse_args()
    root = options.make_lists
    try:
        lists = make_lists(root, options.val, options.seed, options.force)
    except DataError as error:
        print(f"data.voc: {error}", file=sys.stderr)
        return error.exit_code
    for what, names in (
        ("photos without a mask", lists.without_mask),
        ("masks without a photo", lists.without_photo),
        ("files that are neither photo nor mask", lists.others),
    ):
        if names:
            print(f"  note: left out {len(names)} {what}: {first_of(names)}")
    if not (root / "classes.txt").is_file():
        print(f"  note: no {root / 'classes.txt'} (a class name a line, background first): masks hold VOC's 21 classes")
    print(f"wrote {root / 'ImageSets' / 'Segmentation'}: train.txt {len(lists.train)}, val.txt {len(lists.val)} images")
    print(f"next: {shlex.join(['python', 'sample_features.py', '--data', str(root), '--run', 'runs/own'])}")
    return 0
