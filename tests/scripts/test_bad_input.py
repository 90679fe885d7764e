"""Odd input that simply works, and bad input: exit code 2, one line, and nothing saved is lost."""

import json
import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from errno import EMFILE, ENODEV
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torchvision.models import squeezenet1_1

from data.features import read_features
from data.image_files import EXIF_ORIENTATION
from data.voc_files import read_ids
from tests.conftest import BACKBONE, DATA, STEPS, Bomb, change_masks

# In the street: its parts, by the words that the table spoils them under.
FIRST = "shapes_000000"
IMAGE = Path(f"shapes/JPEGImages/{FIRST}.jpg")
MASK = Path(f"shapes/SegmentationClass/{FIRST}.png")
LIST, CLASSES = Path("shapes/ImageSets/Segmentation/train.txt"), Path("shapes/classes.txt")
LISTS = "test, train, trainval, val"
FEATURES, CONFIG = Path("run/1_features/features.npy"), Path("run/1_features/config.json")
DENSE, BEST, LAST = Path("run/2_cls/dense.pt"), Path("run/3_seg/best.pt"), Path("run/3_seg/last.pt")
UNICODE = "Ein Bild – 图像 é"

ALL = tuple(STEPS)
ONE, TWO, THREE, FOUR, FIVE = ([step] for step in ALL)
FOLDERS = ("1_features", "2_cls", "3_seg", "4_eval", "5_overlays")
LISTED = ("sample_features", "train_seg", "evaluate", "visualize")  # check a split at the start
# Read all of it before they replace anything; step 1 last, as it makes the network outdated.
READ = ("evaluate", "sample_features")
LATER = ("train_seg", "evaluate", "visualize")  # use the network of step 2
SPLIT = (*DATA, "--split", "train")
QUICK = {
    "sample_features": (*SPLIT, *BACKBONE),
    "train_cls": ("--epochs", 1, "--hidden", 8),
    "train_seg": (*SPLIT, "--epochs", 1, "--limit", 4, "--val-limit", 1),
    "evaluate": (*SPLIT, "--limit", 2, "--save-predictions"),
    "visualize": (*SPLIT, "--limit", 1),
}


def command(step: str, *flags) -> tuple:
    """The step's script with flags that make it quick."""
    quick = () if "--image" in flags else QUICK[step]
    return f"{step}.py", "--run", "run", *quick, *flags


def refused(fails: Callable[..., str], step: str, *flags) -> str:
    """The line with which a step fails; what was in the run before is still there."""
    before = saved()
    line = fails(*command(step, *flags))
    assert before.items() <= saved().items()
    return line


def saved() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


# How input is spoilt, in the street; some return flags that the step needs for it.


def given(*flags) -> Callable[[], tuple]:
    return lambda: flags


def written(path: Path, text: str) -> Callable[[], None]:
    return lambda: path.write_text(text) and None


def photo(make: Callable[[], None], path=IMAGE) -> Callable[[], tuple]:
    """A photo for step 5."""
    return lambda: make() or ("--image", path)


def cut(path: Path, tenths: int = 5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenths // 10])


def converted(path: Path, mode: str, form: str | None = None) -> None:
    Image.open(path).convert(mode).save(path, form)


def turned() -> None:
    """On disk red is on the left and blue on the right; upright, red is on top."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture = Image.new("RGB", (90, 60), "blue")
    picture.paste("red", (0, 0, 45, 60))
    picture.save(IMAGE, exif=exif)
    Image.new("P", (60, 90), 3).save(MASK)


def of_size(width: int, height: int) -> None:
    Image.new("RGB", (width, height), "teal").save(IMAGE)
    Image.new("P", (width, height), 3).save(MASK, compress_level=1)


def large_photo() -> None:
    Image.new("1", (1, 1)).save("a.png")
    content = bytearray(Path("a.png").read_bytes())
    content[16:24] = struct.pack(">2I", 2**20, 2**20)  # its width and height, by the header
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    Path("a.png").write_bytes(content)


def label(value: int, where=np.s_[0, 0]) -> None:
    mask = np.array(Image.open(MASK))
    mask[where] = value
    Image.fromarray(mask).save(MASK)


def renumbered_mask() -> None:
    """As an image editor saves it: the colours are right, their indices are not."""
    mask = Image.open(MASK)
    palette = np.reshape(mask.getpalette(), (-1, 3))
    turned = Image.fromarray(255 - np.array(mask))
    turned.putpalette(palette[::-1].ravel().tolist())
    turned.save(MASK)


def edited_list() -> None:
    ids = LIST.read_bytes().split()
    LIST.write_bytes(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(ids) + b"\r\n\r\n")


def weights_of_nan() -> tuple:
    state = squeezenet1_1(weights=None).state_dict()
    state["features.0.weight"][0] = float("nan")
    torch.save(state, "weights.pth")
    return "--weights", "weights.pth"


def photos_of_one_name() -> tuple:
    for folder in ("one", "other"):
        Path(folder).mkdir()
        Path(folder, "a.png").touch()
    return "--image", "one/a.png", "other/a.png"


def network_of_nan() -> None:
    content = torch.load(BEST, weights_only=True)
    content["state"]["head.layers.0.weight"][0] = float("nan")
    torch.save(content, BEST)


def newer_config() -> None:
    CONFIG.write_text(json.dumps({**json.loads(CONFIG.read_text()), "format": 99}))


def features(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    return lambda: np.save(FEATURES, change(np.load(FEATURES)))


def masks(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    return partial(change_masks, "shapes", change)


UNREADABLE, BAD_MASK = (f"{path}: cannot be read as an image" for path in (IMAGE, MASK))
SMALL_MASK, HEIC = partial(Image.new("P", (30, 20)).save, MASK), Path("a.heic")
DAMAGED = "cannot be read as a checkpoint"
NEWER, FEW = "written by another version (format 99", "8 pixels are too few for"
OTHER = "background\n" + "\n".join(f"thing{index}" for index in range(20))
NEW, OLDER = {"format": 99, "kind": "segmenter"}, {"_use_new_zipfile_serialization": False}
BOMB = {"format": 1, "kind": "segmenter", "state": Bomb(LAST)}
PROGRAM, NINES = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "9" * 5000
NOT_PLAIN = "not a checkpoint file of plain tensors and values, so it was not loaded"
REFUSED = {  # the mistake: (how it is made, the steps that refuse it, part of their line)
    "no data": (given("--data", "run"), LISTED, "run: no data set in VOC layout there (JPEGImages"),
    "unknown split": (given("--split", "holiday"), LISTED, f"'holiday'; lists there: {LISTS}"),
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
    "all masks void": (masks(lambda mask: mask * 0 + 255), READ, "of train have no labelled pixel"),
    "binary masks": (masks(lambda mask: 255 * (mask > 0)), READ, "the masks hold only 0 and 255"),
    "empty list": (written(LIST, "\n\n"), LISTED, f"{LIST}: the list is empty"),
    "id with ../": (written(LIST, "../x\n"), LISTED, f"{LIST}: '../x' is not an image id"),
    "id twice": (written(LIST, "a\nb\na\n"), LISTED, f"{LIST}: id 'a' is listed twice"),
    "id that colours": (written(LIST, "a\x1b[31mb\n"), ONE, r"'a\x1b[31mb' is not an image id"),
    "class that colours": (written(CLASSES, "a\nb\x1b[31m\n"), ONE, f"{CLASSES}, line 2"),
    "endless colour": (written(CLASSES, f"a\nb {NINES} 1 2\n"), ONE, f"{CLASSES}, line 2"),
    "other classes": (written(CLASSES, OTHER), LATER, "1 is 'thing0' there but 'aeroplane' in"),
    "best.pt empty": (partial(cut, BEST, 0), FOUR, f"{BEST}: {DAMAGED}"),
    "best.pt cut at its end": (partial(cut, BEST, 9), FOUR, f"{BEST}: {DAMAGED}"),
    "dense.pt cut": (partial(cut, DENSE), THREE, f"{DENSE}: {DAMAGED}"),
    "last.pt cut": (lambda: cut(LAST) or ("--resume",), THREE, f"{LAST}: {DAMAGED}"),
    "best.pt is a bomb": (partial(torch.save, BOMB, BEST), LATER[1:], f"{BEST}: {NOT_PLAIN}"),
    "best.pt is an older bomb": (partial(torch.save, BOMB, BEST, **OLDER), FOUR, NOT_PLAIN),
    "best.pt of tomorrow": (partial(torch.save, NEW, BEST), LATER[1:], f"{BEST}: {NEWER}"),
    "network of nan": (network_of_nan, LATER[1:], "the network's scores are not finite; are its"),
    "no weights": (given("--weights", "no.pth"), ONE, "no.pth: no such weights"),
    "weights of nan": (weights_of_nan, ONE, "backbone's weights damaged?"),
    "small size": (given("--size", 8), [*ONE, *THREE, *FOUR], f"--size: {FEW}"),
    "small tile": (given("--tile", 8), FOUR, f"--tile: {FEW}"),
    "small window": (given("--tile", 31), FOUR, "--tile 31: a window needs at least 32"),
    "small crop": (given("--crop", 8), THREE, f"--crop: {FEW}"),
    "absent tap": (given("--taps", "1,9"), ONE, "squeezenet1_1 has taps 1 to 4"),
    "fewer features than labels": (features(lambda x: x[:-1]), TWO, "labels.npy has shape"),
    "features of nan": (features(lambda x: x * np.nan), TWO, "the loss is nan"),
    "rate far too high": (given("--lr", 1000, "--epochs", 60), TWO, "try a smaller --lr"),
    "no config.json": (CONFIG.unlink, TWO, "run/1_features: step 1 has not finished"),
    "config.json of tomorrow": (newer_config, ALL[1:], f"{CONFIG}: {NEWER}"),
    "config.json of something else": (written(CONFIG, "[1]"), TWO, f"{CONFIG}: cannot be read"),
    "config.json cut": (partial(cut, CONFIG), ALL[1:], "; run step 1 again: python sample_f"),
    "absent device": (given("--device", "cuda:77"), ALL, "cuda:77: not available here; use auto"),
    "absent photo": (given("--image", "a.jpg"), FIVE, "a.jpg: no such file"),
    "photos of one name": (photos_of_one_name, FIVE, "2 files are called 'a.png'"),
    "HEIC photo": (photo(written(HEIC, "\0\0\0\x18ftypheic"), HEIC), FIVE, "HEIC photos are"),
    "photo that fills the memory": (photo(large_photo, "a.png"), FIVE, "exceeds limit of"),
}


@pytest.mark.parametrize("make, steps, words", REFUSED.values(), ids=REFUSED)
def test_refused(make, steps, words, street, fails):
    flags = make() or ()
    for step in steps:
        assert words in refused(fails, step, *flags)


def used() -> bool:
    """Every image has its features, and the first its prediction."""
    ids = FEATURES.with_name("images.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return ids == read_ids(Path("shapes"), "train") and sampled() == {*range(18)} and scored()


def sampled() -> set[int]:
    """The numbers of the images that have features."""
    return {*read_features(FEATURES.parent).pixels[:, 0].tolist()}


def scored() -> bool:
    prediction = Image.open(f"run/4_eval/predictions/{FIRST}.png")
    return prediction.size == Image.open(MASK).size


def all_but_the_first_are_used() -> bool:
    return sampled() == {*range(1, 18)} and scored()


def drawn_page(place: str = "5_overlays") -> bool:
    return Image.open(f"run/{place}/{FIRST}.png").width > 300


def upright_page() -> bool:
    page = np.asarray(Image.open(f"run/photos/{FIRST}.png")).astype(int)
    picture = page[:, : page.shape[1] // 2]
    red, blue = (
        np.argwhere((picture[..., channel] > 200) & (picture.sum(-1) < 330)).mean(0)
        for channel in (0, 2)
    )
    return red[0] + 100 < blue[0] and abs(red[1] - blue[1]) < 5


WORKS = {  # what is odd: (how it is made, steps, what holds after them)
    "CMYK JPEG": (partial(converted, IMAGE, "CMYK"), READ, used),
    "EXIF-rotated image": (turned, READ, used),
    "EXIF-rotated photo": (photo(turned), FIVE, upright_page),
    "1x1 image": (partial(of_size, 1, 1), ALL, lambda: used() and drawn_page()),
    "1x1 photo": (photo(partial(of_size, 1, 1)), FIVE, partial(drawn_page, "photos")),
    "3000x2000 image": (partial(of_size, 3000, 2000), ("evaluate",), scored),
    "a mask all void": (partial(label, 255, ...), ("visualize", *READ), all_but_the_first_are_used),
    "Windows line ends, blank lines, BOM": (edited_list, READ, used),
}


@pytest.mark.parametrize("make, steps, holds", WORKS.values(), ids=WORKS)
def test_works(make, steps, holds, street, succeeds):
    flags = make() or ()
    for step in steps:
        succeeds(*command(step, *flags))
    assert holds()


def test_names_with_spaces_and_unicode(street, succeeds):
    for path in (IMAGE, MASK):
        path.rename(path.with_name(UNICODE + path.suffix))
    LIST.write_text(LIST.read_text().replace(FIRST, UNICODE), encoding="utf-8")
    data, run = Path("shapes").rename("die Daten 数据"), Path("run").rename("Läufe – ñ")
    for step in ALL:
        flags = () if step == "train_cls" else ("--data", data)
        said = succeeds(*command(step), *flags, "--run", run)
        assert f"wrote {run}/" in said
        if step in ("sample_features", "train_seg", "evaluate"):
            assert said.endswith("--run 'Läufe – ñ'\n")
    assert (run / "4_eval" / "predictions" / f"{UNICODE}.png").is_file()


@pytest.mark.parametrize("step, needs", list(zip(ALL[1:], (1, 2, 2, 2))))
def test_a_step_out_of_order_is_refused_and_makes_no_folder(step, needs, street, fails):
    line = fails(*command(step), "--run", "new")
    assert f"step {needs} has not finished there; run it first: python {ALL[needs - 1]}.py" in line
    assert not Path("new").exists()


PLACES = [(step, Path("run", place)) for step, place in zip(ALL, FOLDERS)]


@pytest.mark.parametrize("step, place", PLACES[1:3])
def test_a_folder_that_is_a_file_is_named(step, place, street, fails):
    shutil.rmtree(place)
    place.write_text("mine")
    assert f"{place}: " in fails(*command(step)) and place.read_text() == "mine"


@pytest.mark.parametrize("step, place", PLACES)
def test_a_folder_where_another_run_writes_is_left_to_it(step, place, street, fails):
    with FileLock(f"run/.{place.name}.lock"):
        line = refused(fails, step)
    assert f"{place}: another process is writing there; wait, or use another --run" in line


ROOMS = [("sample_features", 1024), ("train_cls", 16), ("train_seg", 16), ("train_seg", 1024)]


@pytest.mark.parametrize("step, kib", [*ROOMS, ("evaluate", 0.1), ("visualize", 0.1)])
def test_a_full_disk_leaves_what_is_finished(step, kib, street, fails):
    before = saved()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(1024 * kib), hard))  # as on a full disk
    try:
        line = fails(*command(step))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ": File too large" in line and "run/" in line and ".new/" not in line
    assert not list(Path("run").rglob(".*.part"))
    for path in (DENSE, BEST, LAST):
        aside = Path("run/3_seg.1", path.name)
        assert (aside if aside.is_file() else path).read_bytes() == before[path]


@pytest.mark.parametrize("how, words", [(("cut",), UNREADABLE), ((EMFILE, "Too many"), "Too many")])
def test_what_the_system_refuses_is_no_damage_of_a_photo(how, words, street, fails, monkeypatch):
    monkeypatch.setattr(Image, "open", mock.Mock(side_effect=OSError(*how)))
    line = fails(*command("evaluate"))
    assert words in line and ("damaged" in line) == (words is UNREADABLE)


def test_a_disk_without_mappings_is_named(street, fails, monkeypatch):
    error = OSError(ENODEV, "No such device")
    monkeypatch.setattr(np.lib.format, "open_memmap", mock.Mock(side_effect=error))
    line = refused(fails, "sample_features")
    assert "features.npy: cannot be mapped on this disk; use a --run" in line
