"""Photos and masks as image files: in two folders or in one, their names equal up to an ending."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data import UserError
from data.formats.class_names import CLASS_FILES, read_class_list
from data.formats.foreign_masks import JPEG_SUFFIXES, MASK_SUFFIXES, find_legend, read_mask, survey
from data.formats.source import Options, Pair, Source, files_in, plain
from data.image_files import PHOTO_SUFFIXES, first_of

IMAGE_FOLDERS = {"images", "image", "imgs", "img", "photos", "jpegimages", "rgb", "inputs"}
IMAGE_FOLDERS |= {"leftimg8bit"}
MASK_FOLDERS = {"masks", "mask", "labels", "label", "annotations", "segmentations", "gt", "gtfine"}
MASK_FOLDERS |= {"segmentationclass", "segmentationclasspng", "ground_truth", "groundtruth"}
MASK_ENDINGS = ["", "_mask", "_gt", "_label", "_labels", "_l", "_seg", "_segmentation", "_matte"]


def find(root: Path, options: Options) -> Source | None:
    """The photos and masks below `root`; None if the user names annotations.

    Raises:
        UserError: see `find_pairs` and `find_legend`.
    """
    if options.annotations:
        return None
    source = Source("photos and masks", options)
    pairs = find_pairs(root, source)
    found = survey(pairs, source)
    if not pairs:
        raise UserError(f"{root}: no image can be used; {source.said()}")
    lists = [root / name for name in CLASS_FILES if (root / name).is_file()]
    listed = options.classes or (read_class_list(lists[0]) if lists else {})
    source.classes, legend = find_legend(found, listed, source, root)
    for name, (photo, mask) in pairs.items():
        read = partial(read_mask, photo, mask, legend, source)
        source.add(name, Pair(photo, mask, read))
    return source


def find_pairs(root: Path, source: Source) -> dict[str, tuple[Path, Path]]:
    """Name -> photo and mask, of those below `root`, where the options of `source` say.

    A mask has its photo's name, or that and a usual ending. Images in no pair are noted.

    Raises:
        UserError: a folder that the user names is missing, no photo has a mask, or one has two.
    """
    options = source.options
    endings = MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix]
    masks = _files(root, options.masks, MASK_FOLDERS)
    are_jpeg = options.unknown is not None and not _by_name(masks, endings, MASK_SUFFIXES)
    masks_of = _by_name(masks, endings, JPEG_SUFFIXES if are_jpeg else MASK_SUFFIXES)
    photos = _files(root, options.images, IMAGE_FOLDERS)
    photos_of = _by_name(photos, [options.image_suffix or ""], PHOTO_SUFFIXES)
    remedy = "--images and --masks name folders, --image-suffix and --mask-suffix what names end in"
    pairs: dict[str, tuple[Path, Path]] = {}
    unused = {path for path in files_in(root) if path.suffix.lower() in PHOTO_SUFFIXES}
    for name in sorted(photos_of.keys() & masks_of.keys()):
        found = [
            (one, other) for one in photos_of[name] for other in masks_of[name] if one != other
        ]
        if len(found) > 1:
            files = ", ".join(map(str, dict.fromkeys(sum(found, ()))))
            raise UserError(f"{files}: are all of one name; keep a photo and a mask; {remedy}")
        for pair in found:
            pairs[name] = pair
            unused -= {*pair}
    if not pairs:
        photo, mask = (first_of([of[name][0].name for name in of]) for of in (photos_of, masks_of))
        raise UserError(
            f"{root}: no photo has a mask with its name; photos: {photo or 'none'}, masks (PNG, "
            f"TIFF, BMP or GIF; JPEG with --unknown): {mask or 'none'}; {remedy}"
        )
    for path in sorted(unused):
        source.note("left out: in no pair", path.relative_to(root).as_posix())
    return pairs


def _files(root: Path, named: Path | None, usual: set[str]) -> dict[Path, str]:
    """The files of a folder, of those of usual names below it, or if there is none of these, all.

    Each has its name: without suffix, and without the folders that say what it is.
    """
    folder, files, below = root / (named or ""), {}, {}
    for path in files_in(folder):
        *folders, name = path.relative_to(folder).with_suffix("").parts
        others = [part for part in folders if part.lower() not in IMAGE_FOLDERS | MASK_FOLDERS]
        files[path] = plain("/".join([*others, name]))
        if named is None and usual.intersection(map(str.lower, folders)):
            below[path] = files[path]
    return below or files


def _by_name(
    files: dict[Path, str], endings: Sequence[str], suffixes: Sequence[str]
) -> dict[str, list[Path]]:
    """The files with these suffixes, by their names without each of the endings that they have."""
    names = defaultdict(list)
    for path, name in files.items():
        for ending in endings:
            if path.suffix.lower() in suffixes and name.lower().endswith(ending.lower()):
                names[name[: len(name) - len(ending)]].append(path)
    return names
