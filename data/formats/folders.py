"""Photos and masks as image files: in two folders or in one, their names equal up to an ending."""

from functools import partial
from itertools import product
from pathlib import Path

from tqdm import tqdm

from data import UserError
from data.formats.class_names import listed_beside
from data.formats.foreign_masks import MASK_SUFFIXES, Survey, find_legend, held
from data.formats.source import Options, Pair, Source, files_in
from data.images import PHOTO_SUFFIXES, first_of

IMAGE_NAMES = ("images", "image", "imgs", "img", "photos", "jpegimages", "rgb", "inputs")
IMAGE_NAMES += ("leftimg8bit",)
MASK_NAMES = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "segmentationclass",
    "gtfine",
)
MASK_NAMES += ("segmentationclasspng", "gt", "ground_truth", "groundtruth", "segmentations")
IMAGE_ENDINGS = ("", "_image", "_img", "_rgb", "_sat")  # of names, in any case
MASK_ENDINGS = ("", "_mask", "_gt", "_label", "_labels", "_l", "_seg", "_segmentation", "_matte")
MASK_ENDINGS += tuple(ending.replace("_", "-") for ending in MASK_ENDINGS[1:])

Files = dict[Path, str]  # file -> its name: no suffix, and no folder that says what it is
ByName = dict[str, list[Path]]  # name without ending -> files


def find(root: Path, options: Options) -> Source | None:
    """The photos and masks below `root`; None if the user names annotations.

    Raises:
        UserError: see `find_files` and `find_legend`.
    """
    if options.annotations:
        return None
    photos, masks = find_files(root, options)
    source = Source("photos and masks", options, images=sum(map(len, photos.values())))
    found, names = survey(photos, masks, source)
    listed = options.classes or listed_beside(root)
    source.classes, read = find_legend(found, listed, options, root)
    if listed is None:
        source.note("classes without names; --classes background,.. gives them some", str(root))
    for name in names:
        source.add(name, Pair(photos[name][0], partial(read, masks[name][0])))
    for name in sorted(photos.keys() ^ masks.keys()):
        what = "photo without a mask" if name in photos else "no photo"
        for path in photos.get(name) or masks[name]:
            source.note(f"left out: {what}", path.name)
    return source


def survey(photos: ByName, masks: ByName, source: Source) -> tuple[Survey, list[str]]:
    """What the masks that have a photo hold, and the names of those that can be read."""
    found, names = Survey(), []
    for name in tqdm(sorted(photos.keys() & masks.keys()), "look", disable=None, leave=False):
        with source.leaving_out_bad():
            found.update(held(masks[name][0]))
            names.append(name)
    return found, names


def find_files(root: Path, options: Options) -> tuple[ByName, ByName]:
    """Photos and masks below `root`. Of the usual endings those that pair most count.

    Raises:
        UserError: a folder that the user names is missing, no photo has a mask, or two photos or
            masks have one name.
    """
    photos = _files(root, options.images, IMAGE_NAMES)
    masks = _files(root, options.masks, MASK_NAMES)
    if not photos and not options.images:
        everything = _files(root, Path(), ())
        photos = {path: name for path, name in everything.items() if path not in masks}
    if not masks and not options.masks:
        masks = photos
    photo_ends = IMAGE_ENDINGS if options.image_suffix is None else [options.image_suffix]
    mask_ends = MASK_ENDINGS if options.mask_suffix is None else [options.mask_suffix]
    named = (_by_names(photos, masks, *ends) for ends in product(photo_ends, mask_ends))
    photos, masks = max(named, key=lambda both: len(both[0].keys() & both[1].keys()))
    if photos.keys().isdisjoint(masks):
        some = [first_of([paths[0].name for paths in files.values()]) for files in (photos, masks)]
        raise UserError(
            f"{root}: no photo has a mask with its name; photos: {some[0] or 'none'}, masks (PNG, "
            f"TIFF, BMP or GIF): {some[1] or 'none'}; name the folders with --images and --masks, "
            "and what names end in with --image-suffix and --mask-suffix"
        )
    for name in sorted(photos.keys() & masks.keys()):
        for first, *more in (photos[name], masks[name]):
            if more:
                raise UserError(
                    f"{first}, {more[0]}: two files of one name; keep one, or say what photos and "
                    "masks are with --images, --masks, --image-suffix and --mask-suffix"
                )
    return photos, masks


def _files(root: Path, named: Path | None, usual: tuple[str, ...]) -> Files:
    """The files of the folder that the user names, or else below all folders of a usual name."""
    folder, files = root / (named or ""), {}
    for path in files_in(folder):
        *folders, name = path.relative_to(folder).with_suffix("").parts
        others = [part for part in folders if named is not None or part.lower() not in usual]
        if named is not None or len(others) < len(folders):
            files[path] = "/".join([*others, name])
    return files


def _by_names(photos: Files, masks: Files, photo_end: str, mask_end: str) -> tuple[ByName, ByName]:
    """Photos and masks by their names without these endings; what may be a mask is no photo."""
    masks_of = _by_name(masks, mask_end, MASK_SUFFIXES)
    taken = {path for paths in masks_of.values() for path in paths}
    photos = {path: name for path, name in photos.items() if path not in taken}
    return _by_name(photos, photo_end, PHOTO_SUFFIXES), masks_of


def _by_name(files: Files, ending: str, suffixes: tuple[str, ...]) -> ByName:
    names: ByName = {}
    for path, name in files.items():
        if path.suffix.lower() in suffixes and name.lower().endswith(ending.lower()):
            names.setdefault(name[: len(name) - len(ending)], []).append(path)
    return names
