"""Odd input that simply works, and bad input: exit code 2, one line, and nothing saved is lost."""

import shutil
from collections.abc import Callable
from errno import EMFILE
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torchvision.models import squeezenet1_1

from data.classes import VOC
from data.features import read_features
from data.voc_files import read_ids
from models.run import folder
from tests.conftest import BACKBONE, DATA, STEPS, change_head, change_masks, cut, full_disk
from tests.data.conftest import files_in, turned_by

# In the street: its parts, by the words that the table spoils them under.
FIRST = "shapes_000000"
IMAGE = Path(f"shapes/JPEGImages/{FIRST}.jpg")
MASK = Path(f"shapes/SegmentationClass/{FIRST}.png")
LIST, CLASSES = Path("shapes/ImageSets/Segmentation/train.txt"), Path("shapes/classes.txt")
SHEET = "contact_sheet.jpg"
OF_SHEET = ("--image", SHEET, "--contact-sheet")
LISTS = "test, train, trainval, val"
FEATURES, CONFIG = Path("run/1_features/features.npy"), Path("run/1_features/config.json")
EXTRACTOR = Path("run/1_features/backbone.pt")
DENSE, BEST, LAST = Path("run/2_cls/dense.pt"), Path("run/3_seg/best.pt"), Path("run/3_seg/last.pt")
UNICODE = "Ein Bild – 图像 é"

ALL = tuple(STEPS)
ONE, TWO, THREE, FOUR, FIVE = ([step] for step in ALL)
LISTED = ("sample_features", "train_seg", "evaluate", "visualize")  # check a split at the start
# Read all of it before they replace anything; step 1 last, as it makes the network outdated.
READ = ("evaluate", "sample_features")
BOTH = ("train_cls", "train_seg")
LATER = ("train_seg", "evaluate", "visualize")  # use the network of step 2
SPLIT = (*DATA, "--split", "train")
QUICK = {
    "sample_features": (*SPLIT, *BACKBONE),
    "train_cls": ("--epochs", 1, "--hidden", 8),
    "train_seg": (*SPLIT, "--epochs", 1, "--limit", 4, "--val-limit", 1),
    "evaluate": (*SPLIT, "--limit", 2, "--save-predictions"),
    "visualize": (*SPLIT, "--limit", 1),
}


class Bomb:
    """Empties a file when unpickled: stands for any code."""

    def __reduce__(self):
        return open, (str(LAST), "w")


def command(step: str, *flags) -> tuple:
    """The step's script with flags that make it quick."""
    quick = () if "--image" in flags else QUICK[step]
    return f"{step}.py", "--run", "run", *quick, *flags


def refused(fails: Callable[..., str], step: str, *flags) -> str:
    """The line with which a step fails; it makes no folder, and what was in the run is there."""
    before, beside = files_in(Path()), {*Path().iterdir()}
    line = fails(*command(step, *flags))
    assert before.items() <= files_in(Path()).items() and {*Path().iterdir()} == beside
    return line


def made(make: tuple | Callable[[], Any]) -> tuple:
    """Flags, or how input is spoilt in the street; the flags that a step is given then."""
    flags = make if isinstance(make, tuple) else make()
    return flags if isinstance(flags, tuple) else ()


def then(make: Callable[[], Any], *flags) -> Callable[[], tuple]:
    return lambda: (make(), flags)[1]


def written(path: Path, text: str) -> Callable[[], Any]:
    return partial(path.write_text, text)


def filed(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("mine")


def converted(path: Path, mode: str, form: str | None = None) -> None:
    Image.open(path).convert(mode).save(path, form)


def of_size(width: int, height: int, turn: int = 1) -> None:
    """Upright it has the size of its mask."""
    sides = (width, height) if turn == 1 else (height, width)
    Image.new("RGB", sides, "teal").save(IMAGE, exif=turned_by(turn))
    Image.new("P", (width, height), 3).save(MASK, compress_level=1)


def label(value: int, where=np.s_[0, 0]) -> None:
    mask = np.array(Image.open(MASK))
    mask[where] = value
    Image.fromarray(mask).save(MASK)


def renumbered_mask() -> None:
    """As an image editor saves it: the colours are right, their indices are not."""
    mask = Image.open(MASK)
    turned = Image.fromarray(255 - np.array(mask))
    turned.putpalette(np.uint8(mask.getpalette()).reshape(-1, 3)[::-1].tobytes())
    turned.save(MASK)


def edited_list() -> None:
    ids = LIST.read_bytes().split()
    LIST.write_bytes(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(ids) + b"\r\n\r\n")


def weights_of_nan() -> None:
    state = squeezenet1_1(weights=None).state_dict()
    state["features.0.weight"][0] = float("nan")
    torch.save(state, "a.pth")


UNREADABLE, BAD_MASK = (f"{path}: cannot be read as an image" for path in (IMAGE, MASK))
SMALL_MASK, HEIC, BMP = partial(Image.new("P", (30, 20)).save, MASK), Path("a.heic"), Path("a.bmp")
IPHONE, TINY, ALL_VOID = "\0\0\0\x18ftypheic", partial(of_size, 1, 1), partial(label, 255, ...)
# The header of a picture 2**20 pixels wide and as high.
HUGE = b"BM" + bytes(12) + b"\x28\0\0\0" + 2 * b"\0\0\x10\0" + b"\1\0\x18\0" + bytes(24)
VALID, MASKS = "shapes_000003", partial(change_masks, "shapes")
BINARY = partial(MASKS, lambda values: 255 * (values > 0))
SAME = (f"run/4_eval/predictions/{VALID}.png", MASK.with_stem(VALID))
DAMAGED = "cannot be read as a checkpoint"
NEWER, FEW = "written by another version (format 99", "8 pixels are too few for"
OTHER = "background\n" + "\n".join(f"thing{index}" for index in range(20))
FEWER, MORE = "\n".join(VOC.names[:20]), "\n".join([*VOC.names, "sky"])
NEW, OLDER = {"format": 99, "kind": "segmenter"}, {"_use_new_zipfile_serialization": False}
OF_NAN = partial(change_head, BEST, lambda weights: weights * np.nan)
BOMB = {"format": 1, "kind": "segmenter", "state": Bomb()}
PROGRAM, NINES = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "9" * 5000
NOT_PLAIN = "cannot be read as a checkpoint file of plain tensors and values"
LABELS = FEATURES.with_name("labels.npy")
ONLY = "all pixels to train on are of one class (number 3"
NO_TV = partial(MASKS, lambda values: np.where(values == 20, 0, values))
NO, SGD, TUNE = "has no effect", ("--optimizer", "sgd"), "--finetune-backbone"
REFUSED = {  # the mistake: (how it is made, the steps that refuse it, part of their line)
    "no data": (("--data", "run"), LISTED, "run: no data set in VOC layout there (JPEGImages"),
    "unknown split": (("--split", "holiday"), LISTED, f"'holiday'; lists there: {LISTS}"),
    "no image": (IMAGE.unlink, LISTED, f"{IMAGE}: no such file"),
    "no mask": (MASK.unlink, LISTED, f"{MASK}: no such file"),
    "image is text": (written(IMAGE, "no picture"), LISTED, UNREADABLE),
    "image is a program": (written(IMAGE, PROGRAM), READ, UNREADABLE),
    "truncated image": (partial(cut, IMAGE), READ, UNREADABLE),
    "truncated mask": (partial(cut, MASK), READ, BAD_MASK),
    "mask is a JPEG": (partial(converted, MASK, "L", "JPEG"), READ, BAD_MASK),
    "mask of another size": (SMALL_MASK, LISTED, f"{MASK}: the mask is 30x20 but"),
    "mask in RGB": (partial(converted, MASK, "RGB"), READ, f"{MASK}: a mask must be a PNG of pal"),
    "mask renumbered": (renumbered_mask, READ, f"{MASK}: its palette is renumbered: "),
    "label 21": (partial(label, 21), READ, f"{MASK}: label 21 is outside the cl"),
    "all masks void": (partial(MASKS, lambda x: x | 255), READ, "of train have no labelled pixel"),
    "binary masks": (BINARY, READ, "the masks hold only 0 and 255"),
    "empty list": (written(LIST, "\n\n"), LISTED, f"{LIST}: the list is empty"),
    "id with ../": (written(LIST, "../x\n"), LISTED, f"{LIST}: '../x' is not an image id"),
    "id twice": (written(LIST, "a\nb\na\n"), LISTED, f"{LIST}: id 'a' is listed twice"),
    "id that colours": (written(LIST, "a\x1b[31mb\n"), ONE, r"'a\x1b[31mb' is not an image id"),
    "class that colours": (written(CLASSES, "a\nb\x1b[31m\n"), ONE, f"{CLASSES}, line 2"),
    "endless colour": (written(CLASSES, f"a\nb {NINES} 1 2\n"), ONE, f"{CLASSES}, line 2"),
    "other classes": (written(CLASSES, OTHER), LATER, "1 is 'thing0' there but 'aeroplane' in"),
    "fewer classes": (written(CLASSES, FEWER), FOUR, "20 is 'none' there but 'tvmonitor' in"),
    "more classes": (written(CLASSES, MORE), FOUR, "21 is 'sky' there but 'none' in"),
    "best.pt empty": (partial(cut, BEST, 0), FOUR, f"{BEST}: {DAMAGED}"),
    "best.pt cut at its end": (partial(cut, BEST, 9), FOUR, f"{BEST}: {DAMAGED}"),
    "last.pt cut": (then(partial(cut, LAST), "--resume"), THREE, f"{LAST}: {DAMAGED}"),
    "best.pt is a bomb": (partial(torch.save, BOMB, BEST), LATER[1:], f"{BEST}: {NOT_PLAIN}"),
    "best.pt is an older bomb": (partial(torch.save, BOMB, BEST, **OLDER), FOUR, NOT_PLAIN),
    "best.pt of tomorrow": (partial(torch.save, NEW, BEST), LATER[1:], f"{BEST}: {NEWER}"),
    "network of nan": (OF_NAN, LATER[1:], "the network's scores are not finite; are its"),
    "no weights": (("--weights", "no.pth"), ONE, "no.pth: no such weights"),
    "weights of nan": (then(weights_of_nan, "--weights", "a.pth"), ONE, "'s weights damaged?"),
    "small size": (("--size", 8), [*ONE, *THREE, *FOUR], f"--size: {FEW}"),
    "small tile": (("--tile", 8), FOUR, f"--tile: {FEW}"),
    "small window": (("--tile", 31), FOUR, "--tile 31: a window needs at least 32"),
    "small crop": (("--crop", 8), THREE, f"--crop: {FEW}"),
    "absent tap": (("--taps", "1,9"), ONE, "squeezenet1_1 has taps 1 to 4"),
    "fewer features": (lambda: np.save(FEATURES, np.load(FEATURES)[1:]), TWO, "numbers of rows"),
    "nan features": (lambda: np.save(FEATURES, np.load(FEATURES) * np.nan), TWO, "the loss is nan"),
    "rate far too high": (("--lr", 1000, "--epochs", 60), TWO, "try a smaller --lr"),
    "one class": (lambda: np.save(LABELS, np.load(LABELS) * 0 + 3), TWO, ONLY),
    "masks of one class": (partial(MASKS, lambda x: x * 0 + 3), ONE, ONLY),
    "features of nothing": (("--run", "b", "--features", "a"), TWO, "a/1_features: step 1 has not"),
    "features of others": (("--features", "a"), TWO, "run has a step 1 of its own; use another"),
    "2_cls is a file": (partial(filed, DENSE.parent), TWO, "run/2_cls: is a file, but"),
    "3_seg is a file": (partial(filed, LAST.parent), THREE, "run/3_seg: is a file, but"),
    "no config.json": (CONFIG.unlink, TWO, "run/1_features: step 1 has not finished"),
    "config.json of tomorrow": (written(CONFIG, '{"format": 99}'), ALL[1:], f"{CONFIG}: {NEWER}"),
    "config.json of others": (written(CONFIG, "[1]"), TWO, f"{CONFIG}: cannot be read"),
    "config.json cut": (partial(cut, CONFIG), ALL[1:], "; run step 1 again: python sample_f"),
    "step 1 was not run": (("--run", "new"), TWO, "first: python sample_features.py --run new"),
    "step 2 was not run": (("--run", "new"), LATER, "; run it first: python train_cls.py"),
    "momentum alone": (("--momentum", 0.5), BOTH, f"--momentum: {NO} without --optimizer sgd"),
    "nesterov alone": (("--nesterov",), BOTH, f"--nesterov: {NO} without --optimizer sgd"),
    "nesterov of 0": ((*SGD, "--momentum", 0, "--nesterov"), BOTH, f"{NO} with --momentum 0"),
    "milestones alone": (("--milestones", 1), BOTH, f"--milestones: {NO} without --decay step"),
    "gamma alone": (("--gamma", 0.5), BOTH, f"--gamma: {NO} without --decay step"),
    "late milestone": (("--decay", "step", "--milestones", 9), BOTH, "9 is not before the last of"),
    "stages alone": (("--frozen-stages", 1), THREE, f"{NO} without {TUNE}"),
    "rate alone": (("--backbone-lr", 0.1), THREE, f"{NO} without {TUNE}"),
    "absent stage": ((TUNE, "--frozen-stages", 4), THREE, "4: there are 4 stages"),
    "absent device": (("--device", "cuda:77"), ALL, "cuda:77: not available here; use auto"),
    "no classifier": (("--checkpoint", EXTRACTOR), FOUR, f"{EXTRACTOR}: an extractor alone; name"),
    "network of predictions": (("--predictions", "a"), FOUR, "not allowed with argument --pre"),
    "absent photo": (("--image", "a.jpg"), FIVE, "a.jpg: no such file"),
    "photos of one name": (("--image", *SAME), FIVE, f"2 files are called '{VALID}.png'"),
    "HEIC photo": (then(written(HEIC, IPHONE), "--image", HEIC), FIVE, "HEIC photos are"),
    "huge photo": (then(partial(BMP.write_bytes, HUGE), "--image", BMP), FIVE, "cut it into parts"),
    "photo of our name": (("--image", "run/4_eval", "--recursive"), FIVE, f"{VALID}: a name that"),
    "photo of the sheet": (lambda: (shutil.copy(IMAGE, SHEET), OF_SHEET)[1], FIVE, "sheet: a name"),
    "photos beside others": (("--image", IMAGE, "--out", "run/4_eval"), FIVE, "would be replaced"),
    "beside others": (("--out", "run/2_cls"), FIVE, "run/2_cls/config.json: would be replaced"),
    "photos by score": (("--image", IMAGE, "--sort", "worst"), FIVE, "needs scores, which --image"),
    "photos as truth": (("--image", IMAGE, "--truth"), FIVE, "not allowed with argument --truth"),
    "report of photos": (("--image", IMAGE, "--report"), FIVE, f"--report: {NO} without --run and"),
    "author alone": (("--author", "me"), FIVE, f"--author: {NO} without --report"),
    "unknown class": (("--classes", "dog,fish"), FIVE, "--classes: 'fish' is no class here; there"),
    "absent class": (then(NO_TV, "--classes", "tvmonitor"), FIVE, "in none of the 18 images"),
}


@pytest.mark.parametrize("make, steps, words", REFUSED.values(), ids=REFUSED)
def test_refused(make, steps, words, street, fails):
    flags = made(make)
    for step in steps:
        assert words in refused(fails, step, *flags)


WORKS = {  # what is odd: (how it is made, steps)
    "CMYK JPEG": (partial(converted, IMAGE, "CMYK"), READ),
    "EXIF-rotated image": (partial(of_size, 60, 90, 6), READ),
    "1x1 image": (TINY, ALL),
    "1x1 photo": (then(TINY, "--image", IMAGE), FIVE),
    "3000x2000 image": (partial(of_size, 3000, 2000), FOUR),
    "a mask all void": (ALL_VOID, ("visualize", *READ)),
    "Windows line ends, blank lines, BOM": (edited_list, READ),
}


@pytest.mark.parametrize("make, steps", WORKS.values(), ids=WORKS)
def test_works(make, steps, street, succeeds):
    flags = made(make)
    for step in steps:
        succeeds(*command(step, *flags))
    if "sample_features" in steps:
        ids = FEATURES.with_name("images.txt").read_text(encoding="utf-8").split("\n")[:-1]
        assert ids == read_ids(Path("shapes"), "train")
        sampled = {*read_features(FEATURES.parent).pixels[:, 0].tolist()}
        assert sampled == {*range(1 if make is ALL_VOID else 0, 18)}
    if "evaluate" in steps:
        prediction = Image.open(f"run/4_eval/predictions/{FIRST}.png")
        assert prediction.size == Image.open(MASK).size


def test_names_with_spaces_and_unicode(street, succeeds):
    for path in (IMAGE, MASK):
        path.rename(path.with_name(UNICODE + path.suffix))
    LIST.write_text(LIST.read_text().replace(FIRST, UNICODE), encoding="utf-8")
    data, run = Path("shapes").rename("die Daten 数据"), Path("run").rename("Läufe – ñ")
    for step in ALL:
        flags = () if step == "train_cls" else ("--data", data)
        said = succeeds(*command(step), *flags, "--run", run)
        assert f"wrote {run}/" in said and (step in FIVE or said.endswith("--run 'Läufe – ñ'\n"))
    assert (run / "4_eval" / "predictions" / f"{UNICODE}.png").is_file()


PLACES = [(step, Path("run", place)) for step, place in folder.STEPS.values()]


@pytest.mark.parametrize("step, place", PLACES)
def test_a_folder_where_another_run_writes_is_left_to_it(step, place, street, fails):
    with FileLock(f"run/.{place.name}.lock"):
        line = refused(fails, step)
    assert f"{place}: another process is writing there; wait, or use another --run" in line


ROOMS = [("sample_features", 1024), ("train_cls", 16), ("train_seg", 16), ("train_seg", 1024)]


@pytest.mark.parametrize("step, kib", [*ROOMS, ("evaluate", 0.1), ("visualize", 0.1)])
def test_a_full_disk_leaves_what_is_finished(step, kib, street, fails):
    before = files_in(Path())
    with full_disk(1024 * kib):
        line = fails(*command(step))
    assert ": File too large" in line and "run/" in line and ".new/" not in line
    assert not list(Path("run").rglob(".*.part"))
    for path in (DENSE, BEST, LAST):
        aside = Path("run/3_seg.1", path.name)
        assert (aside if aside.is_file() else path).read_bytes() == before[path.as_posix()]


def test_what_the_system_refuses_is_no_damage_of_a_photo(street, fails, monkeypatch):
    monkeypatch.setattr(Image, "open", mock.Mock(side_effect=OSError(EMFILE, "Too many")))
    line = fails(*command("evaluate"))
    assert "Too many" in line and "damaged" not in line
