"""Photos and masks as image files: in two folders or in one, their names equal up to an ending."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from data import DataError
from data.formats.masks import (
    LOSSY,
    LOSSY_SUFFIXES,
    MASK_SUFFIXES,
    Legend,
    Survey,
    find_legend,
    survey,
)
from data.formats.names import find_class_list, read_class_list
from data.formats.source import Options, Pair, Source, files_in
from data.images import PHOTO_SUFFIXES, first_of

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages", "rgb", "inputs")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentationclass")
MASK_FOLDERS += ("segmentationclasspng", "gt", "ground_truth", "groundtruth", "segmentations")
IMAGE_ENDINGS = ("", "_image", "_img", "_rgb", "_sat")  # of names, in any case
MASK_ENDINGS = ("", "_mask", "_gt", "_label", "_labels", "_l", "_seg", "_segmentation", "_matte")
MASK_ENDINGS += tuple(ending.replace("_", "-") for ending in MASK_ENDINGS[1:])

Files = dict[Path, str]  # file -> its name: no suffix, and no folder that says what it is


class Pairs(NamedTuple):
    """Photos and masks of equal names."""

    files: dict[str, tuple[Path, Path]]  # name without ending and suffix -> photo, mask
    photos: list[Path]  # without a mask
    masks: list[Path]  # without a photo


def find(root: Path, options: Options) -> Source | None:
    """The photos and masks below `root`; None if there are no photos.

    Raises:
        DataError: no photo has a mask, names are not unique, or see `find_legend`.
    """
    pairs = find_pairs(root, options)
    if options.annotations or not (pairs.files or pairs.photos):
        return None
    source = Source("photos and masks", images=len(pairs.files) + len(pairs.photos))
    list_file = find_class_list(root)
    listed = options.classes or (read_class_list(list_file) if list_file else None)
    source.classes, legend = find_legend(_survey(root, pairs, options), listed, options, root)
    if listed is None:
        source.note = "the classes have no names yet; --classes background,.. gives them some"
    for name, (photo, mask) in pairs.files.items():
        source.add(name, partial(_load, photo, mask, legend))
    for reason, paths in (("photo without a mask", pairs.photos), ("no photo", pairs.masks)):
        for path in paths:
            source.leave_out(reason, path.name)
    return source


def survey_masks(root: Path, options: Options) -> Survey:
    """What the masks of the photos below `root` hold, whatever their classes are.

    Raises:
        DataError: there are none, or one is damaged.
    """
    return _survey(root, find_pairs(root, options), options)


def _survey(root: Path, pairs: Pairs, options: Options) -> Survey:
    if not pairs.files:
        photos, masks = ([path.name for path in paths[:3]] for paths in (pairs.photos, pairs.masks))
        raise DataError(
            f"{root}: no photo has a mask with its name; photos: {first_of(photos) or 'none'}, "
            f"masks: {first_of(masks) or 'none'}; name the folders with --images and --masks, and "
            "what names end in with --image-suffix and --mask-suffix"
        )
    return survey([mask for _, mask in pairs.files.values()], options.skip_bad)


def _load(photo: Path, mask: Path, legend: Legend) -> Pair:
    return Pair(photo, legend.read(mask))


def find_pairs(root: Path, options: Options) -> Pairs:
    """The photos and masks below `root`. Of the usual endings those count that pair most files.

    Raises:
        DataError: a folder that the user names is missing, two photos or masks have one name, or a
            mask is stored with loss.
    """
    photos = _files(root, options.images, IMAGE_FOLDERS)
    masks = _files(root, options.masks, MASK_FOLDERS)
    if not photos and not options.images:
        photos = {path: _name(path, root) for path in files_in(root)}
    if not masks and not options.masks:
        masks = photos
    if masks.keys() < photos.keys():
        photos = {path: name for path, name in photos.items() if path not in masks}
    photos = {path: photos[path] for path in photos if path.suffix.lower() in PHOTO_SUFFIXES}
    suffixes = MASK_SUFFIXES + LOSSY_SUFFIXES
    masks = {path: masks[path] for path in masks if path.suffix.lower() in suffixes}
    endings = product(
        IMAGE_ENDINGS if options.image_suffix is None else [options.image_suffix],
        MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix],
    )
    named = (_by_names(photos, masks, *ends) for ends in endings)
    photos_of, masks_of = max(named, key=lambda both: len(both[0].keys() & both[1].keys()))
    files = {
        name: (_only(photos_of[name]), _only(_lossless(masks_of[name])))
        for name in sorted(photos_of.keys() & masks_of.keys())
    }
    return Pairs(
        files,
        [path for name in photos_of for path in photos_of[name] if name not in files],
        [path for name in masks_of for path in masks_of[name] if name not in files],
    )


def _files(root: Path, named: Path | None, usual: tuple[str, ...]) -> Files:
    """The files of the folder that the user names, or else below all folders of a usual name."""
    if named:
        folder = root / named
        return {path: _name(path, folder) for path in files_in(folder)}
    files = {}
    for path in files_in(root):
        *folders, name = _name(path, root).split("/")
        others = [folder for folder in folders if folder.lower() not in usual]
        if len(others) < len(folders):
            files[path] = "/".join([*others, name])
    return files


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_names(
    photos: Files, masks: Files, image_ending: str, mask_ending: str
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Photos and masks by their names without suffix and these endings; others are left away.

    Where both lie in one folder, a mask is what has the ending; without one, photos are JPEGs.
    """
    mixed = not photos.keys().isdisjoint(masks)
    if mixed and not mask_ending:
        masks = {path: masks[path] for path in masks if path.suffix.lower() in MASK_SUFFIXES}
    masks_of = _by_name(masks, mask_ending)
    taken = {path for paths in masks_of.values() for path in paths}
    photos = {path: name for path, name in photos.items() if path not in taken}
    return _by_name(photos, image_ending), masks_of


def _by_name(files: Files, ending: str) -> dict[str, list[Path]]:
    names: dict[str, list[Path]] = {}
    for path, name in files.items():
        if name.lower().endswith(ending.lower()):
            names.setdefault(name[: len(name) - len(ending)], []).append(path)
    return names


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise DataError(
            f"{paths[0]}, {paths[1]}: two files of one name; keep one, or say what photos and "
            "masks are with --images, --masks, --image-suffix and --mask-suffix"
        )
    return paths[0]


def _lossless(masks: list[Path]) -> list[Path]:
    kept = [path for path in masks if path.suffix.lower() in MASK_SUFFIXES]
    if not kept:
        raise DataError(f"{masks[0]}: {LOSSY}")
    return kept
