"""Photos and masks as image files: in two folders or in one, their names equal up to an ending."""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from data import UserError, first_of
from data.classes import CLASS_FILES
from data.formats.class_names import read_class_list
from data.formats.foreign_masks import JPEG_SUFFIXES, MASK_SUFFIXES, find_legend, read_mask, survey
from data.formats.source import IMAGES, MASKS, Options, Pair, Source, files_in, name_in, unread
from data.image_files import PHOTO_SUFFIXES

REMEDY = "--images and --masks name folders, --image-suffix and --mask-suffix what names end in"
MASK_ENDINGS = ["", "_mask", "-mask", "_gt", "_label", "_labels", "_l", "_seg", "_segmentation"]
MASK_ENDINGS += ["_matte"]


def find(root: Path, options: Options) -> Source:
    """The photos and masks below `root`.

    Raises:
        UserError: see `find_pairs` and `find_legend`.
    """
    source = Source("photos and masks", options)
    pairs = find_pairs(root, source)
    found = survey(pairs, source)
    if not pairs:
        raise UserError(f"{root}: no image can be used; {source.said()}")
    lists = [root / name for name in CLASS_FILES if (root / name).is_file()]
    lists += sorted(root.rglob("_classes.csv"))  # Roboflow's, beside the photos of each split
    listed = options.classes or (read_class_list(lists[0]) if lists else {})
    source.classes, legend = find_legend(found, listed, source, root)
    for name, (photo, mask) in pairs.items():
        read = partial(read_mask, photo, mask, legend, source)
        source.add(name, Pair(photo, mask, read))
    return source


def find_pairs(root: Path, source: Source) -> dict[str, tuple[Path, Path]]:
    """Name -> photo and mask, of those below `root`, where the options of `source` say.

    Of the usual endings of masks that which makes most pairs counts. For images in no pair see
    `Source.add_unmasked`.

    Raises:
        UserError: a folder that the user names is missing, no photo has a mask, or two have a name;
            or other files may be masks, too.
    """
    options = source.options
    masks, photos = _files(root, options.masks, MASKS), _files(root, options.images, IMAGES)
    photos = {path: photos[path] for path in photos if path not in masks} or photos
    photos_of = _by_name(photos, options.image_suffix or "", PHOTO_SUFFIXES)
    are_jpeg = options.unknown is not None and not _by_name(masks, "", MASK_SUFFIXES)
    found, ending, masked = {}, "", set()
    for tried in MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix]:
        masks_of, every = _by_name(masks, tried, JPEG_SUFFIXES if are_jpeg else MASK_SUFFIXES), {}
        for name in sorted(photos_of.keys() & masks_of.keys()):
            pairs = product(photos_of[name], masks_of[name])
            if several := [(photo, mask) for photo, mask in pairs if photo != mask]:
                every[name] = several
        masked |= every.keys()
        if len(every) > len(found):
            found, ending = every, tried
    if not found:
        photo, mask = (
            first_of([*_by_name(some, "", PHOTO_SUFFIXES)]) or "none" for some in (photos, masks)
        )
        raise UserError(
            f"{root}: no photo has a mask with its name; photos: {photo}, masks (PNG, TIFF, BMP or "
            f"GIF; with --unknown JPEG): {mask}; {REMEDY}{unread(files_in(root))}"
        )
    for one, *others in found.values():
        if others:
            files = ", ".join(map(str, dict.fromkeys(sum(others, one))))
            raise UserError(f"{files}: are all of one name; keep a photo and a mask; {REMEDY}")
    pairs = {name: pair for name, (pair,) in found.items()}
    used = {path for pair in pairs.values() for path in pair}
    images = {path for path in files_in(root) if path.suffix.lower() in PHOTO_SUFFIXES}
    unused, folders = dict.fromkeys(sorted(images - used), ""), {path.parent for path in used}
    drawn = {mask for _, mask in pairs.values()} if ending else ()
    is_open = options.masks is None and options.mask_suffix is None
    for path in unused:
        further = path.with_stem(re.sub(r"(?<=.)_\d+$", "", path.stem)) in drawn  # BUSI's a_mask_1
        apart = path.relative_to(root).parts if is_open and path.parent not in folders else ()
        if further or any(map(MASKS.search, apart[:-1])):  # DRIVE's 1st_manual
            raise UserError(
                f"{path}: seems to be a mask, too, and is in no pair; say in which folder they "
                "are, --masks FOLDER, or what their names end in, --mask-suffix; those of one "
                "photo must be merged"
            )
    for name, paths in photos_of.items():
        # Else it is a mask without a photo, or the photo of a mask with another ending.
        if name not in masked and not name.lower().endswith(ending.lower() or "/"):
            unused |= dict.fromkeys(unused.keys() & paths, name)
    source.add_unmasked(unused, root, [photo for photo, _ in pairs.values()])
    return pairs


def _files(root: Path, named: Path | None, usual: re.Pattern) -> dict[Path, str]:
    """The files of a folder, of those of usual names below it, or if there is none of these, all.

    Each has its name, see `name_in`.
    """
    folder = root / (named or "")
    files = {path: name_in(folder, path) for path in files_in(folder)}
    inner = {path: path.relative_to(folder).parts[:-1] for path in files}
    below = [path for path in files if named is None and any(map(usual.search, inner[path]))]
    return {path: files[path] for path in below or files}


def _by_name(files: dict[Path, str], ending: str, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files with these suffixes whose names end so, by their names without the ending."""
    names = defaultdict(list)
    for path, name in files.items():
        if path.suffix.lower() in suffixes and name.lower().endswith(ending.lower()):
            names[name[: len(name) - len(ending)]].append(path)
    return names
