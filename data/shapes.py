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

# Each class is drawn by the function of its name, on a canvas of 400 x 400 pixels in these inks.
CANVAS = 400
NOTHING, BODY, DARK, LIGHT = 0, 1, 2, 3  # BODY gets colours and texture; later ink covers earlier


def disc(draw, x, y, radius, ink):
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), ink)


def wheel(draw, x, y, radius=45):
    disc(draw, x, y, radius, BODY)
    disc(draw, x, y, radius - 7, DARK)
    disc(draw, x, y, radius / 3, LIGHT)


def eye(draw, x, y, radius=29):
    disc(draw, x, y, radius, LIGHT)
    draw.ellipse((x - 12, y - 18, x + 12, y + 18), DARK)


def aeroplane(draw):
    draw.ellipse((160, 20, 240, 380), BODY)
    draw.polygon((200, 145, 371, 236, 371, 290, 200, 254, 29, 290, 29, 236), BODY)  # wings
    draw.polygon((200, 308, 281, 353, 281, 389, 200, 362, 119, 389, 119, 353), BODY)  # tail
    draw.ellipse((182, 49, 218, 99), LIGHT)


def bicycle(draw):
    for x in 92, 308:
        disc(draw, x, 254, 77, BODY)
        disc(draw, x, 254, 36, NOTHING)
    draw.line((92, 254, 157, 130, 265, 130, 200, 265, 157, 130), BODY, 36, joint="curve")
    draw.line((308, 254, 250, 92, 310, 92), BODY, 36, joint="curve")  # fork and handlebar
    draw.line((110, 110, 200, 110), BODY, 36)  # saddle


def bird(draw):
    draw.ellipse((74, 137, 290, 299), BODY)
    disc(draw, 283, 146, 59, BODY)
    draw.polygon((128, 182, 20, 137, 38, 254, 128, 272), BODY)  # tail
    draw.line((164, 270, 164, 345), BODY, 29)
    draw.line((227, 270, 227, 345), BODY, 29)
    draw.polygon((330, 128, 380, 157, 333, 175), DARK)  # beak
    eye(draw, 297, 132, 27)


def boat(draw):
    draw.polygon((20, 254, 380, 254, 308, 344, 74, 344), BODY)
    draw.polygon((182, 227, 182, 20, 56, 227), BODY)
    draw.polygon((218, 227, 218, 56, 326, 227), BODY)
    draw.line((200, 38, 200, 272), BODY, 36)  # mast
    for x in 128, 272:
        disc(draw, x, 290, 15, DARK)


def bottle(draw):
    draw.polygon((164, 20, 236, 20, 236, 74, 279, 160, 121, 160, 164, 74), BODY)
    draw.rounded_rectangle((121, 128, 279, 380), 30, BODY)
    draw.rounded_rectangle((162, 15, 238, 56), 8, DARK)  # cap
    draw.rounded_rectangle((150, 240, 250, 304), 10, LIGHT)  # label


def bus(draw):
    draw.rounded_rectangle((20, 92, 380, 290), 30, BODY)
    for x in 40, 124, 208, 292:
        draw.rounded_rectangle((x, 112, x + 68, 172), 8, LIGHT)
    wheel(draw, 106, 286)
    wheel(draw, 294, 286)


def car(draw):
    draw.rounded_rectangle((20, 184, 380, 281), 35, BODY)
    draw.polygon((74, 200, 128, 103, 272, 103, 326, 200), BODY)
    draw.polygon((110, 186, 146, 124, 189, 124, 189, 186), LIGHT)
    draw.polygon((290, 186, 254, 124, 211, 124, 211, 186), LIGHT)
    wheel(draw, 103, 279)
    wheel(draw, 297, 279)


def cat(draw):
    draw.ellipse((56, 121, 344, 351), BODY)
    draw.polygon((63, 218, 74, 38, 175, 128), BODY)  # ears
    draw.polygon((337, 218, 326, 38, 225, 128), BODY)
    eye(draw, 146, 211)
    eye(draw, 254, 211)
    draw.polygon((182, 254, 218, 254, 200, 272), DARK)
    draw.line((128, 283, 56, 272), DARK, 9)  # whiskers
    draw.line((272, 283, 344, 272), DARK, 9)


def chair(draw):
    draw.rounded_rectangle((94, 20, 148, 380), 12, BODY)  # back and hind leg
    draw.rounded_rectangle((96, 187, 304, 249), 15, BODY)
    draw.rounded_rectangle((252, 200, 306, 380), 12, BODY)


def cow(draw):
    draw.rounded_rectangle((65, 128, 299, 272), 40, BODY)
    draw.rounded_rectangle((65, 218, 119, 362), 10, BODY)
    draw.rounded_rectangle((227, 218, 281, 362), 10, BODY)
    draw.ellipse((277, 81, 375, 211), BODY)
    draw.polygon((290, 110, 279, 38, 326, 92), BODY)  # ears
    draw.polygon((335, 92, 376, 38, 369, 128), BODY)
    draw.line((80, 160, 30, 240), BODY, 32)  # tail
    draw.ellipse((304, 158, 369, 205), LIGHT)
    for x in 312, 348:
        disc(draw, x, 128, 10, DARK)


def diningtable(draw):
    draw.ellipse((20, 74, 380, 182), BODY)
    draw.rectangle((168, 150, 232, 320), BODY)
    draw.ellipse((92, 290, 308, 362), BODY)


def dog(draw):
    draw.ellipse((92, 70, 308, 330), BODY)
    for x in 81, 319:  # ears
        draw.ellipse((x - 49, 99, x + 49, 322), BODY)
        draw.ellipse((x - 26, 138, x + 26, 283), DARK)
    draw.ellipse((142, 214, 258, 308), LIGHT)
    draw.ellipse((175, 227, 225, 259), DARK)
    eye(draw, 157, 171)
    eye(draw, 243, 171)


def horse(draw):
    draw.ellipse((56, 153, 286, 283), BODY)
    draw.rounded_rectangle((65, 211, 119, 369), 10, BODY)
    draw.rounded_rectangle((227, 211, 281, 369), 10, BODY)
    draw.polygon((200, 200, 272, 38, 326, 74, 290, 254), BODY)  # neck
    draw.line((280, 75, 370, 122), BODY, 61)  # head
    draw.polygon((270, 74, 279, 13, 315, 56), BODY)
    draw.line((80, 195, 27, 308), BODY, 36)  # tail
    draw.line((255, 65, 210, 175), DARK, 22)  # mane
    disc(draw, 312, 84, 10, DARK)


def motorbike(draw):
    draw.polygon((27, 164, 157, 142, 236, 139, 272, 74, 319, 92, 326, 272, 92, 272), BODY)
    draw.line((240, 85, 320, 75), BODY, 36)  # handlebar
    draw.polygon((38, 160, 157, 142, 164, 171, 92, 182), DARK)  # saddle
    for x in 92, 308:
        disc(draw, x, 272, 72, BODY)
        wheel(draw, x, 272)


def person(draw):
    draw.ellipse((151, 20, 249, 121), BODY)
    draw.rounded_rectangle((135, 114, 265, 261), 25, BODY)
    draw.line((150, 139, 74, 225), BODY, 47)  # arms
    draw.line((250, 139, 326, 225), BODY, 47)
    draw.line((164, 236, 150, 365), BODY, 56)  # legs
    draw.line((236, 236, 250, 365), BODY, 56)
    disc(draw, 200, 74, 38, LIGHT)
    disc(draw, 186, 67, 7, DARK)
    disc(draw, 214, 67, 7, DARK)
    draw.line((186, 90, 214, 90), DARK, 7)


def pottedplant(draw):
    draw.polygon((110, 258, 290, 258, 254, 380, 146, 380), BODY)
    draw.polygon((200, 20, 268, 128, 200, 279, 132, 128), BODY)  # leaves
    draw.polygon((200, 279, 308, 254, 376, 128, 265, 164), BODY)
    draw.polygon((200, 279, 92, 254, 24, 128, 135, 164), BODY)
    draw.rounded_rectangle((110, 258, 290, 297), 8, DARK)


def sheep(draw):
    for x, y in (121, 178), (279, 178), (153, 236), (247, 236), (200, 142):
        disc(draw, x, y, 64, BODY)
    draw.rounded_rectangle((128, 260, 176, 358), 8, BODY)
    draw.rounded_rectangle((224, 260, 272, 358), 8, BODY)
    draw.ellipse((290, 103, 376, 211), BODY)
    draw.ellipse((294, 107, 372, 207), DARK)  # face
    disc(draw, 348, 142, 11, LIGHT)


def sofa(draw):
    draw.rounded_rectangle((70, 96, 330, 254), 25, BODY)
    draw.rounded_rectangle((18, 160, 94, 294), 20, BODY)
    draw.rounded_rectangle((306, 160, 382, 294), 20, BODY)
    draw.rectangle((40, 218, 360, 290), BODY)
    draw.rectangle((45, 290, 88, 330), BODY)  # feet
    draw.rectangle((312, 290, 355, 330), BODY)
    draw.line((100, 225, 300, 225), DARK, 9)


def train(draw):
    draw.rounded_rectangle((27, 63, 150, 286), 15, BODY)  # cab
    draw.rounded_rectangle((92, 150, 355, 286), 25, BODY)  # boiler
    draw.rectangle((276, 56, 330, 182), BODY)
    draw.polygon((340, 218, 384, 315, 312, 315), BODY)
    for x in 96, 200, 304:
        wheel(draw, x, 290)
    draw.rounded_rectangle((54, 94, 122, 160), 8, LIGHT)
    draw.rounded_rectangle((265, 56, 340, 90), 8, DARK)  # chimney


def tvmonitor(draw):
    draw.rounded_rectangle((24, 63, 376, 286), 25, BODY)
    draw.rectangle((168, 272, 232, 344), BODY)
    draw.rounded_rectangle((100, 315, 300, 366), 15, BODY)
    draw.polygon((56, 164, 135, 85, 171, 85, 56, 200), LIGHT)  # a reflection


OBJECTS = {  # how each class is drawn, in which colours and texture
    "aeroplane": (aeroplane, "blue", "bars"),
    "bicycle": (bicycle, "red", "bars"),
    "bird": (bird, "yellow", "zigzag"),
    "boat": (boat, "blue", "waves"),
    "bottle": (bottle, "green", "rings"),
    "bus": (bus, "yellow", "checks"),
    "car": (car, "red", "dots"),
    "cat": (cat, "amber", "poles"),
    "chair": (chair, "teal", "grid"),
    "cow": (cow, "brown", "blotches"),
    "diningtable": (diningtable, "amber", "waves"),
    "dog": (dog, "amber", "blotches"),
    "horse": (horse, "violet", "zigzag"),
    "motorbike": (motorbike, "pink", "checks"),
    "person": (person, "pink", "bars"),
    "pottedplant": (pottedplant, "green", "dots"),
    "sheep": (sheep, "cream", "speckle"),
    "sofa": (sofa, "violet", "checks"),
    "train": (train, "teal", "zigzag"),
    "tvmonitor": (tvmonitor, "blue", "speckle"),
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
