"""The five steps on 12 real PASCAL VOC images and real ImageNet weights (marked `real`, skipped without them)."""

import json

import numpy as np
import pytest
from PIL import Image

from data.voc import VOCFolder, read_ids
from losses.score import ConfusionMatrix

pytestmark = pytest.mark.real
IMAGES = 12


@pytest.fixture(scope="module")
def walked(voc_root, squeezenet_weights, in_process, tmp_path_factory):
    """A run folder after the five steps; steps 4 and 5 look at the training images, through the head of step 2."""
    run = tmp_path_factory.mktemp("real") / "run"
    data = ("--data", voc_root, "--limit", IMAGES)
    head = ("--checkpoint", run / "2_cls" / "dense.pt", "--split", "train")
    for step in (
        ("sample_features.py", *data, "--backbone", "squeezenet1_1", "--weights", squeezenet_weights, "--size", "160"),
        ("train_cls.py", "--epochs", "60"),
        ("train_seg.py", *data, "--epochs", "1", "--val-limit", "2"),
        ("evaluate.py", *data, *head, "--save-predictions"),
        ("visualize.py", "--data", voc_root, "--limit", "2", *head),
    ):
        done = in_process(*step, "--run", run)
        assert done.returncode == 0, done.stderr
    return run


def test_the_head_on_sparse_pixels_beats_predicting_background_everywhere(walked, voc_root):
    metrics = json.loads((walked / "4_eval" / "metrics.json").read_text())
    background = ConfusionMatrix(21)
    for image_id in read_ids(voc_root, "train")[:IMAGES]:
        target = np.array(Image.open(voc_root / "SegmentationClass" / f"{image_id}.png"))
        background.update(np.zeros_like(target), target)
    assert metrics["images"] == IMAGES
    assert metrics["miou"] > 2 * background.miou()


def test_predictions_have_the_size_of_their_images(walked, voc_root):
    for image_id in read_ids(voc_root, "train")[:IMAGES]:
        prediction = Image.open(walked / "4_eval" / "predictions" / f"{image_id}.png")
        assert prediction.mode == "P"
        assert prediction.size == Image.open(voc_root / "JPEGImages" / f"{image_id}.jpg").size


def test_pictures_are_drawn(walked, voc_root):
    drawn = sorted(path.stem for path in (walked / "5_overlays").glob("*.png"))
    assert drawn == sorted(read_ids(voc_root, "train")[:2])


@pytest.mark.parametrize("split", ["train", "val", "train_aug"])
def test_every_image_and_mask_of_the_real_lists_is_there_and_fits(split, voc_root):
    dataset = VOCFolder(voc_root, split, lambda image, mask: (image, mask), limit=100)
    assert len(dataset) == 100
    labels = np.unique(np.concatenate([np.unique(dataset.mask(index)) for index in range(40)]))
    assert set(labels) <= {*range(21), 255} and len(labels) > 10
