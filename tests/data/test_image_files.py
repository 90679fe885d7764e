"""Single files: masks and predictions are read as indices, photos as upright RGB."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC, VOID
from data.image_files import (
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


@pytest.mark.parametrize("kind", ["P", "L", "16 bits", "1 bit", "palette of 4 bits"])
def test_masks_are_read_as_indices_not_colours(kind, tmp_path):
    path, picture, values = tmp_path / "a.png", Image.fromarray(INDICES), INDICES
    if kind.startswith(("P", "palette")):
        picture.putpalette(VOC.palette()[: 48 if kind.endswith("4 bits") else 768])
    picture.save(path)
    if kind.endswith(("16 bits", "1 bit")):
        values = INDICES % 2 if kind == "1 bit" else INDICES
        grey_png(path, values, int(kind.split()[0]))
    found = read_mask(path, CLASSES)
    assert found.dtype == np.uint8 and np.array_equal(found, values)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_that_programs_read_in_two_ways_is_refused(depth, tmp_path):
    path = grey_png(tmp_path / "a.png", INDICES % 4, depth)
    with Image.open(path) as picture:
        assert np.asarray(picture).max() > 20, "what Pillow makes of it"
    with pytest.raises(UserError, match=f"a.png: grey of {depth} bits, which programs read in two"):
        read_mask(path, CLASSES)


@pytest.mark.parametrize("value, may_be_void", [(256, True), (511, True), (VOID, False)])
def test_a_label_that_is_no_class_is_refused(value, may_be_void, tmp_path):
    path = grey_png(tmp_path / "a.png", np.array([[0, value]]), 16)
    with pytest.raises(UserError, match=f"a.png: label {value} is outside the classes 0..20 "):
        read_mask(path, CLASSES, may_be_void)


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


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_upright(orientation, suffix, tmp_path):
    stored, exif = noise(4, 6, 3), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = saved(tmp_path / f"a.{suffix}", stored, exif=exif)
    upright = UPRIGHT[orientation](stored)
    assert np.array_equal(read_image(path), upright)
    check_sizes(path, saved(tmp_path / "mask.png", noise(*upright.shape[:2])))
    with pytest.raises(UserError, match=rf"mask.png: the mask is \dx\d but its image a.{suffix}"):
        check_sizes(path, saved(tmp_path / "mask.png", noise(*upright.shape[1::-1])))


@pytest.mark.parametrize("is_readable", [True, False])
def test_exif_that_is_damaged_leaves_the_pixels_as_good_as_they_are(is_readable, tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02"  # two entries, big-endian
    exif += struct.pack(">HHIHH", EXIF_ORIENTATION, 3, 1, 6, 0)
    exif += struct.pack(">HHII", 0x0132, 11, 1, 0) + b"\0\0\0\0"  # the date as a float
    pixels = np.tile(np.arange(8, dtype=np.uint8)[:, None, None] * 30, (1, 16, 3))
    exif = exif if is_readable else exif[:10] + b"garbage"
    path = saved(tmp_path / "a.jpg", pixels, exif=exif, quality=100)
    expected = np.rot90(pixels, -1) if is_readable else pixels
    assert np.abs(read_image(path).astype(int) - expected).max() < 8
    check_sizes(path, saved(tmp_path / "mask.png", noise(*expected.shape[:2])))


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
    assert others == ["more.png/", "notes.txt"]
