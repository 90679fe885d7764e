"""Divide the photos of your own data set into two lists: train.txt and val.txt.

    python -m data.lists DIR --val 0.2

DIR holds JPEGImages/ID.jpg (or .jpeg, .png) and SegmentationClass/ID.png. It gets
ImageSets/Segmentation/train.txt and val.txt, with the ids of the photos that have a mask.
Equal files and an equal seed give equal lists.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import DataError
from data.files import atomic_file
from data.images import SUFFIXES, first_of
from data.voc import VOCFolder, absent_classes


class Lists(NamedTuple):
    """What `make_lists` found and wrote, sorted."""

    train: list[str]  # ids
    val: list[str]  # ids
    without_mask: list[str]  # ids of photos
    without_photo: list[str]  # ids of masks
    others: list[str]  # names of files that are neither


def make_lists(root: Path, val: float, seed: int = 0, force: bool = False) -> Lists:
    """Divide the ids that have both a photo and a mask at random between train.txt and val.txt.

    Args:
        root: folder with JPEGImages and SegmentationClass.
        val: share of the ids that validate, between 0 and 1; each list gets at least one.
        seed: another seed divides differently.
        force: replace existing lists.

    Raises:
        DataError: the folders are missing, fewer than two ids have both, a name cannot stand in a
            list, there are lists already, or they cannot be written.
    """
    root = Path(root)
    photos, no_photos = _ids(root / "JPEGImages", SUFFIXES)
    masks, no_masks = _ids(root / "SegmentationClass", (".png",))
    ids = sorted(photos & masks)
    if len(ids) < 2:
        raise DataError(
            f"{root}: {len(ids)} of {len(photos)} photos in JPEGImages have a mask of the same "
            "name in SegmentationClass (ID.jpg and ID.png); two are the least, one to train and "
            "one to validate"
        )
    for image_id in ids:
        if not _can_be_listed(image_id):
            raise DataError(
                f"{root}: the name {image_id!r} cannot stand in a list; "
                "no blanks at its ends, backslash or line end"
            )
    count = min(max(1, round(val * len(ids))), len(ids) - 1)
    order = np.random.default_rng(seed).permutation(len(ids))
    lists = Lists(
        train=[ids[index] for index in sorted(order[count:])],
        val=[ids[index] for index in sorted(order[:count])],
        without_mask=sorted(photos - masks),
        without_photo=sorted(masks - photos),
        others=sorted(no_photos + no_masks),
    )
    _write(root / "ImageSets" / "Segmentation", lists, force)
    return lists


def _ids(folder: Path, suffixes: Sequence[str]) -> tuple[set[str], list[str]]:
    """The stems of the files with one of these suffixes, and the names of the other files.

    Hidden files are neither.
    """
    try:
        files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror}; "
            "data.lists wants photos in JPEGImages and masks in SegmentationClass"
        ) from None
    stems = {path.stem for path in files if path.suffix in suffixes}
    return stems, [f"{folder.name}/{path.name}" for path in files if path.suffix not in suffixes]


def _can_be_listed(image_id: str) -> bool:
    """Whether a line of a UTF-8 file that holds this id is read back as this id."""
    try:
        image_id.encode()  # fails for a file name that is no text
    except UnicodeEncodeError:
        return False
    return image_id.strip() == image_id and image_id.isprintable() and "\\" not in image_id


def _write(folder: Path, lists: Lists, force: bool) -> None:
    """Write both lists, an id a line. A crash never leaves a new list beside an old one."""
    train, val = folder / "train.txt", folder / "val.txt"
    for path in train, val:
        if path.exists() and not force:
            raise DataError(
                f"{path}: is there already; "
                "--force replaces it, and with it what trains and what validates"
            )
    try:
        # The inner file, train.txt, gets its name first; by then the old val.txt is gone.
        with atomic_file(val) as val_file, atomic_file(train) as train_file:
            val_file.write("".join(f"{image_id}\n" for image_id in lists.val).encode())
            train_file.write("".join(f"{image_id}\n" for image_id in lists.train).encode())
            val.unlink(missing_ok=True)
    except OSError as error:
        place = error.filename or folder
        raise DataError(f"{place}: cannot be written ({error.strerror or error})") from None


def _absent_classes(root: Path, split: str) -> list[str]:
    """Classes without a pixel in a list; raises a DataError for masks that cannot be used."""
    dataset = VOCFolder(root, split)
    counts, void = dataset.count_pixels()
    where = f"{root}: the {len(dataset)} images of {split}"
    return absent_classes(counts, void > 0, dataset.classes, where)


def share(text: str) -> float:
    """Type of an argparse flag: a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1, like 0.2")
    return value


def natural(text: str) -> int:
    """Type of an argparse flag: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.lists",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="the folder of the data")
    parser.add_argument(
        "--val", type=share, default=0.2, help="share of the images that validate (default: 0.2)"
    )
    parser.add_argument(
        "--seed", type=natural, default=0, help="another seed divides differently (default: 0)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing lists")
    options = parser.parse_args()
    root = options.root
    try:
        lists = make_lists(**vars(options))
        absent = {split: _absent_classes(root, split) for split in ("train", "val")}
    except DataError as error:
        print(f"data.lists: {error}", file=sys.stderr)
        return error.exit_code
    for what, names in (
        ("photos without a mask", lists.without_mask),
        ("masks without a photo", lists.without_photo),
        ("files that are neither photo nor mask", lists.others),
    ):
        if names:
            print(f"  note: left out {len(names)} {what}: {first_of(names)}")
    for split, names in absent.items():
        if names:
            print(f"  note: no pixel of {first_of(names)} in {split}")
    if not (root / "classes.txt").is_file():
        print(
            f"  note: no {root / 'classes.txt'} (a class name a line, background first): "
            "masks hold VOC's 21 classes"
        )
    print(
        f"wrote {root / 'ImageSets' / 'Segmentation'}: "
        f"train.txt {len(lists.train)}, val.txt {len(lists.val)} images"
    )
    command = ["python", "sample_features.py", "--data", str(root), "--run", "runs/own"]
    print(f"next: {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
