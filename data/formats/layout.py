"""What `data.convert` writes: a folder in VOC layout, whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data import DataError
from data.classes import VOID, Classes, read_classes
from data.formats.source import Source
from data.images import EXIF_ORIENTATION, PNG_HEAD, first_of, image_size, read_image

NOTE = "converted.json"  # tells an earlier result from other data
RESULT = {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt", NOTE}
LAYOUT_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg", ".jfif": ".jpg", ".png": ".png"}


@contextmanager
def new_folder(out: Path, root: Path, force: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well, and is else removed.

    Raises:
        DataError: `out` lies in `root`, or holds something that may not be replaced.
    """
    out = out.resolve()
    part, old = out.with_name(f"{out.name}.part"), out.with_name(f"{out.name}.old")
    if out.is_relative_to(root.resolve()):
        raise DataError(f"{out}: lies in SOURCE, which stays as it is; name a folder outside")
    for folder in (out, part, old):
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder}: is a file; name another OUT, or move it away")
        there = {path.name for path in folder.glob("[!.]*")}  # not what macOS leaves
        if not there <= RESULT or (there and folder == out and NOTE not in there):
            raise DataError(f"{folder}: holds other data; name another OUT, or move it away")
        if there and folder == out and not force:
            raise DataError(f"{out}: holds an earlier result; --force replaces it, and its lists")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name in ("JPEGImages", "SegmentationClass"):
            (part / name).mkdir(parents=True)
        yield part
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        part.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_classes(source: Source, folder: Path) -> Classes:
    """Write the classes of a source to `classes.txt`; returns them as the five steps read them.

    Raises:
        DataError: fewer than 2 or more than 255, or a name that cannot stand in such a file.
    """
    if not 2 <= len(source.classes) <= VOID:
        raise DataError(
            f"{source.form}: {len(source.classes)} classes ({first_of(list(source.classes))}); "
            f"a data set needs 2 to {VOID}, with the background"
        )
    lines = [
        " ".join([*name.split(), *map(str, colour or ())])
        for name, colour in source.classes.items()
    ]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    classes = read_classes(folder)
    for name, read in zip(source.classes, classes.names):
        if " ".join(name.split()) != read:
            raise DataError(f"{source.form}: {name!r} cannot be the name of a class; rename it")
    return classes


def place_photo(photo: Path | bytes, place: Path, copy: bool) -> tuple[Path, str]:
    """Bring a photo to `place` plus its suffix, without a copy if that can be.

    Returns:
        The file to look at for its size, which is the original unless there is none; how it came.

    Raises:
        DataError: it had to be saved anew and cannot be read.
    """
    if isinstance(photo, bytes):
        place = place.with_name(place.name + (".png" if photo.startswith(PNG_HEAD) else ".jpg"))
        place.write_bytes(photo)
        return place, "taken out of annotations"
    suffix = LAYOUT_SUFFIXES.get(photo.suffix.lower())
    if suffix is None:
        Image.fromarray(read_image(photo)).save(place.with_name(f"{place.name}.png"))
        return photo, "saved as PNG"
    place = place.with_name(place.name + suffix)
    for how, link in () if copy else (("hard links", os.link), ("symbolic links", os.symlink)):
        try:
            link(photo.resolve(), place)
            return photo, how
        except OSError:  # on another disk, or one without such links
            continue
    shutil.copyfile(photo, place)
    return photo, "copies"


def fit_mask(mask: np.ndarray, photo: Path, turn: bool, source: Source) -> np.ndarray:
    """The mask of a photo as it lies on the photo upright; `source` is told where that is unsure.

    Args:
        mask: (H, W) uint8.
        photo: its file.
        turn: whether EXIF turns the mask, too.
        source: what the photo is of.

    Raises:
        DataError: the sizes differ.
    """
    upright, stored = image_size(photo, upright=True), image_size(photo, upright=False)
    with Image.open(photo) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if turn:
        picture = Image.fromarray(mask)
        picture.getexif()[EXIF_ORIENTATION] = orientation
        mask = np.asarray(ImageOps.exif_transpose(picture))
    elif upright == stored and 2 <= orientation <= 8:
        source.doubts.append(photo.name)
    if mask.shape == upright:
        return mask
    size, mask_size = ("{1}x{0}".format(*shape) for shape in (upright, mask.shape))
    if mask.shape == stored:
        raise DataError(
            f"{photo}: the mask is {mask_size}, as the photo is stored, but EXIF turns the photo "
            f"to {size}; if the mask was drawn on the photo as stored, add --turn-masks"
        )
    raise DataError(f"{photo}: the photo is {size} but its mask {mask_size}")


def save_mask(mask: np.ndarray, path: Path, palette: list[int]) -> None:
    """Save a mask (H, W) uint8 as an index PNG with `Classes.palette`."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette)
    picture.save(path)
