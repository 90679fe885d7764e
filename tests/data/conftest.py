"""What several tests of the data share: photos with masks, their lists, and the command convert."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.image_files import EXIF_ORIENTATION
from data.voc_files import LISTS

MASK = [[0, 1, 1], [0, 0, 255]]
VOC_FOLDERS = ("JPEGImages", "SegmentationClass")


def add(root: Path, name: str, mask=MASK, folders=("images", "masks")) -> None:
    """A red photo and its mask."""
    picture = Image.fromarray(np.array(mask, dtype=np.uint8))
    photos, masks = (root / folder for folder in folders)
    for place in (photos, masks):
        place.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", picture.size, "red").save(photos / f"{name}.jpg")
    picture.save(masks / f"{name}.png")


def turned_by(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = turn
    return exif


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def times(folder: Path) -> dict[Path, int]:
    """When what is in a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def lists_in(root: Path) -> dict[str, list[str]]:
    """The ids of each list, as they stand there."""
    return {path.stem: path.read_text("utf-8").splitlines() for path in (root / LISTS).iterdir()}


@pytest.fixture
def root(tmp_path) -> Path:
    """The photos a and b with masks."""
    add(tmp_path / "my data", "a")
    add(tmp_path / "my data", "b", [[1, 1, 1], [0, 0, 0]])
    return tmp_path / "my data"


@pytest.fixture
def converts(succeeds) -> Callable[..., list[str]]:
    """Runs data.convert, which must end well; the lines that it printed."""
    return lambda *arguments: succeeds("data/convert.py", *arguments).splitlines()


@pytest.fixture
def refuses(fails) -> Callable[..., str]:
    """Runs data.convert, which must end with exit code 2 and one line; that line."""
    return partial(fails, "data/convert.py")
