"""Photos and masks as image files: in two folders or in one, their names equal up to an ending."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data import UserError
from data.formats.class_names import listed_beside
from data.formats.foreign_masks import MASK_SUFFIXES, find_legend, survey
from data.formats.source import Options, Pair, Source, files_in
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
    listed = options.classes or listed_beside(root)
    source.classes, read = find_legend(found, listed, options, root)
    for name, (photo, mask) in pairs.items():
        source.add(name, Pair(photo, mask, partial(read, mask)))
    return source


def find_pairs(root: Path, source: Source) -> dict[str, tuple[Path, Path]]:
    """Name -> photo and mask, of those below `root`, where the options of `source` say.

    Of the usual endings of masks that which makes most pairs counts. What has no partner is noted.

    Raises:
        UserError: a folder that the user names is missing, no photo has a mask, or two have a name.
    """
    options = source.options
    masks = _files(root, options.masks, MASK_FOLDERS)
    photos = _files(root, options.images, IMAGE_FOLDERS)
    tried = []
    for ending in MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix]:
        masks_of = _by_name(masks, ending, MASK_SUFFIXES)
        taken = {path for paths in masks_of.values() for path in paths}
        others = {path: name for path, name in photos.items() if path not in taken}
        photos_of = _by_name(others, options.image_suffix or "", PHOTO_SUFFIXES)
        tried.append((photos_of, masks_of, sorted(photos_of.keys() & masks_of.keys())))
    photos_of, masks_of, names = max(tried, key=lambda found: len(found[2]))
    remedy = "--images and --masks name folders, --image-suffix and --mask-suffix what names end in"
    if not names:
        photo, mask = (first_of([of[name][0].name for name in of]) for of in (photos_of, masks_of))
        raise UserError(
            f"{root}: no photo has a mask with its name; photos: {photo or 'none'}, masks (PNG, "
            f"TIFF, BMP or GIF): {mask or 'none'}; {remedy}"
        )
    for paths in (of[name] for name in names for of in (photos_of, masks_of)):
        if len(paths) > 1:
            raise UserError(f"{paths[0]}, {paths[1]}: two files of one name; keep one; {remedy}")
    for name in sorted(photos_of.keys() ^ masks_of.keys()):
        what = "photo without a mask" if name in photos_of else "no photo"
        for path in photos_of.get(name) or masks_of[name]:
            source.note(f"left out: {what}", path.name)
    return {name: (photos_of[name][0], masks_of[name][0]) for name in names}


def _files(root: Path, named: Path | None, usual: set[str]) -> dict[Path, str]:
    """The files of a folder, of those of usual names below it, or if there is none of these, all.

    Each has its name: without suffix, and without the folders that say what it is.
    """
    folder, files, below = root / (named or ""), {}, {}
    for path in files_in(folder):
        *folders, name = path.relative_to(folder).with_suffix("").parts
        others = [part for part in folders if part.lower() not in IMAGE_FOLDERS | MASK_FOLDERS]
        files[path] = "/".join([*others, name])
        if named is None and usual.intersection(map(str.lower, folders)):
            below[path] = files[path]
    return below or files


def _by_name(files: dict[Path, str], ending: str, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files with these suffixes whose names end so, by their names without the ending."""
    names: dict[str, list[Path]] = {}
    for path, name in files.items():
        if path.suffix.lower() in suffixes and name.lower().endswith(ending.lower()):
            names.setdefault(name[: len(name) - len(ending)], []).append(path)
    return names
