"""Single files: masks and predictions are read as indices, images as upright RGB."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOC, VOID
from data.images import find_predictions, first_of, read_image, read_mask, read_prediction
from data.voc import VOCFolder, read_ids
from tests.test_voc import CLASSES, keep, noise, saved


@pytest.mark.parametrize("mode", ["P", "L"])
def test_mask_is_read_as_indices_not_colours(mode, tmp_path):
    values = np.array([[0, 1, 20], [VOID, 15, 0]], dtype=np.uint8)
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette(VOC.palette())
    picture.save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", CLASSES)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, values)


def test_a_one_bit_mask_holds_classes_0_and_1(tmp_path):
    values = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    assert np.array_equal(read_mask(saved(tmp_path / "mask.png", values.astype(bool)), 2), values)


@pytest.mark.parametrize("value, classes", [(21, 21), (254, 21), (2, 2)])
def test_a_label_outside_the_classes_is_refused(value, classes, tmp_path):
    path = saved(tmp_path / "mask.png", np.array([[0, value, VOID]], dtype=np.uint8))
    with pytest.raises(
        DataError, match=f"{re.escape(str(path))}: label {value} is outside the classes 0..{classes - 1}"
    ):
        read_mask(path, classes)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_in_colour_is_refused(mode, tmp_path):
    Image.new(mode, (4, 3)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=f"mask.png: a mask must be a PNG of palette indices .* this one is {mode}$"):
        read_mask(tmp_path / "mask.png", CLASSES)


def grey_png(path: Path, values: np.ndarray, depth: int) -> Path:
    """A grey PNG of 1, 2, 4 or 16 bits with these values as they are, as some programs write indices."""
    rows = [np.unpackbits(row.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, -depth:] for row in values]
    raw = b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", *values.shape[::-1], depth, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


INDICES = np.array([[0, 1, 12], [3, 15, 0]], dtype=np.uint8)


def predicted(folder: Path, kind: str) -> Path:
    """`INDICES` as a file that some program may have written."""
    path = folder / "prediction.png"
    if kind == "16 bits":
        return grey_png(path, INDICES, 16)
    picture = Image.fromarray(INDICES)
    if kind != "L":
        picture.putpalette(VOC.palette()[: None if kind == "P" else 48])  # of 16 colours Pillow makes 4 bits
    picture.save(path)
    return path


@pytest.mark.parametrize("kind", ["P", "L", "16 bits", "palette of 4 bits"])
def test_a_prediction_of_any_kind_is_read_as_indices(kind, tmp_path):
    prediction = read_prediction(predicted(tmp_path, kind), CLASSES, (2, 3))
    assert prediction.dtype == np.uint8 and np.array_equal(prediction, INDICES)
    assert np.array_equal(read_mask(tmp_path / "prediction.png", CLASSES), INDICES)


def test_a_prediction_of_two_classes_may_have_one_bit(tmp_path):
    assert np.array_equal(read_prediction(grey_png(tmp_path / "a.png", INDICES % 2, 1), 2, (2, 3)), INDICES % 2)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_that_programs_read_in_two_ways_is_refused(depth, tmp_path):
    path = grey_png(tmp_path / "a.png", INDICES % 4, depth)
    with Image.open(path) as picture:
        assert np.asarray(picture).max() > 20, "what Pillow makes of it"
    for read in (lambda: read_prediction(path, CLASSES, (2, 3)), lambda: read_mask(path, CLASSES)):
        with pytest.raises(DataError, match=re.escape(f"{path}: grey of {depth} bits, which programs read in two")):
            read()


@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.zeros((2, 4)), "the prediction is 4x2 but its image is 3x2; bring it to that size, by nearest"),
        (np.full((2, 3), 21), "value 21 is outside the classes 0..20"),
        (np.full((2, 3), VOID), "value 255 is outside the classes 0..20; each pixel needs a class"),
        (np.zeros((2, 3, 3)), "a prediction must be a PNG of palette indices .* this one is RGB"),
    ],
    ids=["size", "class", "void", "colour"],
)
def test_a_prediction_that_cannot_be_scored_is_named(pixels, message, tmp_path):
    path = saved(tmp_path / "a.png", pixels.astype(np.uint8))
    with pytest.raises(DataError, match=re.escape(f"{path}: ") + message):
        read_prediction(path, CLASSES, (2, 3))


def test_values_of_16_bits_are_not_cut_to_8(tmp_path):
    with pytest.raises(DataError, match="value 256 is outside the classes 0..20"):
        read_prediction(grey_png(tmp_path / "a.png", np.array([[0, 256]]), 16), CLASSES, (1, 2))
    with pytest.raises(DataError, match="label 511 is outside the classes 0..20"):
        read_mask(grey_png(tmp_path / "a.png", np.array([[0, 511]]), 16), CLASSES)


def test_predictions_are_found_in_the_order_of_the_ids_whatever_else_is_there(tmp_path):
    for name in ("b.png", "a.png", "c.png", "a.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_predictions(tmp_path, ["b", "a"])] == ["b.png", "a.png"]


def test_predictions_that_are_missing_are_listed(tmp_path):
    (tmp_path / "id_01.png").touch()
    ids = [f"id_{index:02}" for index in range(14)]
    listed = "id_00.png, " + ", ".join(f"id_{index:02}.png" for index in range(2, 11))
    message = f"{tmp_path}: no prediction for 13 of the 14 images: {listed} and 3 more"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        find_predictions(tmp_path, ids)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path / chr(97)}: no such folder')}"):
        find_predictions(tmp_path / "a", ids)


@pytest.mark.parametrize("count, end", [(1, "9"), (10, "9"), (11, "9 and 1 more")])
def test_ten_names_are_listed(count, end):
    assert first_of(["9"] * count) == "9, " * (min(count, 10) - 1) + end


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


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("value", UPRIGHT)
def test_image_is_turned_upright_by_its_exif_orientation(value, tmp_path):
    stored = noise(4, 6, 3)
    path = saved(tmp_path / "image.png", stored, exif=orientation(value))
    assert np.array_equal(read_image(path), UPRIGHT[value](stored))


@pytest.mark.parametrize("value", UPRIGHT)
def test_a_mask_belongs_to_the_upright_image(value, shapes):
    stored = noise(16, 24, 3)
    height, width, _ = UPRIGHT[value](stored).shape
    name = read_ids(shapes, "val")[0]
    saved(shapes / "JPEGImages" / f"{name}.jpg", stored, exif=orientation(value))
    saved(shapes / "SegmentationClass" / f"{name}.png", noise(height, width, top=CLASSES))
    sample = VOCFolder(shapes, "val", keep, limit=1)[0]
    assert sample.size == sample.mask.shape == sample.image.shape[1:] == (height, width)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "1"])
def test_every_kind_of_image_becomes_rgb(mode, tmp_path):
    picture = Image.fromarray(noise(4, 6, 3)).convert(mode)
    picture.save(tmp_path / "image.png")
    pixels = read_image(tmp_path / "image.png")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, picture.convert("RGB"))
