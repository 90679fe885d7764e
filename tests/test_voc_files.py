"""Single files of a data set: masks are read as indices, images as upright RGB."""

import re

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.classes import VOC, VOID
from data.voc import (
    VOCFolder,
    read_ids,
    read_image,
    read_mask,
)
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
