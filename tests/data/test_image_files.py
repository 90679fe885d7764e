"""Single files: masks and predictions are read as indices, photos as upright RGB."""

import struct
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC, VOID
from data.image_files import EXIF_ORIENTATION, check_sizes, find_photos, read_image, read_mask
from models.run.predictor import to_array
from tests.data.conftest import noise, turned_by

INDICES = np.array([[0, 1, 12], [3, 15, 0]], dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def raw_png(rows: np.ndarray, width: int, depth: int, kind: int) -> bytes:
    """A PNG of exactly these rows of bytes, which Pillow does not write; kind 0 is grey, 2 RGB."""
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        file += struct.pack(">I", len(data)) + name + data
        file += struct.pack(">I", zlib.crc32(name + data))
    return file


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_that_programs_read_in_two_ways_is_refused_as_a_mask(depth, tmp_path):
    (path := tmp_path / "a.png").write_bytes(raw_png(np.uint8(4 * [[0x11]]), 2, depth, 0))
    assert read_image(path).max() in (17, 85), "what Pillow makes of 1"
    with pytest.raises(UserError, match="a.png: has grey of 2 or 4 bits, which programs read in"):
        read_mask(path, VOC)


@pytest.mark.parametrize("colours", [0, 16, 256])
def test_masks_are_read_as_indices_not_colours(colours, tmp_path):
    path, picture = tmp_path / "a.png", Image.fromarray(INDICES)
    if colours:
        picture.putpalette(VOC.palette()[: 3 * colours])  # of 16 a PNG holds 4 bits
    picture.save(path)
    found = read_mask(path, VOC)
    assert found.dtype == np.uint8 and np.array_equal(found, INDICES)
    for values in (INDICES % 2 > 0, INDICES.astype(np.uint16)):  # of 1 bit and of 16
        assert np.array_equal(read_mask(saved(path, values), VOC), values)


@pytest.mark.parametrize("value, may_be_void", [(256, True), (511, True), (VOID, False)])
def test_a_label_that_is_no_class_is_refused(value, may_be_void, tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, value]], dtype=np.uint16))
    with pytest.raises(UserError, match=f"a.png: label {value} is outside the classes 0..20 "):
        read_mask(path, VOC, may_be_void)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """As EXIF defines it: rows may be columns, then sides are swapped."""
    pixels = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation, suffix, tmp_path):
    stored = noise(4, 6, 3)
    path = saved(tmp_path / f"a.{suffix}", stored, exif=turned_by(orientation))
    height, width, _ = (expected := upright(stored, orientation)).shape
    assert np.array_equal(read_image(path), expected)
    check_sizes(path, saved(tmp_path / "mask.png", noise(height, width)))
    with pytest.raises(UserError, match=rf"mask.png: the mask is \dx\d but its image a.{suffix}"):
        check_sizes(path, saved(tmp_path / "mask.png", noise(width, height)))


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


DEEP = [
    (np.uint16, [0, 255, 256, 65535], [0, 0, 1, 255]),
    (np.int32, [0, 255, 256, 65535], [0, 0, 1, 255]),
    (np.float32, [0, 0.25, 0.5, 1], [0, 64, 128, 255]),
    (np.uint16, [0, 1, 2, 16383], "grey from 0 to 16383; read are 16 bits whose range is used"),
    (np.uint16, [0, 16384], [0, 64]),
    (np.int32, [0, 70_000], "grey from 0 to 70000"),
    (np.int32, [-1, 7000], "grey from -1 to 7000"),
    (np.float32, [0, 255], "grey from 0 to 255; .* floating point 0..1"),
    (np.float32, [0, np.nan], "grey from nan to nan"),
    # Infrared that a program calls alpha is none; opacity of 51 lets a fifth through.
    (np.uint8, [(10, 20, 30, 40), (50, 60, 70, 80)], "its fourth channel is no opacity; save red"),
    (np.uint8, [(10, 20, 30, 51), (50, 60, 70, 255)], [208, 60]),
]


@pytest.mark.parametrize("dtype, grey, expected", DEEP)
def test_deep_grey_is_the_same_however_it_is_opened_or_refused(dtype, grey, expected, tmp_path):
    path = saved(tmp_path / "a.tif", np.array([grey], dtype=dtype), tiffinfo={EXIF_ORIENTATION: 6})
    for photo in (path, path.read_bytes(), Image.open(path)):
        if isinstance(expected, str):
            with pytest.raises(UserError, match=f"^({path}|the photo): {expected}"):
                to_array(photo)
        else:
            pixels = to_array(photo)
            assert pixels.shape == (len(grey), 1, 3), "turned upright"
            assert pixels[:, 0, 1].tolist() == expected


def test_colours_of_16_bits_use_their_range_or_are_refused(tmp_path):
    path, values = tmp_path / "a.png", np.array([[[0, 256, 16384], [511, 512, 9]]])
    path.write_bytes(raw_png(values.astype(">u2"), 2, 16, 2))
    for photo in (path, Image.open(path)):
        assert read_image(photo).tolist() == (values >> 8).tolist()
    for bad in (values - values // 16384, values % 256):  # the last are 8 bits stored as 16
        path.write_bytes(raw_png(bad.astype(">u2"), 2, 16, 2))
        for photo in (path, Image.open(path)):
            with pytest.raises(UserError, match="colours of the lower 14 of 16 bits, or black"):
                read_image(photo)


MANY = Image.fromarray(noise(2, 3, 4), "RGBX")
WHOLE = raw_png(noise(2, 6), 2, 8, 2)
FILES = [  # that are called photos: what is in them, what is said
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "a Git LFS pointer, in wh"),
    (b"\n<!DOCTYPE html><html>404</html>", "a web page or a drawing"),
    (b"II*\0 of nine channels", "a TIFF whose channels or bits are not read here"),
    ({"format": "TIFF", "save_all": True, "append_images": [MANY]}, "has several pages; save"),
    (WHOLE[:-16] + bytes(4) + WHOLE[-12:], "cannot be read as an image"),  # a wrong checksum
    ({"format": "TIFF"}, "has more channels than colours; save three"),
]


@pytest.mark.parametrize("content, said", FILES)
def test_what_is_no_photo_or_several_is_said(content, said, tmp_path):
    path = tmp_path / "a.jpg"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        MANY.save(path, **content)
    for photo in (path, path.read_bytes()):
        with pytest.raises(UserError, match=f"^({path}|the photo): .*{said}"):
            to_array(photo)


def test_what_lies_beside_a_missing_file_is_said(tmp_path):
    (tmp_path / "a.PNG").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    said = "no such file, but a.PNG", "is a link to a file that is", "no such file$"
    for name, words in zip("abc", said):
        with pytest.raises(UserError, match=f"^{tmp_path / name}.png: {words}"):
            read_mask(tmp_path / f"{name}.png", VOC)


BLACK, RED, GREEN = VOC.colours[:3]
RENUMBERED = [[BLACK, GREEN, RED], [GREEN, BLACK, (210, 180, 140)]]
KEPT = [[BLACK, RED, GREEN], [BLACK, RED], [VOC.colours[7], BLACK, (5, 5, 5)]]  # the last is grey
KEPT += [[BLACK, (210, 180, 140), RED]]  # as far as one can see another palette


@pytest.mark.parametrize("palette", RENUMBERED + KEPT)
def test_a_palette_that_contradicts_the_classes_is_refused(palette, tmp_path):
    picture = Image.fromarray(np.array([[0, 1, min(2, len(palette) - 1)]], dtype=np.uint8))
    picture.putpalette(sum(palette, ()))
    picture.save(tmp_path / "a.png")
    message = r"a.png: its palette is renumbered: [01] has the col"
    with pytest.raises(UserError, match=message) if palette in RENUMBERED else nullcontext():
        read_mask(tmp_path / "a.png", VOC)


def test_the_photos_of_a_folder_are_named_by_stem_or_file(tmp_path):
    (tmp_path / "more.png").mkdir()
    names = ["b.JPG", "a.png", "a.jpeg", "c\u202f1.tiff", "D.png", "d.jpg"]  # some disks: D is d
    for name in (*names, "notes.txt", "more.png/e.png", ".hidden", "._a.png"):
        (tmp_path / name).touch()
    photos, others = find_photos([tmp_path])
    keys = ["b", "a.png", "a.jpeg", "c\u202f1", "D.png", "d.jpg"]
    assert photos == {key: tmp_path / name for key, name in zip(keys, names)}
    assert others == ["more.png/", "notes.txt"]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_over_white(mode, tmp_path):
    picture = Image.new("RGBA", (3, 1), (40, 40, 40, 51))  # a fifth comes through
    picture.putpixel((2, 0), (40, 40, 40, 0))
    picture.convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[212] * 3, [212] * 3, [255] * 3]]
