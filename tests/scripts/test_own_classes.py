"""The whole street on one's own classes, 2 and 60 of them: head, palette, legends, tables and plots follow."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import read_classes
from data.voc import read_ids
from losses.image_scores import ImageScores
from models.checkpoint import load_segmenter
from tests.street import BACKBONE

HOME = Path(__file__).parent.parent
IMAGES = 10


def draw(root: Path, count: int) -> Path:
    """Photos of 48 x 64 with patches of `count` classes, each of its own colour, their masks and classes.txt."""
    rng = np.random.default_rng(count)
    colours = rng.integers(0, 256, (count, 3))
    labels = np.resize(rng.permutation(count), (IMAGES, 3, 4))  # patches of 16 pixels; every class is in some image
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for index, patches in enumerate(labels):
        mask = np.kron(patches, np.ones((16, 16), int)).astype(np.uint8)
        photo = np.clip(colours[mask] + rng.normal(0, 8, (*mask.shape, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(root / "JPEGImages" / f"own_{index}.jpg", quality=95)
        Image.fromarray(mask).save(root / "SegmentationClass" / f"own_{index}.png")
    names = ["ground", *(f"thing_{index}" for index in range(1, count))]
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture(scope="module", params=[2, 60])
def walked(request, in_turn, tmp_path_factory) -> tuple[Path, Path, int]:
    """A data folder, the run folder after all five steps on it, and the number of its classes."""
    folder = tmp_path_factory.mktemp("own")
    data, run = draw(folder / "data", request.param), folder / "run"
    command = [sys.executable, "-m", "data.voc", "--make-lists", data, "--val", "0.4"]
    done = subprocess.run(list(map(str, command)), cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = ("--data", data, "--run", run, "--workers", 0)
    in_turn(
        ("sample_features.py", *flags, *BACKBONE),
        ("train_cls.py", "--run", run, "--epochs", 3, "--hidden", 8, "--class-weights", "inverse"),
        ("train_seg.py", *flags, "--epochs", 1, "--class-weights", "batch", "--lovasz", 0.5),
        ("evaluate.py", *flags, "--save-predictions"),
        ("visualize.py", *flags, "--limit", 2),
    )
    return data, run, request.param


def test_the_head_has_an_output_for_each_class(walked):
    data, run, count = walked
    for name in ("2_cls/dense.pt", "3_seg/best.pt"):
        segmenter, _ = load_segmenter(run / name)
        assert segmenter.head.layers[-1].out_channels == count == len(segmenter.names)
        assert segmenter.names[0] == "ground" and tuple(map(tuple, segmenter.colours)) == read_classes(data).colours
    labels = np.load(run / "1_features" / "labels.npy")
    assert set(labels) <= set(range(count)) and len(set(labels)) > count // 3


def test_tables_have_a_line_for_each_class(walked):
    data, run, count = walked
    names = list(read_classes(data).names)
    metrics = json.loads((run / "4_eval" / "metrics.json").read_text())
    assert list(metrics["per_class"]) == names and f"of {count} classes present" in metrics["protocol"]
    with open(run / "4_eval" / "per_class.csv") as file:
        assert [row["class"] for row in csv.DictReader(file)] == names
    scores = ImageScores.load(run / "4_eval" / "per_image.npz")
    assert scores.names == names and scores.total().counts.shape == (count, count) and len(scores) == 4
    assert scores.total().miou() == metrics["miou"]
    config = json.loads((run / "1_features" / "config.json").read_text())
    assert len(config["rows_per_class"]) == len(config["colours"]) == count


def test_predictions_have_the_palette_of_the_classes(walked):
    data, run, count = walked
    classes = read_classes(data)
    for path in (run / "4_eval" / "predictions").iterdir():
        with Image.open(path) as picture:
            assert picture.getpalette("RGB")[: 3 * count] == [value for colour in classes.colours for value in colour]
            assert np.asarray(picture).max() < count


def test_plots_grow_with_the_classes(walked):
    _, run, count = walked
    for name, least in (("iou.png", 30 * count), ("confusion.png", 20 * count)):
        with Image.open(run / "4_eval" / name) as picture:
            assert picture.height > least and np.asarray(picture.convert("L")).std() > 10


def test_pictures_have_a_legend_in_the_colours_of_the_classes(walked):
    data, run, _ = walked
    classes = read_classes(data)
    for image_id in read_ids(data, "val")[:2]:
        with Image.open(run / "5_overlays" / f"{image_id}.png") as picture:
            drawn = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height)}
        for folder in (data / "SegmentationClass", run / "4_eval" / "predictions"):
            present = np.unique(Image.open(folder / f"{image_id}.png"))
            assert {classes.colours[label] for label in present} <= drawn


def test_two_runs_on_own_classes_are_compared(walked, in_process):
    data, run, count = walked
    theirs = run.parent / "theirs"
    predictions = ("--predictions", run / "4_eval" / "predictions", "--run", theirs)
    assert in_process("evaluate.py", "--data", data, *predictions).returncode == 0
    done = in_process("evaluate.py", "--compare", run, theirs)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("thing_") for line in done.stdout.splitlines()) == count - 1
