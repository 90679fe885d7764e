"""The files of a data set in PASCAL VOC layout: where they are, which belong together, their lists.

DIR/JPEGImages/ID.jpg               photos, also .jpeg and .png
DIR/SegmentationClass/ID.png        masks whose pixel values are class ids, 255 is void
DIR/ImageSets/Segmentation/SPLIT.txt    an id a line
DIR/classes.txt                     a class a line, if the classes are not VOC's
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from data import UserError, first_of
from data.classes import Classes
from data.files import atomic_file, read_lines
from data.image_files import SUFFIXES, can_be_shown, check_sizes, read_image, read_mask

LISTS = "ImageSets/Segmentation"
# The SBD-augmented list has its own masks; "trainaug" is what other programs call it.
MASK_FOLDERS = dict.fromkeys(("train_aug", "trainaug"), "SegmentationClassAug")
DIVIDED = ("train", "val")  # the lists that the steps read unless --split says otherwise
READERS = 4  # threads of `read_pairs`; each holds one decoded image at a time

Found = TypeVar("Found")


def find_root(data: Path, needs_lists: bool = True) -> Path:
    """The folder in VOC layout that `data` means: itself, its `VOC2012` or `VOCdevkit/VOC2012`.

    Raises:
        UserError: there is none; without lists, if these are not needed, `data` itself is one.
    """
    for root in (data, data / "VOC2012", data / "VOCdevkit" / "VOC2012"):
        if (root / "JPEGImages").is_dir() and (root / LISTS).is_dir():
            return root
    if not needs_lists and (data / "JPEGImages").is_dir():
        return data
    raise UserError(
        f"{data}: no data set in VOC layout there (JPEGImages, SegmentationClass, {LISTS}); name "
        "its folder with --data, make the lists of your own with: python -m data.lists DIR, or "
        "fetch VOC 2012 with: python -m data.download"
    )


def read_ids(root: Path, split: str) -> list[str]:
    """The image ids of a split, in the order of its list.

    Raises:
        UserError: no such list, an empty one, or see `check_ids`.
    """
    path = root / LISTS / f"{split}.txt"
    known = sorted(file.stem for file in path.parent.glob("*.txt"))
    if split not in known:
        lists = ", ".join(known) or "none"
        hint = "; python -m data.lists DIR --val 0.2 makes both" if split in DIVIDED else ""
        raise UserError(f"{path}: no such list for split {split!r}; lists there: {lists}{hint}")
    ids = [line.strip() for line in read_lines(path) if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty; it needs one image id a line")
    check_ids(ids, path)
    return ids


def write_ids(root: Path, split: str, ids: Iterable[str]) -> None:
    """Writes the list of a split."""
    with atomic_file(root / LISTS / f"{split}.txt") as file:
        file.write("".join(f"{image_id}\n" for image_id in ids).encode())


def find_ids(root: Path) -> tuple[list[str], list[str]]:
    """The sorted ids that have a photo and a mask, and what to say of other files there, if any.

    Raises:
        UserError: no id has both, or see `check_ids`.
    """
    suffixes = {"JPEGImages": SUFFIXES, "SegmentationClass": (".png",)}
    files = [path for folder in suffixes for path in sorted((root / folder).glob("[!.]*"))]
    usable = {path for path in files if path.suffix in suffixes[path.parent.name]}
    photos, masks = ({it.stem for it in usable if it.parent.name == name} for name in suffixes)
    both = photos & masks
    if not both:
        raise UserError(
            f"{root}: no photo in JPEGImages has a mask of its name in SegmentationClass (ID.jpg "
            "and ID.png); python -m data.convert brings other folders, names and suffixes in"
        )
    check_ids(both, root)
    alone = [path.name for path in files if path not in usable or path.stem not in both]
    pair = "a photo ID.jpg, .jpeg or .png and a mask ID.png"
    notes = [f"left out {len(alone)} files, not of {pair}: {first_of(alone)}"] if alone else []
    return sorted(both), notes


def check_ids(ids: Iterable[str], where: Path) -> None:
    """Refuses ids that cannot stand in a list, or stand in it twice; says `where`."""
    for image_id, count in Counter(ids).items():
        if image_id != image_id.strip() or {*"/\\"} & {*image_id} or not can_be_shown(image_id):
            raise UserError(
                f"{where}: {image_id!r} is not an image id: a file name without folder, suffix, "
                "backslash, line end and blanks at its ends; where letters are missing, set "
                "PYTHONUTF8=1"
            )
        if count > 1:
            raise UserError(f"{where}: id {image_id!r} is listed twice")


def find_pair(root: Path, image_id: str, split: str = "") -> tuple[Path, Path]:
    """The files of an id's photo and mask, where they are or would be."""
    photos = [root / "JPEGImages" / (image_id + suffix) for suffix in SUFFIXES]
    masks = root / MASK_FOLDERS.get(split, "SegmentationClass")
    return next(filter(Path.is_file, photos), photos[0]), masks / f"{image_id}.png"


def read_pairs(
    pairs: Sequence[tuple[Path, Path]], classes: Classes, measure: Callable[[np.ndarray], Found]
) -> Iterator[Found | str]:
    """Reads photos and masks: of each pair what `measure` makes of the mask, or why it is bad."""

    def read(pair: tuple[Path, Path]) -> Found | str:
        try:
            check_sizes(*pair)
            read_image(pair[0])
            return measure(read_mask(pair[1], classes))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(read, pairs)
