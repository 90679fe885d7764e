"""Odd and bad input, a row each: what simply works, and what ends with exit code 2, one line and nothing lost."""

import contextlib
import ctypes
import json
import os
import resource
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_0

from data.features import read_features
from data.images import EXIF_ORIENTATION
from models.checkpoint import load_segmenter
from tests import test_mistakes
from tests.conftest import Bomb

fails, trained = test_mistakes.fails, test_mistakes.trained

ALL = ("sample_features", "train_cls", "train_seg", "evaluate", "visualize")
LISTED = ("sample_features", "train_seg", "evaluate", "visualize")  # they check a whole split before they begin
READ = ("sample_features", "evaluate")  # they read every image before they replace anything
UNICODE = "Ein Bild – 图像 é"
CAP_VERSION, CAP_DAC_OVERRIDE = 0x20080522, 1 << 1  # of Linux' capget and capset


class Place:
    """A data set and a run after all five steps, for a row to spoil; `image` and `mask` are the first ones."""

    def __init__(self, data: Path, run: Path):
        self.data, self.run = data, run
        self.list = data / "ImageSets" / "Segmentation" / "train.txt"
        self.ids = self.list.read_text(encoding="utf-8").split("\n")[:-1]
        self.image = data / "JPEGImages" / f"{self.ids[0]}.jpg"
        self.mask = data / "SegmentationClass" / f"{self.ids[0]}.png"
        self.features, self.config = run / "1_features" / "features.npy", run / "1_features" / "config.json"
        self.dense = run / "2_cls" / "dense.pt"
        self.best, self.last = run / "3_seg" / "best.pt", run / "3_seg" / "last.pt"

    def command(self, step: str, *flags) -> tuple:
        """The step's script with flags that make it quick."""
        split = ("--data", self.data, "--split", "train", "--workers", "0")
        own = {
            "sample_features": (*split, *test_mistakes.BACKBONE),
            "train_cls": ("--epochs", "1", "--hidden", "8"),
            "train_seg": (*split, "--epochs", "1", "--limit", "4", "--val-limit", "1"),
            "evaluate": (*split, "--limit", "2", "--save-predictions"),
            "visualize": (*(() if "--image" in flags else split), "--limit", "1"),
        }
        return f"{step}.py", "--run", self.run, *own[step], *flags

    def saved(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def walked(trained, drawn, in_process) -> Path:
    """The run with the last two steps as well; not to be changed: see `at`."""
    for step in ALL[3:]:
        done = in_process(*Place(drawn, trained).command(step))
        assert done.returncode == 0, done.stderr
    return trained


@pytest.fixture
def at(walked, shapes, tmp_path) -> Place:
    return Place(shapes, Path(shutil.copytree(walked, tmp_path / "run")))


# How mistakes are made: each function gets the place, and may return flags that the step needs for it.


def text(part: str, content: str, at: Place) -> None:
    getattr(at, part).write_text(content)


def cut(part: str, tenths: int, at: Place) -> None:
    path = getattr(at, part)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenths // 10])


def converted(mode: str, suffix: str, at: Place) -> None:
    picture = Image.open(at.image).convert(mode)
    at.image.unlink()
    picture.save(at.image.with_suffix(suffix))


def png_inside(at: Place) -> None:
    Image.open(at.image).save(at.image, "PNG")


def sixteen_bits(at: Place) -> None:
    grey = np.asarray(Image.open(at.image).convert("L")).astype(np.uint16)
    at.image.unlink()
    Image.fromarray(grey << 8).save(at.image.with_suffix(".png"))


def turned(at: Place) -> None:
    """On disk red is on the left and blue on the right; upright, red is on top."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture = Image.new("RGB", (90, 60), "blue")
    picture.paste("red", (0, 0, 45, 60))
    picture.save(at.image, exif=exif)
    Image.new("P", (60, 90), 3).save(at.mask)


def of_size(width: int, height: int, at: Place) -> None:
    Image.new("RGB", (width, height), "teal").save(at.image)
    Image.new("P", (width, height), 3).save(at.mask, compress_level=1)


def as_own_photo(make, at: Place) -> tuple:
    make(at)
    return "--image", at.image


def label(value: int, at: Place) -> None:
    mask = np.array(Image.open(at.mask))
    mask[0, 0] = value
    Image.fromarray(mask).save(at.mask)


def void(images: int, at: Place) -> None:
    for image_id in at.ids[:images]:
        path = at.mask.with_name(f"{image_id}.png")
        Image.new("L", Image.open(path).size, 255).save(path)


def moved(at: Place) -> None:
    for path in (at.image, at.mask):
        path.rename(path.with_name(UNICODE + path.suffix))
    at.list.write_text(at.list.read_text().replace(at.ids[0], UNICODE), encoding="utf-8")
    at.__init__(at.data.rename(at.data.parent / "die Daten 数据"), at.run.rename(at.run.parent / "Läufe – ñ"))


def edited_list(at: Place) -> None:
    at.list.write_bytes(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(name.encode() for name in at.ids) + b"\r\n\r\n")


def bomb(at: Place) -> None:
    torch.save({"format": 1, "kind": "segmenter", "state": Bomb(at.last)}, at.best)  # run, it would empty last.pt


def other_weights(at: Place) -> tuple:
    torch.save(squeezenet1_0(weights=None).state_dict(), at.data / "other.pth")
    return "--weights", at.data / "other.pth"


def changed_features(change, at: Place) -> None:
    np.save(at.features, change(np.load(at.features)))


def with_row(value: float, features: np.ndarray) -> np.ndarray:
    features[5] = value
    return features


def changed_config(at: Place) -> None:
    at.config.write_text(json.dumps({**json.loads(at.config.read_text()), "format": 99}))


def resumed(make, at: Place) -> tuple:
    make(at)
    return ("--resume",)


# What is true after rows that work.


def scored(at: Place) -> bool:
    prediction = Image.open(at.run / "4_eval" / "predictions" / f"{at.ids[0]}.png")
    return prediction.size == Image.open(at.mask).size


def used(at: Place) -> bool:
    store = read_features(at.features.parent, 21)
    images = (at.features.parent / "images.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return images == at.ids and set(store.pixels[:, 0]) == set(range(len(at.ids))) and scored(at)


def left_out(at: Place) -> bool:
    return set(np.load(at.features.with_name("pixels.npy"))[:, 0]) == set(range(1, len(at.ids))) and scored(at)


def drawn_page(at: Place) -> bool:
    return Image.open(at.run / "5_overlays" / f"{at.ids[0]}.png").width > 300


def upright_page(at: Place) -> bool:
    page = np.asarray(Image.open(at.run / "5_overlays" / f"{at.ids[0]}.png")).astype(int)
    photo = page[:, : page.shape[1] // 2]
    red, blue = (np.argwhere((photo[..., channel] > 200) & (photo.sum(-1) < 330)).mean(0) for channel in (0, 2))
    return red[0] + 100 < blue[0] and abs(red[1] - blue[1]) < 5


UNREADABLE, DAMAGED = "{0.image}: cannot be read as an image", "cannot be read as a checkpoint"
TABLE = {  # the mistake: (how it is made, steps, exit code, part of the message or what holds afterwards)
    "no image": (lambda at: at.image.unlink(), LISTED, 2, "{0.image}: no image for id"),
    "no mask": (lambda at: at.mask.unlink(), LISTED, 2, "{0.mask}: no mask for id"),
    "image is text": (partial(text, "image", "not a picture"), LISTED, 2, UNREADABLE),
    "truncated JPEG": (partial(cut, "image", 5), READ, 2, UNREADABLE),
    "truncated mask": (partial(cut, "mask", 5), READ, 2, "{0.mask}: cannot be read as an image"),
    "JPEG that is a PNG": (png_inside, READ, 0, used),
    "grey JPEG": (partial(converted, "L", ".jpg"), READ, 0, used),
    "CMYK JPEG": (partial(converted, "CMYK", ".jpg"), READ, 0, used),
    "RGBA image": (partial(converted, "RGBA", ".png"), READ, 0, used),
    "16-bit image": (sixteen_bits, READ, 0, used),
    "EXIF-rotated image": (turned, READ, 0, used),
    "EXIF-rotated photo": (partial(as_own_photo, turned), ("visualize",), 0, upright_page),
    "1x1 image": (partial(of_size, 1, 1), ALL, 0, lambda at: used(at) and drawn_page(at)),
    "1x1 photo": (partial(as_own_photo, partial(of_size, 1, 1)), ("visualize",), 0, drawn_page),
    "8000x6000 image": (partial(of_size, 8000, 6000), ("evaluate",), 0, scored),
    "8000x6000 photo": (partial(as_own_photo, partial(of_size, 8000, 6000)), ("visualize",), 0, drawn_page),
    "mask of another size": (
        lambda at: Image.new("P", (30, 20)).save(at.mask), LISTED, 2, "{0.mask}: the mask is 30x20 but its image"
    ),
    "mask in RGB": (
        lambda at: Image.open(at.mask).convert("RGB").save(at.mask), READ, 2, "{0.mask}: a mask must be a PNG of"
    ),
    **{
        f"label {value}": (partial(label, value), READ, 2, f"{{0.mask}}: label {value} is outside the classes 0..20")
        for value in (21, 128, 254)
    },
    "a mask all void": (partial(void, 1), (*READ, "visualize"), 0, left_out),
    "all masks void": (partial(void, 99), (*READ, "train_seg"), 2, "of train have no labelled pixel"),
    "spaces and unicode": (moved, ALL, 0, lambda at: used(at) and drawn_page(at)),
    "Windows line ends, blank lines, BOM": (edited_list, ALL, 0, used),
    "empty list": (partial(text, "list", "\n\n"), LISTED, 2, "{0.list}: the list is empty"),
    "id with ../": (partial(text, "list", "../x\n"), LISTED, 2, "{0.list}: '../x' is not an image id"),
    "id twice": (partial(text, "list", "a\nb\na\n"), LISTED, 2, "{0.list}: id 'a' is listed twice"),
    **{
        f"best.pt cut at {tenths}/10": (partial(cut, "best", tenths), ("evaluate",), 2, "{0.best}: " + DAMAGED)
        for tenths in range(10)
    },
    "dense.pt cut": (partial(cut, "dense", 5), ("train_seg",), 2, "{0.dense}: " + DAMAGED),
    "last.pt cut": (partial(resumed, partial(cut, "last", 5)), ("train_seg",), 2, "{0.last}: " + DAMAGED),
    "best.pt is a bomb": (bomb, ("evaluate", "visualize"), 2, "{0.best}: not a checkpoint file of plain tensors"),
    "best.pt is a pickled module": (
        lambda at: torch.save(torch.nn.Linear(2, 2), at.best), ("evaluate", "visualize"), 2, "it could run code"
    ),
    "best.pt of a newer format": (
        lambda at: torch.save({"format": 99, "kind": "segmenter"}, at.best),
        ("evaluate", "visualize"), 2, "{0.best}: written by a newer version (format 99",
    ),
    "no weights": (lambda at: ("--weights", at.data / "no"), ("sample_features",), 2, "{0.data}/no: no such weights"),
    "weights of another network": (other_weights, ("sample_features",), 2, "are these weights of another backbone?"),
    "fewer features than labels": (
        partial(changed_features, lambda features: features[:-1]), ("train_cls",), 2, "labels.npy has shape"
    ),
    **{
        f"{value} in features": (
            partial(changed_features, partial(with_row, value)),
            ("train_cls",), 2, "{0.features}: row 5 holds a value that is not finite",
        )
        for value in (float("nan"), float("inf"))
    },
    "config.json of a newer version": (
        changed_config, ("train_cls", "evaluate"), 2, "{0.config}: written by a newer version (format 99"
    ),
    "config.json is no JSON": (
        partial(text, "config", "size: 48\n"), ("train_cls", "evaluate"), 2, "{0.config}: cannot be read"
    ),
    "config.json cut": (partial(cut, "config", 5), ("train_cls", "evaluate"), 2, "{0.config}: cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("make, steps, code, expected", TABLE.values(), ids=TABLE)
def test_input(make, steps, code, expected, at, in_process, fails):
    flags = make(at) or ()
    before = at.saved()
    for step in steps:
        if code == 2:
            assert expected.format(at) in fails(*at.command(step, *flags))
            assert before.items() <= at.saved().items()
        else:
            done = in_process(*at.command(step, *flags))
            assert (done.returncode, done.stderr) == (code, "")
    assert code or expected(at)


@contextlib.contextmanager
def no_power_over_permissions() -> Iterator[None]:
    """For the block, permissions bind this thread even where it is root's (Linux: without CAP_DAC_OVERRIDE)."""
    if os.geteuid():
        yield
        return
    libc, header, rights = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAP_VERSION, 0), (ctypes.c_uint32 * 6)()
    if not hasattr(libc, "capget") or libc.capget(header, rights):
        pytest.skip("root's rights cannot be taken away here")
    effective = rights[0]
    try:
        rights[0] &= ~CAP_DAC_OVERRIDE
        libc.capset(header, rights)
        yield
    finally:
        rights[0] = effective
        libc.capset(header, rights)


@pytest.mark.parametrize("step", ALL)
def test_a_run_folder_that_may_not_be_written(step, at, fails):
    before = at.saved()
    folders = [at.run, *filter(Path.is_dir, at.run.rglob("*"))]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with no_power_over_permissions():
            line = fails(*at.command(step))
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert str(at.run) in line and "Permission denied" in line
    assert at.saved() == before


@pytest.mark.parametrize(
    "step, room",
    [
        ("sample_features", 1 << 16),  # not all features
        ("sample_features", 1 << 20),  # the features, but not backbone.pt
        ("train_cls", 1 << 16),  # nothing of a network
        ("train_cls", 1 << 20),  # half of one
        ("train_seg", 1 << 16),
        ("train_seg", 1 << 20),
        ("evaluate", 100),
    ],
)
def test_a_full_disk(step, room, at, fails):
    before = at.saved()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # what is written beyond fails, as on a full disk
    try:
        line = fails(*at.command(step))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large; what was finished before is kept" in line
    after = at.saved()
    assert not [path for path in after if path.suffix == ".part"]
    for path in (at.dense, at.best, at.last):
        assert after[path] == before[path]
        load_segmenter(path)
