"""Single files: photos as upright RGB, masks and predictions as the class ids of their pixels."""

import errno
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from data import UserError
from data.classes import VOID, Classes

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # of photos in a data set
# Of photos in a folder, in any case; what Pillow opens them with. No format that runs a program.
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".webp", ".avif", ".bmp", ".gif")
PHOTO_SUFFIXES += (".tif", ".tiff")
PHOTO_FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
EXIF_ORIENTATION = 0x0112
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
TURNS |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}  # to turn a photo upright
# Pillow's modes of index images -> the type that holds their values. 16 bits of grey: I;16 or I.
INDEX_MODES = {"P": np.uint8, "L": np.uint8, "1": np.uint8, "I;16": np.uint16, "I": np.uint32}
PNG_HEAD, PNG_GREY = b"\x89PNG", 0  # first bytes of a PNG; its colour type for grey
NOT_ITS_FAULT = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)  # but the system's
STRIP = 512  # rows of a photo that are converted at a time
LISTED = 10  # names that a message lists

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(file: Path | BinaryIO) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, upright (EXIF orientation applied).

    Raises:
        UserError: the file is missing, damaged, too large or not an image.
    """
    return upright_pixels(open_image(file, PHOTO_FORMATS))


def upright_pixels(image: Image.Image) -> np.ndarray:
    """An opened photo as `read_image` gives it."""
    if turn := TURNS.get(_orientation(image)):
        image = image.transpose(Image.Transpose[turn])
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, STRIP):  # Pillow would hold what it converts three times
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        pixels[top : top + STRIP] = strip.convert("RGB")
    return pixels


def check_sizes(photo: Path, mask: Path) -> None:
    """Compares the sizes in the headers of an upright photo and its mask or prediction.

    Raises:
        UserError: they differ, or a file is missing, damaged or not an image.
    """
    height, width = upright_size(photo)
    with _opened(mask, ("PNG",)) as image:
        columns, rows = image.size
    if (columns, rows) != (width, height):
        is_turned = (rows, columns) == (width, height)  # mostly since the photo is, by its EXIF
        remedy = "; EXIF turns the photo, so turn it, too" if is_turned else ""
        sizes = f"the mask is {columns}x{rows} but its image {photo.name} is {width}x{height}"
        raise UserError(f"{mask}: {sizes}{remedy}")


def upright_size(photo: Path) -> tuple[int, int]:
    """(height, width) of a photo by its header, once it is turned upright.

    Raises:
        UserError: see `read_image`.
    """
    with _opened(photo, PHOTO_FORMATS) as image:
        turned = image.format != "TIFF"  # whose size Pillow gives upright
        sideways = turned and _orientation(image) in (5, 6, 7, 8)
        return image.size if sideways else image.size[::-1]


def read_mask(path: Path, classes: int, may_be_void: bool = True) -> np.ndarray:
    """The class ids in an index PNG, (H, W) uint8: 0..classes-1 and, if it may be, VOID.

    Raises:
        UserError: the file is missing, damaged, in colour, or holds a value that is no class.
    """
    image = open_image(path, ("PNG",))
    if image.mode not in INDEX_MODES:
        needed = "a mask must be a PNG of palette indices (mode P or L)"
        raise UserError(f"{path}: {needed}, this one is {image.mode}")
    mask = index_values(image, path)
    wrong = mask[(mask >= classes) & ~(may_be_void & (mask == VOID))]
    if wrong.size:
        rest = f"void is {VOID}" if may_be_void else "each pixel of a prediction needs one"
        what = f"label {wrong[0]} is outside the classes 0..{classes - 1} ({rest})"
        raise UserError(f"{path}: {what}")
    return mask.astype(np.uint8, copy=False)


def colour_mask(mask: np.ndarray, classes: Classes) -> Image.Image:
    """The mask (H, W) as a palette image (mode "P", 8 bits), whose pixel values are class ids."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(classes.palette())
    return picture


def find_photos(places: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """The photos in files and folders (not in folders of those).

    Returns:
        Name -> file, the name without suffix where that is one file's alone; and the names of what
        else is in the folders, files that are no photos and folders/.

    Raises:
        UserError: a folder has no photos, or two have the same name, or one cannot be printed.
    """
    paths, others = [], []
    for place in places:
        if not place.is_dir():  # one that is missing is named when it is read
            paths.append(place)
            continue
        found = sorted(place.glob("[!.]*"))  # systems such as macOS leave hidden files there
        photos = [p for p in found if p.is_file() and p.suffix.lower() in PHOTO_SUFFIXES]
        if not photos:
            raise UserError(f"{place}: no photo in this folder, called {' '.join(PHOTO_SUFFIXES)}")
        paths += photos
        others += [f"{p.name}{'/' * p.is_dir()}" for p in found if p not in photos]
    stems = Counter(path.stem.casefold() for path in paths)  # some disks do not tell A from a
    names = [path.stem if stems[path.stem.casefold()] == 1 else path.name for path in paths]
    for name, count in Counter(map(str.casefold, names)).items():
        if count > 1 or not name.isprintable():
            raise UserError(
                f"--image: {count} files are called {name!r}; each needs a name of its own, of "
                "letters that can be shown"
            )
    return dict(zip(names, paths)), others


def first_of(names: Sequence[str]) -> str:
    """The first `LISTED` of the names on one line, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def open_image(file: Path | BinaryIO, formats: Sequence[str]) -> Image.Image:
    """The decoded image; only these formats are tried, whatever the file is called.

    Raises:
        UserError: the file is missing, damaged, too large or not such an image.
    """
    with _opened(file, formats) as image:
        image.verify()  # checksums of a PNG: `load` skips those of pixels and may read garbage
    with _opened(file, formats) as image:
        image.load()
    return image


def index_values(image: Image.Image, path: Path) -> np.ndarray:
    """The values of an image of the `INDEX_MODES`, (H, W), of an unsigned type that holds them.

    Raises:
        UserError: its file has grey of 2 or 4 bits, which some programs take as it is, while
            others, like Pillow, stretch it to 0..255.
    """
    if image.mode == "L":
        with open(path, "rb") as file:
            head = file.read(26)  # up to the bits of a value and the colour type
        if head.startswith(PNG_HEAD) and head[24] < 8 and head[25] == PNG_GREY:
            raise UserError(
                f"{path}: grey of {head[24]} bits, which programs read in two ways; "
                "save it with 8 bits"
            )
    return np.array(image, dtype=INDEX_MODES[image.mode])


def _orientation(image: Image.Image) -> int | None:
    """Of its EXIF; None if that cannot be read, which says nothing about the pixels."""
    try:
        return image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # Pillow raises many kinds
        return None


@contextmanager
def _opened(file: Path | BinaryIO, formats: Sequence[str]) -> Iterator[Image.Image]:
    """An image file while it is open; turns all that goes wrong with it into a UserError."""
    Image.init()  # not every Pillow knows all formats
    is_open = hasattr(file, "seek")
    name = "the photo" if is_open else file
    try:
        if is_open:
            file.seek(0)
        with Image.open(file, formats=[name for name in formats if name in Image.OPEN]) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in NOT_ITS_FAULT:
            raise
        reason = f"cannot be read as an image ({error}); is the file damaged?"
        if str(name).lower().endswith((".heic", ".heif")):
            reason = "HEIC photos are not read; save it as JPEG"
        raise UserError(f"{name}: {reason}") from None
