"""What `data.convert` writes: a folder in VOC layout, whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data import UserError
from data.classes import VOID, Classes, parse_classes, read_classes
from data.formats.source import Source
from data.images import first_of, read_image

NOTE = "converted.json"  # tells an earlier result from other data
RESULT = {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt", NOTE}
LAYOUT_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg", ".jfif": ".jpg", ".png": ".png"}
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that swap the sides


@contextmanager
def new_folder(out: Path, root: Path, force: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well, and is else removed.

    Raises:
        UserError: `out` lies in `root`, or holds something that may not be replaced.
    """
    out = out.resolve()
    part, old = (out.with_name(f".{out.name}.{end}") for end in ("part", "old"))
    if out.is_relative_to(root.resolve()):
        raise UserError(f"{out}: lies in SOURCE, which stays as it is; name a folder outside")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name another OUT, or move it away")
    there = {path.name for path in out.glob("[!.]*")}  # not what macOS leaves
    if there and NOTE not in there or not there <= RESULT:
        raise UserError(f"{out}: holds other data; name another OUT, or move it away")
    if there and not force:
        raise UserError(f"{out}: holds an earlier result; --force replaces it, and its lists")
    try:
        for folder in (part, old):  # of a run that was killed
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("JPEGImages", "SegmentationClass"):
            (part / name).mkdir(parents=True)
        yield part
        if out.exists():
            out.rename(old)
        part.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        raise


def write_classes(source: Source, folder: Path) -> Classes:
    """Write the classes of a source to `classes.txt`; returns them as the five steps read them.

    Raises:
        UserError: fewer than 2 or more than 255, or a name that cannot stand in such a file.
    """
    if not 2 <= len(source.classes) <= VOID:
        raise UserError(
            f"{source.form}: {len(source.classes)} classes ({first_of(list(source.classes))}); "
            f"a data set needs 2 to {VOID}, with the background"
        )
    path, lines = folder / "classes.txt", []
    for name, colour in source.classes.items():
        name, read = " ".join(name.split()), {}
        with suppress(UserError):
            read = parse_classes([name], path)
        if name not in read:
            raise UserError(f"{source.form}: {name!r} cannot be the name of a class; rename it")
        lines.append(" ".join([name, *map(str, colour or ())]) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return read_classes(folder)


def place_photo(
    photo: Path | Callable[[], bytes], place: Path, copy: bool
) -> tuple[tuple[int, int], Path, str]:
    """Bring a photo to `place` plus its suffix, without a copy if that can be.

    Returns:
        Its (height, width) upright; the file to look at; how it came.

    Raises:
        UserError: it cannot be read.
    """
    if not isinstance(photo, Path):
        data = photo()
        place = place.with_name(place.name + (".png" if data.startswith(b"\x89PNG") else ".jpg"))
        place.write_bytes(data)
        return read_image(place).shape[:2], place, "taken out of annotations"
    pixels = read_image(photo)
    suffix = LAYOUT_SUFFIXES.get(photo.suffix.lower())
    if suffix is None:
        Image.fromarray(pixels).save(place.with_name(f"{place.name}.png"))
        return pixels.shape[:2], photo, "saved as PNG"
    place = place.with_name(place.name + suffix)
    for how, link in () if copy else (("hard links", os.link), ("symbolic links", os.symlink)):
        with suppress(OSError):  # on another disk, or one without such links
            link(photo.resolve(), place)
            return pixels.shape[:2], photo, how
    shutil.copyfile(photo, place)
    return pixels.shape[:2], photo, "copies"


def fit_mask(
    mask: np.ndarray, photo: Path, size: tuple[int, int], turn: bool, source: Source
) -> np.ndarray:
    """The mask (H, W) of a photo as it lies on the photo upright; `source` learns of doubts.

    Args:
        mask: it.
        photo: the file, which says how EXIF turns it.
        size: (height, width) of the photo upright.
        turn: turn the mask, too.
        source: what the photo is of.

    Raises:
        UserError: the sizes differ.
    """
    with Image.open(photo) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
    stored = size[::-1] if orientation in SIDEWAYS else size
    if turn:
        picture = Image.fromarray(mask)
        picture.getexif()[ORIENTATION] = orientation
        mask = np.asarray(ImageOps.exif_transpose(picture))
    elif size == stored and 2 <= orientation <= 8:
        source.doubts.append(photo.name)
    if mask.shape == size:
        return mask
    photo_size, mask_size = ("{1}x{0}".format(*shape) for shape in (size, mask.shape))
    if mask.shape == stored:
        raise UserError(
            f"{photo}: the mask is {mask_size}, as the photo is stored, but EXIF turns the photo "
            f"to {photo_size}; if the mask was drawn on the photo as stored, add --turn-masks"
        )
    raise UserError(f"{photo}: the photo is {photo_size} but its mask {mask_size}")
