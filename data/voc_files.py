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

from data import UserError
from data.classes import VOID, Classes
from data.files import read_lines
from data.image_files import SUFFIXES, can_be_shown, check_sizes, first_of, read_image, read_mask

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
        if (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Segmentation").is_dir():
            return root
    if not needs_lists and (data / "JPEGImages").is_dir():
        return data
    raise UserError(
        f"{data}: no data set in VOC layout there (JPEGImages, SegmentationClass, "
        "ImageSets/Segmentation); name its folder with --data, make the lists of your own with: "
        "python -m data.lists DIR, or fetch VOC 2012 with: python -m data.download"
    )


def read_ids(root: Path, split: str) -> list[str]:
    """The image ids of a split, in the order of its list.

    Raises:
        UserError: no such list, an empty one, an id that is not a plain name, or one listed twice.
    """
    folder = root / "ImageSets" / "Segmentation"
    path, known = folder / f"{split}.txt", sorted(file.stem for file in folder.glob("*.txt"))
    if split not in known:
        lists = ", ".join(known) or "none"
        hint = "; python -m data.lists DIR --val 0.2 makes both" if split in DIVIDED else ""
        raise UserError(f"{path}: no such list for split {split!r}; lists there: {lists}{hint}")
    ids = [line.strip() for line in read_lines(path) if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty; it needs one image id a line")
    for image_id, count in Counter(ids).items():
        if "/" in image_id or "\\" in image_id or not can_be_shown(image_id):
            raise UserError(
                f"{path}: {image_id!r} is not an image id (a file name without folder and suffix)"
            )
        if count > 1:
            raise UserError(f"{path}: id {image_id!r} is listed twice")
    return ids


def find_ids(root: Path) -> tuple[list[str], list[str]]:
    """The sorted ids that have a photo and a mask, and what to say of other files there, if any.

    Raises:
        UserError: no id has both, or the name of one cannot stand in a list.
    """
    suffixes = {"JPEGImages": SUFFIXES, "SegmentationClass": (".png",)}
    files = [path for folder in suffixes for path in sorted((root / folder).glob("[!.]*"))]
    usable = {path for path in files if path.suffix in suffixes[path.parent.name]}
    photos, masks = (
        {path.stem for path in usable if path.parent.name == folder} for folder in suffixes
    )
    both = photos & masks
    if not both:
        raise UserError(
            f"{root}: no photo in JPEGImages has a mask of its name in SegmentationClass (ID.jpg "
            "and ID.png); python -m data.convert brings other folders, names and suffixes in"
        )
    for image_id in both:
        if image_id != image_id.strip() or "\\" in image_id or not can_be_shown(image_id):
            raise UserError(
                f"{root}: the name {image_id!r} cannot stand in a list: no blanks at its ends, "
                "backslash or line end; where letters are missing, set PYTHONUTF8=1"
            )
    alone = [path.name for path in files if path not in usable or path.stem not in both]
    pair = "a photo ID.jpg, .jpeg or .png and a mask ID.png"
    notes = [f"left out {len(alone)} files, not of {pair}: {first_of(alone)}"] if alone else []
    return sorted(both), notes


def find_pair(root: Path, image_id: str, masks: str = "SegmentationClass") -> tuple[Path, Path]:
    """The files of an id's photo and mask, where they are or would be."""
    photos = [root / "JPEGImages" / (image_id + suffix) for suffix in SUFFIXES]
    return next(filter(Path.is_file, photos), photos[0]), root / masks / f"{image_id}.png"


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


def sparse_note(share: float) -> str:
    """What to say of masks of which only this share (0..1) is labelled."""
    return (
        f"sparse labels, {100 * share:.2g} % of the pixels: scores on such masks do not measure "
        "outlines; draw a few validation images fully"
    )


def check_labels(
    counts: np.ndarray, void: int, where: str, masks: Iterable[np.ndarray] = ()
) -> None:
    """Refuses masks from which nothing can be learned, by their pixels (C,) of each class.

    Args:
        void: pixels of none.
        masks: all of the data set. An object in one of them shows that 255 is void in the others,
            where less than a tenth is labelled: strokes on the background. Read only if in doubt.

    Raises:
        UserError: there is no labelled pixel, or only background and void, as in binary masks of
            0 and 255; says `where`.
    """
    if not counts.any():
        raise UserError(f"{where} have no labelled pixel")
    if void and counts[0] and not counts[1:].any():
        has_objects = (bool(((mask > 0) & (mask != VOID)).any()) for mask in masks)
        if 9 * counts[0] < void and any(has_objects):
            return
        raise UserError(
            f"{where}: the masks hold only 0 and {VOID}, and {VOID} is void here: "
            "save the object as 1 (python -m data.convert does, with --map 0=0,255=1)"
        )
