"""Single files: masks and predictions are read as indices, photos as upright RGB."""

import re
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC, VOID
from data.images import (
    EXIF_ORIENTATION,
    check_sizes,
    find_photos,
    read_image,
    read_mask,
)

INDICES = np.array([[0, 1, 12], [3, 15, 0]], dtype=np.uint8)
CLASSES = 21


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def grey_png(path: Path, values: np.ndarray, depth: int) -> Path:
    """A grey PNG of 1, 2, 4 or 16 bits with exactly these values, as some programs write them."""
    raw = b""
    for row in values:
        bits = np.unpackbits(row.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
        raw += b"\0" + np.packbits(bits[:, -depth:].ravel()).tobytes()
    header = struct.pack(">IIBBBBB", *values.shape[::-1], depth, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + kind + data
        png += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(png)
    return path


@pytest.mark.parametrize("may_be_void", [True, False])
@pytest.mark.parametrize("kind", ["P", "L", "16 bits", "palette of 4 bits"])
def test_masks_and_predictions_are_read_as_indices_not_colours(kind, may_be_void, tmp_path):
    path, picture = tmp_path / "a.png", Image.fromarray(INDICES)
    if kind.startswith(("P", "palette")):
        picture.putpalette(VOC.palette()[: 48 if kind.endswith("4 bits") else 768])
    picture.save(path)
    if kind == "16 bits":
        grey_png(path, INDICES, 16)
    found = read_mask(path, CLASSES, may_be_void)
    assert found.dtype == np.uint8 and np.array_equal(found, INDICES)


def test_two_classes_may_have_one_bit(tmp_path):
    path = grey_png(tmp_path / "a.png", INDICES % 2, 1)
    assert np.array_equal(read_mask(path, 2), INDICES % 2)


@pytest.mark.parametrize("value, classes", [(21, 21), (254, 21), (2, 2), (256, 21), (511, 21)])
def test_a_label_outside_the_classes_is_refused(value, classes, tmp_path):
    path = grey_png(tmp_path / "a.png", np.array([[0, value, VOID]]), 16)
    message = f"{path}: label {value} is outside the classes 0..{classes - 1} (void is 255)"
    with pytest.raises(UserError, match=re.escape(message)):
        read_mask(path, classes)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_in_colour_is_refused(mode, tmp_path):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    message = f"a.png: a mask must be a PNG of palette indices .* this one is {mode}$"
    with pytest.raises(UserError, match=message):
        read_mask(tmp_path / "a.png", CLASSES)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_that_programs_read_in_two_ways_is_refused(depth, tmp_path):
    path = grey_png(tmp_path / "a.png", INDICES % 4, depth)
    with Image.open(path) as picture:
        assert np.asarray(picture).max() > 20, "what Pillow makes of it"
    with pytest.raises(UserError, match=f"a.png: grey of {depth} bits, which programs read in two"):
        read_mask(path, CLASSES)


@pytest.mark.parametrize("value", [21, VOID])
def test_a_prediction_gives_every_pixel_a_class(value, tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, value]], dtype=np.uint8))
    message = f"{path}: label {value} is outside the classes 0..20 (each pixel of a prediction"
    with pytest.raises(UserError, match=re.escape(message)):
        read_mask(path, CLASSES, may_be_void=False)


@pytest.mark.parametrize("content", [b"", b"hello", "half"])
def test_damaged_files_are_named(content, tmp_path):
    path = tmp_path / "a.png"
    if content == "half":
        whole = saved(path, noise(40, 40)).read_bytes()
        content = whole[: len(whole) // 2]
    path.write_bytes(content)
    for read in (read_image, partial(read_mask, classes=CLASSES)):
        with pytest.raises(UserError, match=re.escape(f"{path}: cannot be read as an image")):
            read(path)


UPRIGHT = {  # of the stored pixels, by EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_upright(orientation, tmp_path):
    stored, exif = noise(4, 6, 3), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = saved(tmp_path / "a.png", stored, exif=exif)
    upright = UPRIGHT[orientation](stored)
    assert np.array_equal(read_image(path), upright)
    check_sizes(path, saved(tmp_path / "mask.png", noise(*upright.shape[:2])))
    with pytest.raises(UserError, match=r"mask.png: the mask is \dx\d but its image a.png is "):
        check_sizes(path, saved(tmp_path / "mask.png", noise(*upright.shape[1::-1])))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("damage", ["an entry", "all of it"])
def test_exif_that_is_damaged_leaves_the_pixels_as_good_as_they_are(damage, orientation, tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02"  # two entries, big-endian
    exif += struct.pack(">HHIHH", EXIF_ORIENTATION, 3, 1, orientation, 0)
    exif += struct.pack(">HHII", 0x0132, 11, 1, 0) + b"\0\0\0\0"  # the date as a float
    if damage == "all of it":
        exif = exif[:10] + b"garbage"
    pixels = np.tile(np.arange(8, dtype=np.uint8)[:, None, None] * 30, (1, 16, 3))
    path = saved(tmp_path / "a.jpg", pixels, exif=exif, quality=100)
    is_turned = damage == "an entry" and orientation == 6
    expected = np.rot90(pixels, -1) if is_turned else pixels
    assert np.abs(read_image(path).astype(int) - expected).max() < 8
    check_sizes(path, saved(tmp_path / "mask.png", noise(*expected.shape[:2])))


def test_a_file_of_too_many_pixels_is_refused_and_by_its_header_alone(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (13400, 13400)).save(path)
    for read in (read_image, partial(read_mask, classes=2), partial(check_sizes, mask=path)):
        with pytest.raises(UserError, match="large.png: .*exceeds limit of 178956970 pixels"):
            read(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "1"])
def test_every_kind_of_image_becomes_rgb(mode, tmp_path):
    picture = Image.fromarray(noise(4, 6, 3)).convert(mode)
    picture.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, picture.convert("RGB"))


def test_grey_of_16_bits_keeps_its_upper_8(tmp_path):
    path = grey_png(tmp_path / "a.png", np.array([[0, 255, 256, 65535]]), 16)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_the_photos_of_a_folder_are_named_by_stem_or_file(tmp_path):
    (tmp_path / "more.png").mkdir()
    names = ["b.JPG", "a.png", "a.jpeg", "c.tiff", "D.png", "d.jpg"]  # some disks: D is d
    for name in (*names, "notes.txt", "more.png/e.png", ".hidden", "._a.png"):
        (tmp_path / name).touch()
    photos, others = find_photos([tmp_path])
    keys = ["b", "a.png", "a.jpeg", "c", "D.png", "d.jpg"]
    assert photos == {key: tmp_path / name for key, name in zip(keys, names)}
    assert others == ["notes.txt"]


@pytest.mark.parametrize(
    "places, message",
    [
        (["empty"], "empty: no photo in this folder, called .jpg .jpeg"),
        (["b.JPG", "b.JPG"], "2 files are called 'b.jpg'; each needs a name of its own"),
        (["two\nlines.png"], r"files are called 'two\nlines'"),
    ],
)
def test_photos_that_cannot_be_drawn_are_refused(places, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=re.escape(message)):
        find_photos([tmp_path / place for place in places])
