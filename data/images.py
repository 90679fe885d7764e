"""Single files: photos as upright RGB, masks and predictions as the class ids that their pixels hold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data import DataError
from data.classes import VOID

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # of photos in a data set; cameras shout
EXIF_ORIENTATION, EXIF_SIDEWAYS = 0x0112, (5, 6, 7, 8)
# Pillow's modes of index images -> the type that holds their values; PNGs with 16 bits of grey are I;16 or I.
INDEX_MODES = {"P": np.uint8, "L": np.uint8, "1": np.uint8, "I;16": np.uint16, "I": np.uint32}
PNG_HEAD, PNG_GREY = b"\x89PNG", 0  # its first bytes; its colour type, after the bits of a value
LISTED = 10  # names that a message lists


def read_image(path: Path) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, upright (EXIF orientation applied).

    Raises:
        DataError: the file is missing, damaged or not an image.
    """
    image = ImageOps.exif_transpose(_open(path))
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path, classes: int) -> np.ndarray:
    """The mask as (H, W) uint8 palette *indices*: class ids 0..classes-1 and VOID.

    Raises:
        DataError: the file is missing, damaged, in colour, or holds a value that is no class.
    """
    mask = _read_indices(path, "mask")
    wrong = mask[(mask >= classes) & (mask != VOID)]
    if wrong.size:
        raise DataError(f"{path}: label {wrong[0]} is outside the classes 0..{classes - 1} (void is {VOID})")
    return mask.astype(np.uint8, copy=False)


def find_predictions(folder: Path, ids: Sequence[str]) -> list[Path]:
    """The files ID.png of these ids in a folder that any program may have written, in their order.

    Raises:
        DataError: no such folder, or files are missing: it lists the first `LISTED`, and says how many more.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold a prediction ID.png for each image")
    paths = [folder / f"{image_id}.png" for image_id in ids]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{folder}: no prediction for {len(missing)} of the {len(ids)} images: {first_of(missing)}")
    return paths


def read_prediction(path: Path, classes: int, size: tuple[int, int]) -> np.ndarray:
    """The prediction in an index PNG as (H, W) uint8 class ids 0..classes-1.

    Args:
        size: (height, width) of its image, in pixels.

    Raises:
        DataError: the file is missing, damaged, in colour, of another size, or holds a value that is no class. Void
            is none: a prediction names a class for every pixel.
    """
    prediction = _read_indices(path, "prediction")
    if prediction.shape != size:
        (height, width), (rows, columns) = size, prediction.shape
        raise DataError(
            f"{path}: the prediction is {columns}x{rows} but its image is {width}x{height}; "
            "bring it to that size, by nearest neighbour"
        )
    wrong = prediction[prediction >= classes]
    if wrong.size:
        raise DataError(f"{path}: value {wrong[0]} is outside the classes 0..{classes - 1}; each pixel needs a class")
    return prediction.astype(np.uint8, copy=False)


def image_size(path: Path, upright: bool) -> tuple[int, int]:
    """(height, width) of an image file from its header; `upright` with the EXIF orientation applied.

    Raises:
        DataError: the file is missing, damaged or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = upright and image.getexif().get(EXIF_ORIENTATION) in EXIF_SIDEWAYS
            return (width, height) if sideways else (height, width)
    except Exception as error:  # as in _open
        raise DataError(f"{path}: cannot be read as an image ({error}); is the file damaged?") from None


def first_of(names: Sequence[str]) -> str:
    """The first `LISTED` of the names on one line, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.verify()  # the checksums of a PNG; `load` passes over those of the pixels and can give wrong ones
        image = Image.open(path)
        image.load()
        return image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files; all mean the same to the user
        raise DataError(f"{path}: cannot be read as an image ({error}); is the file damaged?") from None


def _read_indices(path: Path, what: str) -> np.ndarray:
    """The values of an index image, (H, W), of an unsigned type that holds them all.

    Raises:
        DataError: the file is missing or damaged; it has colours; or it has grey of 2 or 4 bits, which some programs
            take as it is and others, Pillow among them, stretch to 0..255.
    """
    image = _open(path)
    if image.mode not in INDEX_MODES:
        raise DataError(f"{path}: a {what} must be a PNG of palette indices (mode P or L), this one is {image.mode}")
    if image.mode == "L":
        with open(path, "rb") as file:
            head = file.read(26)
        if head.startswith(PNG_HEAD) and head[24] < 8 and head[25] == PNG_GREY:
            raise DataError(f"{path}: grey of {head[24]} bits, which programs read in two ways; save it with 8 bits")
    return np.array(image, dtype=INDEX_MODES[image.mode])
