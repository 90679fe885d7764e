"""The steps on 12 real PASCAL VOC images and ImageNet weights (`real`: skipped without them)."""

import json

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC
from data.image_files import read_mask
from data.voc import VOCFolder
from data.voc_files import read_ids
from losses.metrics import ConfusionMatrix

pytestmark = pytest.mark.real
IMAGES = 12


def test_the_head_on_sparse_pixels_beats_the_most_frequent_class(
    voc_root, squeezenet_weights, succeeds, tmp_path
):
    network = ("--backbone", "squeezenet1_1", "--size", 160, "--weights", squeezenet_weights)
    run = tmp_path / "run"
    data = ("--data", voc_root, "--limit", IMAGES, "--workers", 0)
    succeeds("sample_features.py", "--run", run, *data, *network)
    succeeds("train_cls.py", "--run", run, "--epochs", 60)
    succeeds("evaluate.py", "--run", run, *data, "--split", "train", "--save-predictions")
    metrics = json.loads((run / "4_eval" / "metrics.json").read_text())
    targets = {}
    for image_id in read_ids(voc_root, "train")[:IMAGES]:
        targets[image_id] = read_mask(voc_root / "SegmentationClass" / f"{image_id}.png", VOC)
        prediction = Image.open(run / "4_eval" / "predictions" / f"{image_id}.png")
        with Image.open(voc_root / "JPEGImages" / f"{image_id}.jpg") as photo:
            assert prediction.mode == "P" and prediction.size == photo.size
    background = ConfusionMatrix(21)  # the most frequent class
    for target in targets.values():
        background.update(np.zeros_like(target), target)
    assert metrics["images"] == IMAGES and metrics["miou"] > 2 * background.miou()


@pytest.mark.parametrize("split", ["train", "val", "train_aug"])
def test_every_image_and_mask_of_the_real_lists_is_there_and_fits(split, voc_root):
    dataset = VOCFolder(voc_root, split, limit=100)
    assert len(dataset) == 100
    labels = np.unique(np.concatenate([np.unique(dataset.mask(index)) for index in range(40)]))
    assert set(labels) <= {*range(21), 255} and len(labels) > 10
