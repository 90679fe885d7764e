"""A small drawn data set in PASCAL VOC layout, to try the project with no download.

    python -m data.shapes OUT
    python -m data.shapes OUT --images 600 --size 200 --seed 1

OUT then holds JPEGImages/ID.jpg, SegmentationClass/ID.png and ImageSets/Segmentation/SPLIT.txt,
where SPLIT is train, val, trainval or test. Each picture has 2 to 5 objects of VOC's 20 classes on
a muted ground. Each class has a shape, a pair of colours and a texture. Classes with the same
colours differ in texture and classes with the same texture in colours: neither alone is enough.
"""

import argparse
import colorsys
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from data import DataError
from data.classes import VOC, VOID
from data.objects import BODY, CANVAS, DARK, LIGHT, OBJECTS

# How hard the data set is. A jitter is the half-width of a uniform draw, one per object.
HUE_JITTER, SATURATION_JITTER, VALUE_JITTER = 12, 0.12, 0.12  # degrees, of 1, of 1
TURN_JITTER = 25  # degrees
TEXTURE_PERIOD, PERIOD_JITTER = 0.065, 0.2  # of the picture's shorter side, of the period
OBJECT_SCALE = 0.28, 0.72  # an object's longer side, of the picture's shorter side
MARGIN = 0.04  # of the shorter side: how far an object may leave the picture
TRIES = 6  # random places for an object; it gets the one where it hides the least of the others
PIXEL_NOISE = 4.0  # standard deviation, in grey levels
ASPECTS = (4 / 3, 4 / 3, 4 / 3, 3 / 4, 1)  # width / height, drawn uniformly: mostly landscape

COLOURS = {  # an object's two colours: hue in degrees, saturation and value 0..1
    "red": ((2, 0.78, 0.85), (20, 0.20, 0.98)),
    "amber": ((26, 0.75, 0.92), (18, 0.75, 0.45)),
    "yellow": ((46, 0.82, 0.95), (28, 0.85, 0.80)),
    "green": ((130, 0.65, 0.60), (100, 0.45, 0.92)),
    "teal": ((174, 0.65, 0.70), (165, 0.20, 0.95)),
    "blue": ((212, 0.75, 0.85), (205, 0.15, 0.98)),
    "violet": ((280, 0.50, 0.72), (290, 0.14, 0.96)),
    "pink": ((330, 0.68, 0.88), (335, 0.14, 0.98)),
    "brown": ((30, 0.10, 0.95), (20, 0.40, 0.32)),
    "cream": ((45, 0.08, 0.98), (40, 0.14, 0.74)),
}
PI, sin, cos = np.pi, np.sin, np.cos
TEXTURES = {  # of x and y in periods: below 0 the first colour, above 0 the second, blended near 0
    "bars": lambda x, y: sin(2 * PI * y),
    "poles": lambda x, y: sin(2 * PI * x),
    "waves": lambda x, y: sin(2 * PI * (y + 0.25 * sin(PI * x))),
    "zigzag": lambda x, y: sin(2 * PI * (y + abs(x % 1.6 - 0.8))),
    "checks": lambda x, y: 3 * sin(PI * x) * sin(PI * y),
    "grid": lambda x, y: 4 * np.maximum(cos(2 * PI * x), cos(2 * PI * y)) - 2.6,
    "dots": lambda x, y: 0.5 + 2 * cos(1.2 * PI * (x + y)) * cos(1.2 * PI * (x - y)),
    "rings": lambda x, y: sin(2 * PI * np.hypot(x % 4 - 2, y % 4 - 2)),
    "blotches": lambda x, y: sin(2.9 * x + 2 * sin(1.3 * y)) + sin(2.7 * y + 2 * sin(1.7 * x + 1)),
    "speckle": lambda x, y: sin(7.5 * x + 2 * sin(3.4 * y)) + sin(7 * y + 2 * sin(4.4 * x + 1)),
}


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB 0..1, (3,), of a hue in degrees and of a saturation and value, clipped to 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, *np.clip([saturation, value], 0, 1)))


def _mix(first: np.ndarray | float, second: np.ndarray | float, share: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3): `first` where `share` (h, w) is 0, `second` where it is 1."""
    return first + share[..., None] * (second - first)


def _image(rgb: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * np.clip(rgb, 0, 1)).astype(np.uint8))


def _object(name: str, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """An object, turned and scaled: its RGB image, and an L image of where it covers the ground."""
    draw_shape, colours, texture = OBJECTS[name]
    canvas = Image.new("L", (CANVAS, CANVAS))
    draw_shape(ImageDraw.Draw(canvas))
    if rng.random() < 0.5:
        canvas = ImageOps.mirror(canvas)
    turn = rng.uniform(-TURN_JITTER, TURN_JITTER)
    canvas = canvas.rotate(turn, expand=True)
    canvas = ImageOps.expand(canvas.crop(canvas.getbbox()), CANVAS // 25)
    scale = rng.uniform(*OBJECT_SCALE) * size / max(canvas.size)
    width, height = (round(side * scale) for side in canvas.size)

    def share_of(*inks: int) -> Image.Image:
        where = Image.fromarray(np.isin(canvas, inks).astype(np.uint8) * 255)
        return where.resize((width, height), Image.BOX)

    cover, dark, light = share_of(BODY, DARK, LIGHT), share_of(DARK), share_of(LIGHT)
    rim = np.asarray(cover.filter(ImageFilter.GaussianBlur(size / 80))) / 255

    y, x = np.mgrid[:height, :width]
    period = TEXTURE_PERIOD * size * rng.uniform(1 - PERIOD_JITTER, 1 + PERIOD_JITTER)
    turned = (x + 1j * y) * np.exp(1j * np.radians(turn)) / period
    along, down = turned.real + rng.uniform(0, 100), turned.imag + rng.uniform(0, 100)
    share = np.clip(0.5 + 1.5 * TEXTURES[texture](along, down), 0, 1)
    jitter = rng.uniform(-1, 1, 3) * (HUE_JITTER, SATURATION_JITTER, VALUE_JITTER)
    rgb = _mix(*(_rgb(*colour + jitter) for colour in COLOURS[colours]), share)
    rgb = _mix(rgb, 0.13, 0.85 / 255 * np.asarray(dark))
    rgb = _mix(rgb, 0.96, 0.85 / 255 * np.asarray(light))
    lamp = 1.3 - 0.2 * (x / width + y / height)  # from the upper left
    outline = 0.55 * np.clip(1.55 - 1.7 * rim, 0, 1)  # darker towards the outline
    return _image(rgb * (lamp - outline)[..., None]), cover


def _ground(width: int, height: int, size: int, rng: np.random.Generator) -> Image.Image:
    """A muted background: a gradient, clouds, soft stripes, grass or bricks in two colours."""

    def noise(down: float, across: float) -> np.ndarray:
        """Smooth noise of about 0..1 that changes over so many picture sides."""
        coarse = rng.random((int(2 / down) + 2, int(2 / across) + 2), dtype=np.float32)
        box = (0, 0, width / size / across, height / size / down)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC, box))

    y, x = np.mgrid[:height, :width] / size
    angle = rng.uniform(0, 2 * PI)
    slope = x * cos(angle) + y * sin(angle)
    slope = (slope - slope.min()) / np.ptp(slope)
    clouds = (4 * noise(0.5, 0.5) + 2 * noise(0.25, 0.25) + noise(0.125, 0.125)) / 7
    stripes = 0.3 + 0.3 * sin(slope * rng.uniform(25, 50)) + 0.4 * clouds
    grass = 0.7 * noise(0.08, 0.015) + 0.6 * clouds - 0.15
    row = y / rng.uniform(0.08, 0.13)
    column = x / 0.25 + row.astype(int) % 2 / 2  # every second row is half a brick further
    bricks = 0.5 * rng.random((32, 32))[row.astype(int) % 32, column.astype(int) % 32]
    bricks[np.minimum(row % 1, column % 1 * 2.2) < 0.12] = 1  # mortar
    share = (slope, 2 * clouds - 0.5, stripes, grass, bricks)[rng.integers(5)]
    hue, saturation, value = rng.uniform((0, 0.05, 0.45), (360, 0.35, 0.9))
    first = _rgb(hue, saturation, value)
    second = _rgb(hue + rng.uniform(-40, 40), 0.75 * saturation, value + rng.choice([-0.2, 0.2]))
    return _image(_mix(first, second, np.clip(share, 0, 1)) * (0.92 + 0.16 * slope[..., None]))


def _split(index: int) -> str:
    """The list of picture `index`: of eight in a row six train, one validates and one tests."""
    return {3: "val", 7: "test"}.get(index % 8, "train")


def _names(index: int, seed: int, rng: np.random.Generator) -> list[str]:
    """The classes of picture `index`: 0 to 3 random ones, and 2 from its split's deck of all 20.

    Each deck is shuffled and dealt in turn, so that every split soon has every class.
    """
    split = _split(index)
    dealt = 2 * sum(_split(earlier) == split for earlier in range(index))
    deck, card = divmod(dealt, len(OBJECTS))
    cards = np.random.default_rng([seed, deck, 2, *split.encode()]).permutation(list(OBJECTS))
    extra = rng.choice(list(OBJECTS), rng.integers(4))
    return [*extra.tolist(), *cards[card : card + 2].tolist()]


def _picture(index: int, size: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """Picture `index` in RGB, and its mask of class values and VOID with VOC's palette."""
    rng = np.random.default_rng([seed, index, 1])
    aspect, margin, drop = rng.choice(ASPECTS), round(MARGIN * size), 1 + size // 64
    width, height = round(size * max(1, aspect)), round(size * max(1, 1 / aspect))
    picture, instances = _ground(width, height, size, rng), Image.new("L", (width, height))
    values = [0]  # of each instance
    for name in _names(index, seed, rng):
        colours, cover = _object(name, size, rng)
        inside = cover.point(lambda value: 255 * (value >= 128))
        places = []
        for _ in range(TRIES):
            left = rng.integers(-margin, width - cover.width + margin + 1).item()
            top = rng.integers(-margin, height - cover.height + margin + 1).item()
            there = instances.crop((left, top, left + cover.width, top + cover.height))
            hidden = np.logical_and(there, inside).sum()
            places.append((hidden, left, top))
        _, left, top = min(places)
        shadow = Image.new("L", picture.size)
        shadow.paste(90, (left + drop, top + drop), cover)
        picture.paste("black", mask=shadow.filter(ImageFilter.GaussianBlur(size / 60)))
        picture.paste(colours, (left, top), cover)
        instances.paste(len(values), (left, top), inside)
        values.append(VOC.names.index(name))
    noisy = np.asarray(picture) + rng.normal(0, PIXEL_NOISE, (height, width, 1))
    window = 2 * max(1, round(size / 180)) + 1  # pixels: outlines are void this wide
    highest = instances.filter(ImageFilter.MaxFilter(window))
    lowest = instances.filter(ImageFilter.MinFilter(window))
    mask = np.where(np.not_equal(highest, lowest), VOID, np.array(values)[np.asarray(instances)])
    mask = Image.fromarray(mask.astype(np.uint8))
    mask.putpalette(VOC.palette())
    return _image(noisy / 255), mask


def make_shapes(out: Path, images: int = 300, size: int = 160, seed: int = 0) -> Path:
    """Draw the data set into folder `out` and return it; a finished equal one is kept as it is.

    `size` is the pictures' shorter side in pixels. Equal seeds draw equal files, and fewer images
    are the first of more. Of eight in a row the fourth goes to `val`, the last to `test` and the
    others to `train`.

    Raises:
        DataError: images < 1, size < 32 or seed < 0; `out` holds other data, or cannot be written.
    """
    for name, value, least in (("images", images, 1), ("size", size, 32), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"{name} is {value}; it must be at least {least}")
    out = Path(out)
    note, lists = out / "shapes.json", out / "ImageSets" / "Segmentation"
    request = json.dumps({"images": images, "size": size, "seed": seed}) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (note.is_file() and note.read_bytes() == request.encode()):
            raise DataError(f"{out}: already holds other data; give another folder or delete it")
        if (lists / "trainval.txt").is_file():
            return out
        note.write_text(request, newline="\n")
        for folder in (out / "JPEGImages", out / "SegmentationClass", lists):
            folder.mkdir(parents=True, exist_ok=True)
        names = [f"shapes_{index:06d}" for index in range(images)]
        for index, name in enumerate(names):
            picture, mask = _picture(index, size, seed)
            picture.save(out / "JPEGImages" / f"{name}.jpg", quality=92)
            mask.save(out / "SegmentationClass" / f"{name}.png")
        for split in ("test", "val", "train", "trainval"):  # trainval last: now it is complete
            ids = [name for index, name in enumerate(names) if _split(index) in split]
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), newline="\n")
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written ({error.strerror or error})"
        ) from None
    return out


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.shapes",
        description="Draw a small data set in PASCAL VOC layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument(
        "--images", type=int, default=300, help="pictures; 1/8 each for val and test"
    )
    parser.add_argument(
        "--size", type=int, default=160, help="shorter side of a picture, in pixels"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other pictures")
    options = parser.parse_args()
    try:
        make_shapes(**vars(options))
    except DataError as error:
        print(f"data.shapes: {error}", file=sys.stderr)
        return error.exit_code
    size = f"shorter side {options.size} pixels"
    print(f"{options.out}: {options.images} pictures of {len(VOC)} classes, {size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
