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
from data.formats.source import IMAGES, Options, Pair, Source, files_in, plain, unread
from data.image_files import PHOTO_SUFFIXES

# What names of folders of masks end in, as in train_labels.
MASKS = re.compile(
    "(?i)((^|[ _-])(masks?|labels?|annotations?|segmentations?|gt|gtfine|segmentationclass|ann_dir|"
    "manual[ _-]?[0-9]*|(ground.?)?truth)|annot)([ _-]?png)?$"
)
REMEDY = "--images and --masks name folders, --image-suffix and --mask-suffix what names end in"
MASK_ENDINGS = ["", "_mask", "_gt", "_label", "_labels", "_l", "_seg", "_segmentation", "_matte"]
MASK_ENDINGS += ["-mask"]


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

    Of the usual endings of masks that which makes most pairs counts, and where masks lie apart from
    photos, others for photos that have none with it. For images in no pair see
    `Source.add_unmasked`.

    Raises:
        UserError: a folder that the user names is missing, no photo has a mask, or two have a name;
            or the masks may be in either of two folders.
    """
    options = source.options
    masks, photos = _files(root, options.masks, MASKS), _files(root, options.images, IMAGES)
    photos = {path: photos[path] for path in photos if path not in masks} or photos
    photos_of = _by_name(photos, options.image_suffix or "", PHOTO_SUFFIXES)
    are_jpeg = options.unknown is not None and not _by_name(masks, "", MASK_SUFFIXES)
    tries, are_apart = [], masks.keys().isdisjoint(photos)
    for tried in MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix]:
        masks_of, every = _by_name(masks, tried, JPEG_SUFFIXES if are_jpeg else MASK_SUFFIXES), {}
        for name in sorted(photos_of.keys() & masks_of.keys()):
            pairs = product(photos_of[name], masks_of[name])
            if several := [(photo, mask) for photo, mask in pairs if photo != mask]:
                every[name] = several
        tries.append((every, tried))
    (found, ending), *others = sorted(tries, key=lambda it: -len(it[0]))
    for every, other in others if are_apart else ():
        taken = {mask for several in found.values() for _, mask in several}
        for name in sorted(every.keys() - found.keys()):
            if taken.isdisjoint(mask for _, mask in every[name]):
                found[name] = every[name]
                source.note(f"in doubt: a mask with the ending {other!r}, not {ending!r}", name)
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
    images = {path for path in files_in(root) if path.suffix.lower() in PHOTO_SUFFIXES}
    unused = dict.fromkeys(images.difference(*pairs.values()), "")
    masks_used = {mask.with_suffix("") for _, mask in pairs.values()}
    drawn = [path for path in sorted(unused) if ending and path.suffix.lower() in MASK_SUFFIXES]
    firsts = [path.with_name(re.sub(r"(?<=.)_\d+$", "", path.stem)) for path in drawn]
    if more := [str(path) for path, first in zip(drawn, firsts) if first in masks_used]:
        raise UserError(  # BUSI has a_mask.png and a_mask_1.png
            f"{first_of(more)}: further masks of photos; merge them into one each, or remove them"
        )
    if options.masks is None and options.mask_suffix is None:
        used = {path.parent for pair in pairs.values() for path in pair}
        for other in sorted({path.parent for path in unused} - used):
            if any(map(MASKS.search, other.relative_to(root).parts)):  # as DRIVE's 1st_manual
                raise UserError(
                    f"{other}: seems to hold masks, too, and none is in a pair; say in which "
                    "folder they are, --masks FOLDER, or what their names end in, --mask-suffix"
                )
    for name, paths in photos_of.items():
        if not name.lower().endswith(ending.lower() or "/"):  # else it is a mask without a photo
            unused |= dict.fromkeys(unused.keys() & paths, name)
    source.add_unmasked(unused, root, [photo for photo, _ in pairs.values()])
    return pairs


def _files(root: Path, named: Path | None, usual: re.Pattern) -> dict[Path, str]:
    """The files of a folder, of those of usual names below it, or if there is none of these, all.

    Each has its name: without suffix, and without what folders say of its kind.
    """
    folder, files, below = root / (named or ""), {}, {}
    for path in files_in(folder):
        *folders, name = path.relative_to(folder).with_suffix("").parts
        others = [MASKS.sub("", IMAGES.sub("", part)) for part in folders]
        files[path] = plain("/".join([*filter(None, others), name]))
        if named is None and any(map(usual.search, folders)):
            below[path] = files[path]
    return below or files


def _by_name(files: dict[Path, str], ending: str, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files with these suffixes whose names end so, by their names without the ending."""
    names = defaultdict(list)
    for path, name in files.items():
        if path.suffix.lower() in suffixes and name.lower().endswith(ending.lower()):
            names[name[: len(name) - len(ending)]].append(path)
    return names
