"""A small drawn data set in PASCAL VOC layout, to try the project with no download.

    python -m data.shapes OUT
    python -m data.shapes OUT --images 600 --size 200 --seed 1

OUT then holds JPEGImages/ID.jpg, SegmentationClass/ID.png and ImageSets/Segmentation/SPLIT.txt,
where SPLIT is train, val, trainval or test. Each picture has 2 to 5 objects on a muted ground. The
classes have VOC's names, but each is a plain shape with a hue and a texture.
"""

import argparse
import colorsys
import json
from pathlib import Path

import numpy as np
from numpy import cos, hypot, maximum, minimum, sin
from PIL import Image, ImageFilter

from data import UserError
from data.classes import VOC, VOID
from data.image_files import colour_mask
from data.voc_files import write_ids
from models.run import folder

# How hard the data set is. A jitter is the half-width of a uniform draw, one per object.
HUE_JITTER, VALUE_JITTER = 12, 0.1  # degrees, of 1
TURN_JITTER = 25  # degrees
PERIOD, PERIOD_JITTER = 0.07, 0.2  # of a texture: of the picture's shorter side, of the period
OBJECT_SCALE = 0.32, 0.75  # an object's side, of the picture's shorter side
TRIES = 6  # random places for an object; it gets the one where it hides the least of the others
NOTE = "shapes.json"  # what was asked for, in a finished data set
PIXEL_NOISE = 4.0  # standard deviation, in grey levels
ASPECTS = (4 / 3, 4 / 3, 4 / 3, 3 / 4, 1)  # width / height, drawn uniformly: mostly landscape

SHAPES = (  # how far x and y, -1..1, are inside the outline; below 0 outside
    lambda x, y: 0.95 - hypot(x, y),  # disc
    lambda x, y: 0.27 - abs(hypot(x, y) - 0.7),  # ring
    lambda x, y: 0.7 - maximum(abs(x), abs(y)),  # square
    lambda x, y: minimum(0.9 - abs(x), 0.42 - abs(y)),  # plank
    lambda x, y: minimum(0.42 - abs(x), 0.9 - abs(y)),  # post
    lambda x, y: 0.7 * (0.97 - abs(x) - abs(y)),  # diamond
    lambda x, y: minimum(0.6 - y, 0.45 * (y + 0.95) - 0.8 * abs(x)),  # triangle
    lambda x, y: minimum(0.9 - hypot(x, y), 0.3 - minimum(abs(x), abs(y))),  # cross
    lambda x, y: minimum(0.95 - hypot(x, y), y + 0.1),  # bowl
    lambda x, y: 0.7 + 0.2 * cos(5 * np.arctan2(y, x)) - hypot(x, y),  # flower
)
TEXTURES = (  # of x and y in turns of a wave: below 0 the dark colour, above 0 the light one
    lambda x, y: sin(y),  # bars
    lambda x, y: 3 * sin(x / 2) * sin(y / 2),  # checks
    lambda x, y: sin(hypot(x % 24 - 12, y % 24 - 12)),  # rings
    lambda x, y: 0.5 + 2 * cos(0.6 * (x + y)) * cos(0.6 * (x - y)),  # dots
)
SPLITS = ("train", "train", "train", "val", "train", "train", "train", "test")  # of eight in a row
NAMES = VOC.names[1:]
# Of class i. Two have a shape, two others a hue, five a texture: neither is enough.
OBJECTS = {
    name: (SHAPES[i % 10], 36 * (3 * i + i // 10) % 360, TEXTURES[i % 4])
    for i, name in enumerate(NAMES)
}


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB 0..1, (3,), of a hue in degrees and of a saturation and value, clipped to 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, *np.clip([saturation, value], 0, 1)))


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8))


def _object(name: str, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """An object, turned and scaled: its RGB image, and an L image of where it covers the ground."""
    shape, hue, texture = OBJECTS[name]
    side = round(rng.uniform(*OBJECT_SCALE) * size)
    down, across = (np.mgrid[:side, :side] + 0.5) * 2 / side - 1
    turned = (across + 1j * down) * np.exp(1j * np.radians(rng.uniform(-TURN_JITTER, TURN_JITTER)))
    inside = side / 2 * shape(turned.real, turned.imag)  # in pixels
    period = PERIOD * size * rng.uniform(1 - PERIOD_JITTER, 1 + PERIOD_JITTER)
    place = np.pi * turned * side / period + rng.uniform(0, 600) * (1 + 1j)
    share = np.clip(0.5 + 1.5 * texture(place.real, place.imag), 0, 1)[..., None]
    hue += rng.uniform(-HUE_JITTER, HUE_JITTER)
    dark, light = (
        _rgb(hue, saturation, value + rng.uniform(-VALUE_JITTER, VALUE_JITTER))
        for saturation, value in ((0.78, 0.75), (0.2, 0.95))
    )
    lamp = 1.1 - 0.1 * (across + down) - 0.4 * np.exp(-40 * np.maximum(inside, 0) / size)
    return _image((dark + share * (light - dark)) * lamp[..., None]), _image(inside + 0.5)


def _ground(width: int, height: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A muted background (height, width, 3), 0..1: waves and clouds in two colours."""
    y, x = np.mgrid[:height, :width] / size
    angle = rng.uniform(0, 2 * np.pi)
    waves = sin((x * cos(angle) + y * sin(angle)) * rng.uniform(1, 50))
    coarse = Image.fromarray(rng.random((7, 7), dtype=np.float32))
    share = 0.3 + 0.3 * waves + 0.4 * np.asarray(coarse.resize((width, height), Image.BICUBIC))
    hue, saturation, value = rng.uniform((0, 0.05, 0.45), (360, 0.35, 0.9))
    first = _rgb(hue, saturation, value)
    second = _rgb(hue + rng.uniform(-40, 40), 0.75 * saturation, value + rng.choice([-0.2, 0.2]))
    return first + np.clip(share, 0, 1)[..., None] * (second - first)


def _names(index: int, rng: np.random.Generator) -> list[str]:
    """The classes of picture `index`: 0 to 3 random ones, and two in turn.

    The latter so that every list soon has every class.
    """
    turn = index // 8 + 3 * (index % 8)
    dealt = [NAMES[turn % len(NAMES)], NAMES[(3 * turn + 7) % len(NAMES)]]
    return [*rng.choice(NAMES, rng.integers(4)).tolist(), *dealt]


def _picture(index: int, size: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """Picture `index` in RGB, and its mask of class values and VOID with VOC's palette."""
    rng = np.random.default_rng([seed, index, 1])
    aspect = rng.choice(ASPECTS)
    width, height = round(size * max(1, aspect)), round(size * max(1, 1 / aspect))
    picture = _image(_ground(width, height, size, rng))
    instances, values = Image.new("L", (width, height)), [0]  # values: the class of each instance
    for name in _names(index, rng):
        colours, cover = _object(name, size, rng)
        inside, places = cover.point(lambda value: 255 * (value >= 128)), []
        for _ in range(TRIES):
            left, top = rng.integers((0, 0), (width - cover.width + 1, height - cover.height + 1))
            box = (left, top, left + cover.width, top + cover.height)
            places.append((np.logical_and(instances.crop(box), inside).sum(), *map(int, box[:2])))
        _, *place = min(places)
        picture.paste(colours, tuple(place), cover)
        instances.paste(len(values), tuple(place), inside)
        values.append(VOC.names.index(name))
    noisy = np.asarray(picture) + rng.normal(0, PIXEL_NOISE, (height, width, 1))
    window = 2 * max(1, round(size / 180)) + 1  # pixels: outlines are void this wide
    highest = instances.filter(ImageFilter.MaxFilter(window))
    lowest = instances.filter(ImageFilter.MinFilter(window))
    mask = np.where(np.not_equal(highest, lowest), VOID, np.array(values)[np.asarray(instances)])
    return _image(noisy / 255), colour_mask(mask, VOC)


def make_shapes(out: Path, images: int = 300, size: int = 160, seed: int = 0) -> Path:
    """Draw the data set into folder `out` and return it; a finished equal one is kept as it is.

    `size` is the pictures' shorter side in pixels. Equal seeds draw equal files, and fewer images
    are the first of more. Of eight in a row the fourth goes to `val`, the last to `test` and the
    others to `train`.

    Raises:
        UserError: images < 1, size < 32 or seed < 0; `out` holds other data.
    """
    if images < 1 or size < 32 or seed < 0:
        raise UserError("at least: --images 1, --size 32, --seed 0")
    out, request = Path(out), json.dumps({"images": images, "size": size, "seed": seed}) + "\n"
    if (out / NOTE).is_file() and (out / NOTE).read_text(encoding="utf-8") == request:
        return out
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: already holds other data; give another folder or delete it")
    with folder.new_folder(out) as new:
        for place in ("JPEGImages", "SegmentationClass"):
            (new / place).mkdir()
        names = [f"shapes_{index:06d}" for index in range(images)]
        for index, name in enumerate(names):
            picture, mask = _picture(index, size, seed)
            picture.save(new / "JPEGImages" / f"{name}.jpg", quality=92)
            mask.save(new / "SegmentationClass" / f"{name}.png")
        for split in ("train", "val", "trainval", "test"):
            ids = (name for index, name in enumerate(names) if SPLITS[index % 8] in split)
            write_ids(new, split, ids)
        (new / NOTE).write_text(request, newline="\n")
    return out


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m data.shapes", None, __doc__, formatter_class=how)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--images", type=int, default=300, help="1/8 each for val and test")
    parser.add_argument("--size", type=int, default=160, help="shorter side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other pictures")
    options = parser.parse_args()
    make_shapes(**vars(options))
    print(f"{options.out}: {options.images} pictures of {len(VOC)} classes")


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
