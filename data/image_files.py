"""Single files: photos as upright RGB, masks and predictions as the class ids of their pixels."""

import errno
import glob
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from data import UserError, first_of
from data.classes import VOID, Classes, voc_colour

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # of photos in a data set
# Of photos in a folder, in any case; what Pillow opens them with. No format that runs a program.
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".webp", ".avif", ".bmp", ".gif")
PHOTO_SUFFIXES += (".tif", ".tiff")
PHOTO_FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
EXIF_ORIENTATION = 0x0112
Turn = Image.Transpose
TURNS = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE}
TURNS |= {6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90}  # to turn a photo upright
INDEX_MODES = ("P", "L", "1", "I", "I;16", "I;16B")  # Pillow's, of index images
EXTRA_SAMPLES, UNKNOWN_KIND = 338, 0  # of TIFF: what channels beyond the colours are
HEADS = {  # first bytes of what is taken for an image: what it is
    rb"version https://git-lfs": "a Git LFS pointer, in whose place `git lfs pull` puts the image",
    rb"(?i)\s*<(!doctype|html|\?xml|svg)": "a web page or a drawing (HTML, SVG); download it again",
    rb"(?s)....ftyp(hei|hev|mif|msf)": "HEIC photos are not read; save it as JPEG",
    rb"\xff\xd8\xff": "a JPEG, which is damaged, or changes the values of a mask: masks are PNG",
    rb"II\*\0|MM\0\*": "a TIFF whose channels or bits are not read here; save it as PNG",
}
NOT_ITS_FAULT = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)  # but the system's
DEEP = "read are 16 bits whose range is used (not 12 or 14), and floating point 0..1: save 8 bits"

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(photo: Path | BinaryIO | Image.Image) -> np.ndarray:
    """The photo as (H, W, 3) uint8 RGB, upright (EXIF orientation applied).

    Of grey of 16 bits these are the upper 8, of floating point 0..1 all of 0..255. What is
    transparent lies over white, as viewers show it.

    Raises:
        UserError: see `open_image`; or 16 bits have another range, as 12 in 16 (of colours that is
            not known of a PIL image that was loaded), or a TIFF's fourth channel is no opacity.
    """
    with _opened(photo) as image:  # what Pillow forgets once it has read the pixels
        turn, is_deep = orientation(image), ";16" in str(getattr(image, "tile", ""))
    image = open_image(photo)
    if turn in TURNS and image.format != "TIFF":  # which Pillow has turned
        image = image.transpose(TURNS[turn])
    if image.mode[0] in "IF":  # which Pillow would clip to white
        image = Image.fromarray(_to_8_bits(np.asarray(image), _name(photo)))
    elif is_deep and max(high for _, high in image.convert("RGB").getextrema()) < 64:
        raise UserError(f"{_name(photo)}: colours of the lower 14 of 16 bits, or black; {DEEP}")
    if image.format == "TIFF" and image.mode == "RGBA":
        opacity = image.getchannel("A").histogram()
        if sum(opacity[1:255]) > sum(opacity) / 2:  # near infrared, which programs call alpha
            raise UserError(
                f"{_name(photo)}: its fourth channel is no opacity; save red, green and blue alone "
                "(if it is one, as PNG)"
            )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bits(grey: np.ndarray, name: object) -> np.ndarray:
    """Integers up to 65535, or floating point 0..1, (H, W), as uint8."""
    low, high = grey.min(), grey.max()
    if grey.dtype.kind == "f" and 0 <= low <= high <= 1:
        return (255 * grey).round().astype(np.uint8)
    if grey.dtype.kind != "f" and low >= 0 and (high < 1 or 1 << 14 <= high < 1 << 16):
        return (grey >> 8).astype(np.uint8)
    raise UserError(f"{name}: grey from {low:g} to {high:g}; {DEEP}")


def check_sizes(photo: Path, mask: Path, size: tuple[int, int] | None = None) -> None:
    """Compares the sizes of an upright photo and its mask or prediction, by the files' headers.

    Args:
        size: (height, width) of the mask, where a file other than a PNG holds it.

    Raises:
        UserError: they differ, or a file is missing, damaged or not an image.
    """
    height, width = upright_size(photo)
    if size is None:
        with _opened(mask, ("PNG",)) as image:
            size = image.size[::-1]
    if size != (height, width):
        sizes = f"{size[1]}x{size[0]} but its image {photo.name} is {width}x{height}"
        turn = "; as EXIF turns the photo? of masks: data.convert --turn-masks; of annotations: "
        turn += "turn its pixels, and export the annotations again"
        raise UserError(f"{mask}: the mask is {sizes}{turn * (size == (width, height))}")


def upright_size(photo: Path) -> tuple[int, int]:
    """(height, width) of a photo by its header, once it is turned upright.

    Raises:
        UserError: see `read_image`.
    """
    with _opened(photo) as image:
        # The size that Pillow gives of a TIFF is upright.
        is_turned = image.format != "TIFF" and orientation(image) in (5, 6, 7, 8)
        return image.size if is_turned else image.size[::-1]


def orientation(photo: Path | BinaryIO | Image.Image) -> int | None:
    """How EXIF turns a photo, see `TURNS`; None if it says nothing, or cannot be read.

    In a PNG it counts before the pixels alone, where browsers look, too: all would be decoded.
    """
    with _opened(photo) as image:
        try:
            return Image.Image.getexif(image).get(EXIF_ORIENTATION)
        except Exception:  # Pillow raises many kinds; of the pixels that says nothing
            return None


def read_mask(path: Path, classes: Classes, may_be_void: bool = True) -> np.ndarray:
    """The class ids in an index PNG, (H, W) uint8: 0..C-1 and, if it may be, VOID.

    Raises:
        UserError: the file is missing, damaged, in colour, holds a value that is no class, or has a
            palette that contradicts the classes, see `_check_palette`.
    """
    image = open_image(path, ("PNG",))
    if image.mode not in INDEX_MODES:
        needed = "a mask must be a PNG of palette indices (mode P or L)"
        remedy = "python -m data.convert goes by colours"
        raise UserError(f"{path}: {needed}, this one is {image.mode}; {remedy}")
    mask = np.asarray(image)
    if image.mode == "P" and image.getpalette() != classes.palette():
        _check_palette(image, classes, path)
    wrong = mask[(mask >= len(classes)) & ~(may_be_void & (mask == VOID))]
    if wrong.size:
        hints = {VOID: "; 255 is void: save the likeliest class, and an object of 255 as 1"}
        hints[len(classes)] = "; is it class + 1?"
        needed = "each pixel of a prediction needs one" + hints.get(int(wrong[0]), "")
        raise UserError(
            f"{path}: label {wrong[0]} is outside the classes 0..{len(classes) - 1} "
            f"({f'void is {VOID}' if may_be_void else needed})"
        )
    return mask.astype(np.uint8)


def _check_palette(image: Image.Image, classes: Classes, path: Path) -> None:
    """Refuses indices that have the colours of other classes, as image editors renumber them.

    A palette of grey contradicts nothing, nor does one of mostly other colours than the classes'.
    """
    own, palette = (np.reshape(it, (-1, 3)) for it in (classes.palette(), image.getpalette()))
    name_of = {voc_colour(VOID): "void"} | dict(zip(classes.colours, classes.names))
    there = np.flatnonzero(image.histogram()[: len(palette)])
    wrong = there[(palette[there] != own[there]).any(1)]
    names = {index: name_of.get(tuple(palette[index].tolist())) for index in wrong}
    known = [index for index in wrong if names[index]]
    if 2 * len(known) > len(wrong) and (palette != palette[:, :1]).any():
        raise UserError(
            f"{path}: its palette is renumbered: {known[0]} has the colour of {names[known[0]]}; "
            "python -m data.convert goes by the colours (VOC's: --classes voc; --masks FOLDER); or "
            "write the colours of the indices to classes.txt"
        )


def colour_mask(mask: np.ndarray, classes: Classes) -> Image.Image:
    """The mask (H, W) as a palette image (mode "P", 8 bits), whose pixel values are class ids."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(classes.palette())
    return picture


def find_photos(
    places: Sequence[Path], recursive: bool = False, out: Path | None = None
) -> tuple[dict[str, Path], list[str]]:
    """The photos in files and folders, also in folders of those if `recursive`, but for `out`.

    Returns:
        Name -> file, the name without suffix where that is one file's alone, with the folders that
        it is in below the place; and the names of what else is in the folders, files that are no
        photos and folders/.

    Raises:
        UserError: a folder has no photos, or two have the same name, or one cannot be printed.
    """
    files, others = [], []  # (its path inside the place, its path); what is left out
    for place in places:
        if not place.is_dir():  # one that is missing is named when it is read
            files.append((Path(place.name), place))
            continue
        known, made = len(files), out and place.resolve() in out.resolve().parents
        for path in sorted(place.glob("**/*" if recursive else "*")):
            part = path.relative_to(place)
            is_hidden = any(name.startswith(".") for name in part.parts)  # as macOS leaves them
            if is_hidden or made and path.resolve().is_relative_to(out.resolve()):
                continue
            if path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES:
                files.append((part, path))
            elif path.is_file() or not recursive:
                others.append(f"{part.as_posix()}{'/' * path.is_dir()}")
        if len(files) == known:
            where = "this folder" if recursive else "this folder (--recursive looks below)"
            raise UserError(f"{place}: no photo in {where}, called {' '.join(PHOTO_SUFFIXES)}")
    stems = [part.with_suffix("").as_posix() for part, _ in files]
    counts = Counter(map(str.casefold, stems))  # some disks do not tell A from a
    names = [
        stem if counts[stem.casefold()] == 1 else part.as_posix()
        for stem, (part, _) in zip(stems, files)
    ]
    for name, count in Counter(map(str.casefold, names)).items():
        if count > 1 or not can_be_shown(name):
            raise UserError(
                f"--image: {count} files are called {name!r}; each needs a name of its own, of "
                "letters that can be shown"
            )
    return dict(zip(names, (path for _, path in files))), others


def can_be_shown(name: str) -> bool:
    """Whether a name holds nothing but letters and blanks of any kind, on one line."""
    return all(letter.isprintable() or unicodedata.category(letter) == "Zs" for letter in name)


def open_image(
    photo: Path | BinaryIO | Image.Image, formats: Sequence[str] = PHOTO_FORMATS
) -> Image.Image:
    """The decoded image; only these formats are tried, whatever the file is called.

    Raises:
        UserError: the file is missing, damaged, too large or not such an image, or has several
            pages, or channels that are no colours.
    """
    if is_file := not isinstance(photo, Image.Image):
        with _opened(photo, formats) as image:
            image.verify()  # checksums of a PNG: `load` skips those of pixels, may read garbage
    with _opened(photo, formats) as image:
        is_one = image.format == "MPO" or getattr(image, "n_frames", 1) == 1  # MPO's first
        if is_file and not is_one:
            raise UserError("has several pages; save that which you mean as a file of its own")
        if UNKNOWN_KIND in getattr(image, "tag_v2", {}).get(EXTRA_SAMPLES, ()):
            raise UserError("has more channels than colours; save three as red, green and blue")
        if formats is not PHOTO_FORMATS and re.search("L;[24]'", str(getattr(image, "tile", ""))):
            raise UserError("has grey of 2 or 4 bits, which programs read in two ways; save 8 bits")
        if image.format == "TIFF":
            image.filename = ""  # mapped from its file, Pillow would turn it wrongly
        image.load()
    return image


def _name(photo: Path | BinaryIO | Image.Image) -> object:
    return photo if isinstance(photo, str | Path) else "the photo"


@contextmanager
def _opened(
    photo: Path | BinaryIO | Image.Image, formats: Sequence[str] = PHOTO_FORMATS
) -> Iterator[Image.Image]:
    """An image while it is open; turns all that goes wrong with it into a UserError."""
    Image.init()  # not every Pillow knows all formats
    formats, head = [name for name in formats if name in Image.OPEN], b""
    try:
        if isinstance(photo, Image.Image):
            yield photo
            return
        # Pillow gets no path: it would map some files, and turn a TIFF of these wrongly.
        with open(photo, "rb") if isinstance(photo, str | Path) else nullcontext(photo) as file:
            file.seek(0)
            head = file.read(64)
            with Image.open(file, formats=formats) as image:
                yield image
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in NOT_ITS_FAULT:
            raise
        raise UserError(f"{_name(photo)}: {_reason(error, head)}") from None


def _reason(error: Exception, head: bytes) -> str:
    """Why a file cannot be read, by its first bytes, and what it is, or what lies in its place."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        path = Path(error.filename)
        others = [other.name for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))]
        if path.is_symlink():
            return "is a link to a file that is gone"
        return f"no such file{f', but {first_of(others)}; see data.convert' if others else ''}"
    if isinstance(error, Image.DecompressionBombError):
        limit = "PIL.Image.MAX_IMAGE_PIXELS, which the scripts set to what memory has room for"
        what = error.args[0].partition(",")[0]
        return f"{what}: cut it into parts, make it smaller, or raise {limit}"
    if isinstance(error, UnidentifiedImageError):
        for pattern, what in HEADS.items():
            if re.match(pattern, head):
                return f"cannot be read as an image: {what}"
    return f"cannot be read as an image ({error}); is the file damaged?"
