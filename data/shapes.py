"""A small drawn data set in PASCAL VOC layout, to try the project with no download.

    python -m data.shapes OUT
    python -m data.shapes OUT --images 600 --size 200 --seed 1

OUT then holds JPEGImages/ID.jpg, SegmentationClass/ID.png and ImageSets/Segmentation/SPLIT.txt, where SPLIT is train,
val, trainval or test. Each picture has 2 to 5 objects of VOC's 20 classes on a muted ground. A class has a form, a pair
of colours and a texture; some classes share colours and differ by texture, others the reverse, so that neither is
enough alone.
"""

import argparse
import colorsys
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data import DataError
from data.classes import VOC, VOID

# How hard the data set is. A jitter is the half-width of a uniform draw, one per object.
HUE_JITTER, SATURATION_JITTER, VALUE_JITTER = 12, 0.12, 0.12  # degrees, of 1, of 1
TURN_JITTER = 25  # degrees
TEXTURE_PERIOD, PERIOD_JITTER = 0.065, 0.2  # of the picture's shorter side, of the period
OBJECT_SCALE = 0.25, 0.65  # an object's longer side, of the picture's shorter side
GROUND_SATURATION, GROUND_VALUE = (0.05, 0.35), (0.45, 0.9)
MOST_HIDDEN = 0.4  # share of an earlier object that a later one may be drawn over, where there is room
PIXEL_NOISE = 4.0  # standard deviation, in grey levels

ASPECTS = (4 / 3, 4 / 3, 4 / 3, 3 / 4, 1)  # width / height, drawn uniformly: mostly landscape, as in VOC
MARGIN = 0.07  # of the shorter side: drawn around the picture and cut off, so that some objects leave it
FINE = 4  # forms are drawn this many times too large and reduced: smooth edges

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
TEXTURES = {  # patterns along and down an object, in periods: < 0 the first colour, > 0 the second, blended near 0
    "bars": lambda u, v: np.sin(2 * np.pi * v),
    "poles": lambda u, v: np.sin(2 * np.pi * u),
    "waves": lambda u, v: np.sin(2 * np.pi * (v + 0.25 * np.sin(np.pi * u))),
    "zigzag": lambda u, v: np.sin(2 * np.pi * (v + abs(u % 1.6 - 0.8))),
    "checks": lambda u, v: 3 * np.sin(np.pi * u) * np.sin(np.pi * v),
    "grid": lambda u, v: 4 * np.maximum(np.cos(2 * np.pi * u), np.cos(2 * np.pi * v)) - 2.6,
    "dots": lambda u, v: 0.5 + 2 * np.cos(1.2 * np.pi * (u + v)) * np.cos(1.2 * np.pi * (u - v)),
    "rings": lambda u, v: np.sin(2 * np.pi * np.hypot(u % 4 - 2, v % 4 - 2)),
    "blotches": lambda u, v: np.sin(2.9 * u + 2 * np.sin(1.3 * v)) + np.sin(2.7 * v + 2 * np.sin(1.7 * u + 1)),
    "speckle": lambda u, v: np.sin(7.5 * u + 2 * np.sin(3.4 * v)) + np.sin(7 * v + 2 * np.sin(4.4 * u + 1)),
}
# Colours, texture and form. A form is parts in a frame of -10..10, y down: o(val) x y rx ry, b(ox) x y rx ry,
# l(ine) x0 y0 x1 y1 width, p(olygon) x y x y ... A capital adds the part's mirror image; W x y is two wheels and
# E x y two eyes; `~` cuts a part out of the form, `.` and `*` only colour it dark and light.
OBJECTS = {
    "aeroplane": "blue bars o 0 0 2.2 10 P 0 -3 9.5 2 9.5 5 0 3 P 0 6 4.5 8.5 4.5 10.5 0 9 o* 0 -7 1 1.4",
    "bicycle": "red bars O 6 3 4.3 4.3 O~ 6 3 2 2 l -6 3 -2.4 -3.4 2 l -2.4 -3.4 3.6 -3.4 2 l 6 3 3 -6 2 "
    "l 3.6 -3.4 0 3.6 2 l -2.4 -4.4 0 3.6 2 l -4.6 -5 -.6 -5 2 l 2.2 -6 5.6 -6 2",
    "bird": "yellow zigzag o -1 1 6 4.5 o 4.6 -3 3.3 3.3 p -4 -1 -10 -3.5 -9 3 -4 3 p 7 -4.6 10 -2.4 7 -1 "
    "l -2 4 -2 8 1.6 l 1.5 4 1.5 8 1.6 p. 7.2 -4 10 -2.4 7.4 -1.4 o* 5.4 -3.8 1.5 1.5 o. 5.6 -3.8 .7 1",
    "boat": "blue waves p -10 3 10 3 6 8 -7 8 p -1 1.5 -1 -10 -8 1.5 p 1 1.5 1 -8 7 1.5 l 0 -9 0 4 2 O. 4 5 .8 .8",
    "bottle": "green rings b 0 -6 2 4 P 0 -7 2 -7 4.4 -2.5 0 -2.5 b 0 3 4.4 7 b. 0 -9 2 1 b* 0 4 2.8 1.8",
    "bus": "yellow checks b 0 -.5 10 5.5 W 5.2 4.8 B* 2.4 -3 2 1.6 B* 7 -3 1.8 1.6",
    "car": "red dots b 0 1.8 10 2.7 P 0 -5.4 4 -5.4 7 0 0 0 W 5.4 4.4 P* .6 -.8 .6 -4.2 3 -4.2 5 -.8",
    "cat": "amber poles o 0 2 8 6.4 P 7.6 1 7 -9 1.4 -4 E 3 .6 p. -1 3 1 3 0 4 L. 4 4.6 8 4 .5",
    "chair": "teal grid b -4.4 0 1.5 10 b 0 1 5.8 1.7 b 4.4 5 1.5 5",
    "cow": "brown blotches b -1 0 6.5 4 b -6 5 1.5 4 b 3 5 1.5 4 o 7 -3 2.7 3.6 p 5 -5 4.4 -9 7 -6 "
    "p 7.5 -6 9.8 -9 9.4 -4 l -7 -2 -9.6 2 1.8 o* 7.6 -1 1.8 1.3 o. 6.2 -4 .5 .6 o. 8.2 -4 .5 .6",
    "diningtable": "amber waves o 0 -4 10 3 b 0 2 1.8 5 o 0 7 6 2",
    "dog": "amber blotches o 0 0 6 7.2 O 6.6 .6 2.7 6.2 O. 6.6 .6 1.4 4 o* 0 3.4 3.2 2.6 o. 0 2.4 1.4 .9 E 2.4 -1.6",
    "horse": "violet zigzag o -1.6 1 6.4 3.6 b -6 5 1.5 4.4 b 3 5 1.5 4.4 p 0 0 4 -9 7 -7 5 3 l 5 -7 9 -4.6 3.4 "
    "p 4 -7 4.4 -10.4 6.4 -8 l -7 0 -9.6 6 2 o. 6.2 -6.6 .5 .6 l. 3.6 -8 1 -1.4 1.2",
    "motorbike": "pink checks O 6 4 4 4 p -9.6 -2 -2.4 -3.2 2 -3.4 4 -7 6.6 -6 7 4 0 5 -6 4 l 2.2 -6.6 6 -7 2 W 6 4 "
    "p. -9 -2.2 -2.4 -3.2 -2 -1.6 -6 -1",
    "person": "pink bars o 0 -7.2 2.7 2.8 b 0 -.7 3.6 4.1 L 2.8 -3.4 7 1.4 2.6 L 2 2 2.4 8.6 3.1 o* 0 -7 2.1 2.1 "
    "O. .8 -7.4 .3 .4 l. -.7 -6.1 .7 -6.1 .4",
    "pottedplant": "green dots P 0 3.2 5 3.2 3 10 0 10 P 0 4.4 6 3 9.8 -4 3.6 -2 P 0 -10 3.8 -4 0 4.4 b. 0 4.3 5 1.1",
    "sheep": "cream speckle O 4.4 -1.2 3.4 3.2 o 0 -3.2 4 3.4 O 2.6 2 4 3.2 B 2.6 6 1.3 2.8 o 7.4 -2.4 2.4 3 "
    "o. 7.4 -2.4 2.2 2.8 o* 8.2 -3.2 .6 .6",
    "sofa": "violet checks b 0 -1.4 7.2 4.4 B 8 1.5 2.1 3.7 b 0 3 9 2 B 7.4 5 1.2 2.2 l. -5.6 1.4 5.6 1.4 .5",
    "train": "teal zigzag b -6.2 -1.4 3.4 6.2 b 1.3 1 7.3 3.8 b 5.7 -4.5 1.5 3.5 p 7.8 1 10.2 6.4 6.2 6.4 W 5.8 5 "
    "W 0 5 b* -6.3 -4 1.9 1.8 b. 5.7 -7 2.1 .9",
    "tvmonitor": "blue speckle b 0 -1.4 9.8 6.2 b 0 6 1.8 2 b 0 7.8 5.6 1.4 p* -8 -2 -3.6 -6.4 -1.6 -6.4 -8 0",
}
SHORT = {"W": "O {0} 2.5 2.5 O. {0} 2.1 2.1 O* {0} .8 .8", "E": "O* {0} 1.6 1.6 O. {0} .7 1"}
STYLES = {"": (0, 255), "~": (0, 0), ".": (1, 0), "*": (1, 255)}  # layer (0 cover, 1 tone) and its grey level


def _parts(form: str) -> Iterator[tuple[int, int, np.ndarray]]:
    """The parts of a form in drawing order: layer, grey level and the corners x + iy of a polygon, complex (n,)."""
    circle = np.exp(1j * (np.arange(48) + 0.5) * np.pi / 24)
    form = re.sub(r"([WE]) (\S+ \S+)", lambda found: SHORT[found[1]].format(found[2]), form)
    for kind, style, text in re.findall(r"(\w)([~.*]?)([^a-zA-Z]+)", form):
        numbers = np.array(text.split(), float)
        start, end = numbers[:4].view(complex)
        if kind in "pP":
            corners = numbers.view(complex)
        elif kind in "lL":
            half = (end - start) / 2
            ends = np.sign(circle.real) * abs(half) + circle * numbers[4] / 2
            corners = start + half + ends * half / abs(half)
        else:
            x, y = (np.sign(side) * abs(side) ** (1 if kind in "oO" else 0.2) for side in (circle.real, circle.imag))
            corners = start + x * end.real + 1j * y * end.imag
        yield *STYLES[style], corners
        if kind.isupper():
            yield *STYLES[style], -corners.conj()


def _blur(plane: np.ndarray, radius: float) -> np.ndarray:
    """A plane of 0..1 under a Gaussian of this radius in pixels."""
    image = Image.fromarray((plane * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB 0..1, float32 (3,), of a hue in degrees and of a saturation and value, clipped to 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, *np.clip([saturation, value], 0, 1)), np.float32)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3): `first` where `share` (h, w) is 0, `second` where it is 1."""
    return first + share[..., None] * (second - first)


def _object(name: str, size: int, pad: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One object with `pad` pixels around it: RGB (h, w, 3) and cover (h, w), float 0..1."""
    colours, texture, form = OBJECTS[name].split(maxsplit=2)
    turn, flip = np.exp(1j * np.radians(rng.uniform(-TURN_JITTER, TURN_JITTER))), rng.choice([-1, 1])
    parts = [(layer, level, (z.real * flip + 1j * z.imag) * turn) for layer, level, z in _parts(form)]
    points = np.concatenate([z for *_, z in parts])
    low = complex(points.real.min(), points.imag.min())
    extent = np.array([np.ptp(points.real), np.ptp(points.imag)])
    scale = rng.uniform(*OBJECT_SCALE) * size / extent.max()
    width, height = (np.ceil(extent * scale).astype(int) + 2 * pad).tolist()

    layers = [Image.new("L", (width * FINE, height * FINE), ground) for ground in (0, 128)]
    for layer, level, z in parts:
        z = ((z - low) * scale + pad * (1 + 1j)) * FINE
        ImageDraw.Draw(layers[layer]).polygon(z.view(float).tolist(), fill=level)
    cover, tone = (np.asarray(layer.reduce(FINE), np.float32) / 255 for layer in layers)

    x, y = np.arange(width) - width / 2, np.arange(height)[:, None] - height / 2
    period = TEXTURE_PERIOD * size * rng.uniform(1 - PERIOD_JITTER, 1 + PERIOD_JITTER)
    along = (x + 1j * y) / turn / period + complex(*rng.uniform(0, 100, 2))
    share = np.clip(0.5 + 1.5 * TEXTURES[texture](along.real, along.imag), 0, 1)
    jitter = rng.uniform(-1, 1, 3) * (HUE_JITTER, SATURATION_JITTER, VALUE_JITTER)
    rgb = _mix(*(_rgb(*colour + jitter) for colour in COLOURS[colours]), share)
    rgb = _mix(rgb, np.where(tone > 0.5, 0.96, 0.13)[..., None], 0.85 * abs(2 * tone - 1))
    light = 0.1 - 0.2 * (x / width + y / height)  # from the upper left
    rim = np.clip(1.55 - 1.7 * _blur(cover, size / 80), 0, 1)  # darker towards the outline
    return np.clip(rgb * (1 + light - 0.55 * rim)[..., None], 0, 1), cover


def _noise(shape: tuple[int, int], down: float, across: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about 0..1, float32 (h, w), that changes over so many pixels."""
    coarse = rng.random((int(shape[0] / down) + 2, int(shape[1] / across) + 2), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def _ground(shape: tuple[int, int], size: int, rng: np.random.Generator) -> np.ndarray:
    """A muted background, RGB float (h, w, 3) 0..1: a gradient, clouds, soft stripes, grass or bricks."""
    y, x = np.mgrid[: shape[0], : shape[1]] / size
    angle = rng.uniform(0, 2 * np.pi)
    slope = x * np.cos(angle) + y * np.sin(angle)
    slope = (slope - slope.min()) / np.ptp(slope)
    clouds = sum(part * _noise(shape, part * size, part * size, rng) for part in (0.5, 0.25, 0.125)) / 0.875
    grass = 0.7 * _noise(shape, 0.08 * size, 0.015 * size, rng) + 0.6 * clouds - 0.15
    stripes = 0.3 + 0.3 * np.sin(slope * rng.uniform(25, 50)) + 0.4 * clouds
    y, x = np.stack([y, x / 2.2]) / rng.uniform(0.08, 0.13)
    x = x + y.astype(int) % 2 / 2  # every second row is half a brick further
    bricks = 0.5 * rng.random((32, 32))[y.astype(int) % 32, x.astype(int) % 32]
    bricks[np.minimum(y % 1, x % 1 * 2.2) < 0.12] = 1  # mortar
    share = (slope, 2 * clouds - 0.5, stripes, grass, bricks)[rng.integers(5)]
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(*GROUND_SATURATION), rng.uniform(*GROUND_VALUE)
    second = _rgb(hue + rng.uniform(-40, 40), saturation * rng.uniform(0.5, 1), value + rng.choice([-0.2, 0.2]))
    return _mix(_rgb(hue, saturation, value), second, np.clip(share, 0, 1)) * (0.92 + 0.16 * slope[..., None])


def _split(index: int) -> str:
    """The list that picture `index` is in: of eight in a row, the fourth validates, the last tests, six train."""
    return {3: "val", 7: "test"}.get(index % 8, "train")


def _names(index: int, seed: int, rng: np.random.Generator) -> list[str]:
    """The classes of picture `index`: 0 to 3 at will, then 2 from its split's deck, which deals all 20 in turn."""
    at_will = rng.choice(list(OBJECTS), rng.integers(4)).tolist()
    split = _split(index)
    deck, card = divmod(2 * sum(_split(earlier) == split for earlier in range(index)), len(OBJECTS))
    cards = np.random.default_rng([seed, deck, 2, *split.encode()]).permutation(list(OBJECTS))
    return at_will + cards[card : card + 2].tolist()


def _picture(index: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `index`: RGB, uint8 (h, w, 3), and its mask of class values and VOID, uint8 (h, w)."""
    rng = np.random.default_rng([seed, index, 1])
    aspect = rng.choice(ASPECTS)
    margin, pad = max(1, round(MARGIN * size)), 1 + size // 32
    shape = tuple(round(size * max(1, side)) + 2 * margin for side in (1 / aspect, aspect))
    rgb, instances, values = _ground(shape, size, rng), np.zeros(shape, np.uint8), [0]
    for name in _names(index, seed, rng):
        colours, cover = _object(name, size, pad, rng)
        inside, areas = cover >= 0.5, np.bincount(instances.ravel(), minlength=len(values))
        wished, spots = max(0, rng.uniform(-MOST_HIDDEN, MOST_HIDDEN)), []  # half of them hide nothing
        for _ in range(8):
            top, left = (rng.integers(n - m + 1) for n, m in zip(shape, cover.shape))
            spot = np.s_[top : top + cover.shape[0], left : left + cover.shape[1]]
            hidden = np.bincount(instances[spot][inside], minlength=len(values))[1:] / np.maximum(areas[1:], 1)
            spots.append((abs(hidden.max(initial=0) - wished), spot))
        _, spot = min(spots, key=lambda scored: scored[0])
        shadow = np.roll(_blur(cover, size / 60), (pad // 2, pad // 2), (0, 1))
        rgb[spot] = _mix(rgb[spot] * (1 - 0.35 * shadow[..., None]), colours, cover)
        instances[spot][inside] = len(values)
        values.append(VOC.names.index(name))
    crop = np.s_[margin:-margin, margin:-margin]
    instances = Image.fromarray(instances[crop])
    rgb = rgb[crop] * 255 + rng.normal(0, PIXEL_NOISE, (*instances.size[::-1], 1))
    window = 2 * max(1, round(size / 180)) + 1  # outlines are void this wide
    edges = instances.filter(ImageFilter.MaxFilter(window)), instances.filter(ImageFilter.MinFilter(window))
    mask = np.where(np.not_equal(*edges), VOID, np.array(values)[np.asarray(instances)])
    return np.clip(rgb, 0, 255).astype(np.uint8), mask.astype(np.uint8)


def make_shapes(out: Path, images: int = 300, size: int = 160, seed: int = 0) -> Path:
    """Draw the data set into folder `out` and return it; what an equal call has completed there is kept as it is.

    `size` is the pictures' shorter side in pixels. Equal seeds draw equal files, and fewer images the first of more;
    of eight in a row the fourth goes to `val`, the last to `test` and the others to `train`.

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
            rgb, mask = (Image.fromarray(array) for array in _picture(index, size, seed))
            mask.putpalette(VOC.palette())
            rgb.save(out / "JPEGImages" / f"{name}.jpg", quality=92)
            mask.save(out / "SegmentationClass" / f"{name}.png")
        for split in ("test", "val", "train", "trainval"):  # trainval last: now it is complete
            ids = [name for index, name in enumerate(names) if _split(index) in split]
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), newline="\n")
    except OSError as error:
        raise DataError(f"{error.filename or out}: cannot be written ({error.strerror or error})") from None
    return out


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.shapes",
        description="Draw a small data set in PASCAL VOC layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--images", type=int, default=300, help="how many pictures; an eighth each for val and test")
    parser.add_argument("--size", type=int, default=160, help="shorter side of a picture, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other pictures")
    options = parser.parse_args()
    try:
        make_shapes(**vars(options))
    except DataError as error:
        print(f"data.shapes: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {options.images} pictures of {len(VOC)} classes, shorter side {options.size} pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
