"""Small structures in large photos: what --size, --tile and --crop do to them, in all steps."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models import load
from tests.scripts.processes import config, metrics

HEIGHT, WIDTH, FIBRE = 480, 640, 5  # pixels
STEP_1 = ("--data", "fibres", "--backbone", "squeezenet1_1", "--weights", "random")
STEP_1 += ("--workers", 0, "--per-class", 100)
HEAD = ("--epochs", 30, "--hidden", "32,", "--dropout", 0, "--held-out", 0)


def draw_fibres(place, images: int) -> None:
    """Photos of noise with dark fibres, in VOC layout; the last of them is for validation."""
    rng, lists = np.random.default_rng(0), place / "ImageSets/Segmentation"
    for folder in (place / "JPEGImages", place / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    (place / "classes.txt").write_text("background\nfibre\n")
    for index in range(images):
        mask = Image.new("L", (WIDTH, HEIGHT))
        for _ in range(6):
            ends = rng.integers(0, (WIDTH, HEIGHT), (2, 2)).ravel().tolist()
            ImageDraw.Draw(mask).line(ends, fill=1, width=FIBRE)
        mask.save(place / f"SegmentationClass/{index}.png")
        grey = rng.normal(150, 25, (HEIGHT, WIDTH, 3)) - 70 * np.asarray(mask)[..., None]
        photo = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
        photo.save(place / f"JPEGImages/{index}.png")
    (lists / "train.txt").write_text("\n".join(map(str, range(images - 1))))
    (lists / "val.txt").write_text(str(images - 1))


@pytest.fixture(scope="module")
def fibres(succeeds, tmp_path_factory):
    """Goes to a folder with the data and two runs of steps 1 and 2: `small` and `large` inputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fibres"))
        draw_fibres(Path("fibres"), 4)
        for run, size in (("small", 96), ("large", HEIGHT)):
            succeeds("sample_features.py", *STEP_1, "--run", run, "--size", size)
            succeeds("train_cls.py", "--run", run, *HEAD)
        yield


def iou(succeeds, run: str, *flags) -> float:
    succeeds("evaluate.py", "--data", "fibres", "--workers", 0, "--run", run, *flags)
    return metrics(run)["per_class"]["fibre"]


def test_fibres_are_lost_in_small_inputs_and_found_at_their_own_size(fibres, succeeds):
    small, large = iou(succeeds, "small"), iou(succeeds, "large")
    assert small < 0.3 and large > 0.5
    tiles = iou(succeeds, "large", "--tile", 200)
    assert tiles == pytest.approx(large, abs=0.1)
    assert iou(succeeds, "large", "--size", 96) < 0.3  # fibres below a pixel
    assert "--size 96" in metrics("large")["protocol"]


def test_step_3_takes_a_size_and_names_own_classes_too_thin_for_it(fibres, succeeds):
    shutil.copytree("fibres", "threads")
    Path("threads/classes.txt").write_text("background\nthread\n")
    flags = ("--data", "threads", "--workers", 0, "--run", "moved", "--epochs", 1, "--pixels", 50)
    said = succeeds("train_seg.py", *flags, "--init", "small", "--size", 150)
    assert "size 150, crop 150," in said
    assert "  note: thread: " in said and "at --size 150; take --size" in said
    assert config("moved/3_seg")["size"] == load("moved").segmenter.input_size == 150


def test_python_takes_size_and_tile_as_the_commands_do(fibres, succeeds):
    flags = ("--size", 320, "--tile", 128)
    succeeds("visualize.py", "--run", "large", "--image", "fibres/JPEGImages/3.png", *flags)
    drawn = np.asarray(Image.open("large/photos/predictions/3.png"))
    network = load("large", size=320, tile=128)
    assert np.array_equal(network.predict("fibres/JPEGImages/3.png"), drawn)
    probabilities = network.predict("fibres/JPEGImages/3.png", probabilities=True)
    assert np.array_equal(probabilities.argmax(0), drawn)
