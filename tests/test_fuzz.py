"""Flipped bytes: 300 damaged files, each of which reads as it was or ends in one clear line; and what is no damage."""

import io
import shutil
import signal
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data import DataError
from data.classes import VOC
from data.features import FeatureWriter, read_features
from data.images import EXIF_ORIENTATION, read_image, read_mask
from data.transforms import ResizeImage
from data.voc import VOCFolder
from models import RunError, run_folder
from models.checkpoint import (
    FORMAT,
    load_extractor,
    load_head,
    load_segmenter,
    save_extractor,
    save_head,
    save_segmenter,
)
from models.classifier import DenseClassifier, FCClassifier
from models.files import load_plain
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter

SECONDS = 20  # for one case
NAMES, COLOURS = ["sky", "sea", "boat"], [[0, 0, 0], [0, 0, 255], [255, 0, 0]]
REGIONS = ("all", "tensors", "pickle", "directory")  # of a checkpoint, in turn


def segmenter_in(path: Path) -> tuple:
    segmenter, content = load_segmenter(path)
    description = (segmenter.size, segmenter.stride, segmenter.names, segmenter.colours, segmenter.trained_on)
    return segmenter.state_dict(), segmenter.hypercolumn.spec(), segmenter.head.dropout, description, content


def extractor_in(path: Path) -> tuple:
    hypercolumn = load_extractor(path)
    return hypercolumn.state_dict(), hypercolumn.spec()


def head_in(path: Path) -> tuple:
    fc = load_head(path)
    return fc.state_dict(), str(fc)


def mask_in(path: Path) -> np.ndarray:
    return read_mask(path, classes=21)


def lossy_image_in(path: Path) -> tuple:
    """Not its pixels: a JPEG has no checksum."""
    return read_image(path).dtype, read_image(path).ndim


def ids_in(path: Path) -> list[str]:
    """Of a list with every image of its folder: there, an id that has become another one is missing or there twice."""
    return VOCFolder(path.parents[2], path.stem, ResizeImage(32)).ids


def config_in(path: Path) -> None:
    """Nothing to compare: the file is there to be read and changed by people."""
    run = path.parents[1]
    run_folder.check_features(run, load_segmenter(run / "2_cls" / "dense.pt")[0], path)


def store_in(path: Path) -> list[tuple]:
    """Not its values: numpy's files have no checksum."""
    return [(array.shape, array.dtype) for array in read_features(path.parent, len(NAMES))]


READERS: dict[str, tuple[int, Callable[[Path], Any]]] = {  # cases of each file: 300
    "run/2_cls/dense.pt": (40, segmenter_in),
    "run/3_seg/best.pt": (30, segmenter_in),
    "run/3_seg/last.pt": (40, segmenter_in),
    "run/1_features/backbone.pt": (30, extractor_in),
    "run/2_cls/head.pt": (30, head_in),
    "mask.png": (40, mask_in),
    "photo.png": (15, read_image),
    "photo.jpg": (20, lossy_image_in),
    "shapes/ImageSets/Segmentation/whole.txt": (25, ids_in),
    "run/1_features/config.json": (15, config_in),
    "run/1_features/features.npy": (10, store_in),
    "run/1_features/labels.npy": (5, store_in),
}
CASES = [name for name, (count, _) in READERS.items() for _ in range(count)]


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory) -> Path:
    """A folder with every file of `READERS`."""
    home = tmp_path_factory.mktemp("whole")
    shapes, run = Path(shutil.copytree(drawn, home / "shapes")), home / "run"
    photos = sorted((shapes / "JPEGImages").iterdir())
    (shapes / "ImageSets" / "Segmentation" / "whole.txt").write_text("".join(f"{path.stem}\n" for path in photos))
    rng = np.random.default_rng(0)
    rings = np.add.outer(np.arange(-30, 34) ** 2, np.arange(-30, 50) ** 2) // 900 % 21
    mask = Image.fromarray(np.kron(rings, np.ones((6, 6))).astype(np.uint8))  # plain areas: many flips can be decoded
    mask.putpalette(VOC.palette())
    mask.save(home / "mask.png")
    with Image.open(photos[0]) as photo:
        photo.save(home / "photo.png")
        exif = photo.getexif()
        exif[EXIF_ORIENTATION] = 6
        photo.save(home / "photo.jpg", exif=exif)

    torch.manual_seed(0)
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1, 2])
    Z = hypercolumn.Z
    fc = FCClassifier(torch.rand(Z), torch.rand(Z) + 0.5, len(NAMES), hidden=8, dropout=0.25)
    dense = DenseClassifier.from_fc(fc, hypercolumn.channels)
    segmenter = Segmenter(hypercolumn, dense, size=32, stride=2, names=NAMES, colours=COLOURS)
    optimizer = torch.optim.AdamW(dense.parameters())
    dense(torch.rand(1, Z, 2, 2)).sum().backward()
    optimizer.step()
    training = {"settings": {"lr": 1e-3, "limit": None}, "optimizer": optimizer.state_dict()}
    save_extractor(run / "1_features" / "backbone.pt", hypercolumn)
    save_head(run / "2_cls" / "head.pt", fc, segmenter)
    for name in ("2_cls/dense.pt", "3_seg/best.pt"):
        save_segmenter(run / name, segmenter, start="0123456789abcdef")
    save_segmenter(run / "3_seg" / "last.pt", segmenter, start="0123456789abcdef", training=training)
    with FeatureWriter(run / "1_features", Z) as writer:
        writer.append(rng.random((9, Z)), rng.integers(0, len(NAMES), 9), rng.integers(0, 32, (9, 3)))
        writer.finish(["a", "b"])
    settings = {"format": FORMAT, "hypercolumn": hypercolumn.spec(), "size": 32, "classes": NAMES, "colours": COLOURS}
    run_folder.save_json(run / "1_features" / "config.json", settings)
    return home


@pytest.fixture
def time_limit():
    def stop(*_) -> None:
        pytest.fail(f"still at it after {SECONDS} s")  # no Exception, which the code under test would take for damage

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def places(content: bytes, region: str) -> Sequence[int]:
    """Where the bytes of a region lie."""
    if region == "all":
        return range(len(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if region == "directory":
            return range(archive.start_dir, len(content))
        kind, found = {"tensors": "/data/", "pickle": "/data.pkl"}[region], []
        for record in archive.infolist():
            if kind in record.filename:
                start = record.header_offset + 30 + sum(struct.unpack_from("<HH", content, record.header_offset + 26))
                found += range(start, start + record.file_size)
    return found


def flipped(content: bytes, region: str, seed: int) -> bytes:
    """The content with 1 to 8 bytes of the region changed."""
    rng, damaged = np.random.default_rng(seed), bytearray(content)
    for place in rng.choice(places(content, region), size=rng.integers(1, 9), replace=False):
        damaged[place] ^= int(rng.integers(1, 256))
    return bytes(damaged)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return np.array_equal(one, other)


@pytest.mark.parametrize(("number", "name"), [*enumerate(CASES)])
def test_a_damaged_file_reads_as_it_was_or_ends_in_one_clear_line(number, name, whole, time_limit):
    path, read = whole / name, READERS[name][1]
    content, expected = path.read_bytes(), read(path)
    path.write_bytes(flipped(content, REGIONS[number % len(REGIONS)] if path.suffix == ".pt" else "all", number))
    try:
        assert same(read(path), expected)
    except (DataError, RunError) as error:
        names = (f"{path}", f"{path.parent}: ", f"split {path.stem!r}")
        assert len(str(error).splitlines()) == 1 and any(text in str(error) for text in names), error
    finally:
        path.write_bytes(content)


def test_no_flipped_bit_of_a_mask_goes_unseen(whole):
    """Pillow passes over the checksum of the pixels unless it is asked to look: some flips then give wrong ones."""
    path = whole / "mask.png"
    content, expected, refused = path.read_bytes(), mask_in(path), 0
    try:
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:
                right = np.array_equal(mask_in(path), expected)
            except DataError:
                right, refused = True, refused + 1
            assert right, f"bit 0 of byte {place}"
    finally:
        path.write_bytes(content)
    assert refused > 0.9 * len(content)


@pytest.fixture
def weights(tmp_path) -> tuple[Path, dict]:
    path, state = tmp_path / "weights.pth", {"0.weight": torch.arange(6.0).view(2, 3), "0.bias": torch.ones(2)}
    torch.save(state, path)
    return path, state


def test_a_tensor_that_has_become_a_folder_is_refused(weights):
    """By one bit; torch loads what was in memory in its place."""
    path, content = weights[0], bytearray(weights[0].read_bytes())
    attributes = content.rindex(b"/data/0") - len("weights") - 8
    content[attributes] ^= 0x10
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert [record.filename for record in archive.infolist() if record.external_attr] == ["weights/data/0"]
        assert archive.testzip() is None, "no checksum shows it"
    with pytest.raises(RunError, match="weights.pth: cannot be read as a weights file"):
        load_plain(path, "weights")


def test_weights_in_the_format_without_checksums_are_read(weights):
    path, state = weights
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same(load_plain(path, "weights"), state)


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="this torch always writes checksums")
def test_weights_that_were_saved_without_checksums_are_read(weights):
    path, state = weights
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None
    assert same(load_plain(path, "weights"), state)
