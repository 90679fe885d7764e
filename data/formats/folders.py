"""Photos and masks as image files: in two folders or in one, their names equal up to an ending."""

from functools import partial
from itertools import product
from pathlib import Path

from data import UserError
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
Named = dict[str, list[Path]]  # name without ending -> files


def find(root: Path, options: Options) -> Source | None:
    """The photos and masks below `root`; None if there are no photos.

    Raises:
        UserError: no photo has a mask, names are not unique, or see `find_legend`.
    """
    photos, masks = find_files(root, options)
    if options.annotations or not photos:
        return None
    list_file = find_class_list(root)
    listed = options.classes or (read_class_list(list_file) if list_file else None)
    found = survey_masks(root, photos, masks, options.skip_bad)
    classes, legend = find_legend(found, listed, options, root)
    source = Source("photos and masks", options, classes=classes)
    if listed is None:
        source.note = "the classes have no names yet; --classes background,.. gives them some"
    return paired(source, photos, masks, legend)


def paired(source: Source, photos: Named, masks: Named, legend: Legend) -> Source:
    """The source with the photos and masks of equal names, and with what has no partner."""
    source.images = sum(map(len, photos.values()))
    for name in sorted(photos.keys() | masks.keys()):
        if name in photos and name in masks:
            photo, mask = _only(photos[name]), _only(masks[name])
            source.add(name, Pair(photo, partial(legend.read, mask)))
            continue
        reason = "photo without a mask" if name in photos else "no photo"
        for path in photos.get(name) or masks[name]:
            source.leave_out(reason, path.name)
    return source


def survey_masks(root: Path, photos: Named, masks: Named, skip_bad: bool) -> Survey:
    """What the masks of photos below `root` hold, whatever their classes are.

    Raises:
        UserError: there are none, two have one name, or one is damaged or stored with loss.
    """
    names = sorted(photos.keys() & masks.keys())
    if not names:
        photos, masks = (sum(files.values(), [])[:3] for files in (photos, masks))
        photos, masks = (first_of([path.name for path in paths]) for paths in (photos, masks))
        raise UserError(
            f"{root}: no photo has a mask with its name; photos: {photos or 'none'}, "
            f"masks: {masks or 'none'}; name the folders with --images and --masks, and "
            "what names end in with --image-suffix and --mask-suffix"
        )
    paths = [(_only(photos[name]), _only(masks[name]))[1] for name in names]
    return survey(paths, skip_bad)


def find_files(root: Path, options: Options) -> tuple[Named, Named]:
    """Photos and masks below `root`, by name. Of the usual endings those that pair most count.

    Raises:
        UserError: a folder that the user names is missing, or masks are stored with loss only.
    """
    photos = _files(root, options.images, IMAGE_FOLDERS)
    masks = _files(root, options.masks, MASK_FOLDERS)
    if not photos and not options.images:
        photos = {path: _name(path, root) for path in files_in(root)}
    if not masks and not options.masks:
        masks = photos
    if masks.keys() < photos.keys():
        photos = {path: name for path, name in photos.items() if path not in masks}
    photos, masks = (
        _only_of(photos, PHOTO_SUFFIXES),
        _only_of(masks, MASK_SUFFIXES + LOSSY_SUFFIXES),
    )
    photo_ends = IMAGE_ENDINGS if options.image_suffix is None else [options.image_suffix]
    mask_ends = MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix]
    named = (_by_names(photos, masks, *ends) for ends in product(photo_ends, mask_ends))
    photos, masks = max(named, key=lambda both: len(both[0].keys() & both[1].keys()))
    for name in photos.keys() & masks.keys():
        kept = [path for path in masks[name] if path.suffix.lower() in MASK_SUFFIXES]
        if not kept:
            raise UserError(f"{masks[name][0]}: {LOSSY}")
        masks[name] = kept
    return photos, masks


def _files(root: Path, named: Path | None, usual: tuple[str, ...]) -> Files:
    """The files of the folder that the user names, or else below all folders of a usual name."""
    if named:
        return {path: _name(path, root / named) for path in files_in(root / named)}
    files = {}
    for path in files_in(root):
        *folders, name = _name(path, root).split("/")
        others = [folder for folder in folders if folder.lower() not in usual]
        if len(others) < len(folders):
            files[path] = "/".join([*others, name])
    return files


def _only_of(files: Files, suffixes: tuple[str, ...]) -> Files:
    return {path: name for path, name in files.items() if path.suffix.lower() in suffixes}


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_names(
    photos: Files, masks: Files, image_ending: str, mask_ending: str
) -> tuple[Named, Named]:
    """Photos and masks by their names without suffix and these endings; others are left away.

    Where both lie in one folder, a mask is what has the ending; without one, photos are JPEGs.
    """
    mixed = not photos.keys().isdisjoint(masks)
    if mixed and not mask_ending:
        masks = _only_of(masks, MASK_SUFFIXES)
    masks_of = _by_name(masks, mask_ending)
    taken = {path for paths in masks_of.values() for path in paths}
    photos = {path: name for path, name in photos.items() if path not in taken}
    return _by_name(photos, image_ending), masks_of


def _by_name(files: Files, ending: str) -> Named:
    names: Named = {}
    for path, name in files.items():
        if name.lower().endswith(ending.lower()):
            names.setdefault(name[: len(name) - len(ending)], []).append(path)
    return names


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise UserError(
            f"{paths[0]}, {paths[1]}: two files of one name; keep one, or say what photos and "
            "masks are with --images, --masks, --image-suffix and --mask-suffix"
        )
    return paths[0]
