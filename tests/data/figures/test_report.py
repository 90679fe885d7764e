"""The write-up: its pages hold what they are given, however much it is, and no text is cut off."""

from datetime import date

import numpy as np
import pytest
from PIL import Image

from data.figures.report import choose, report_pages, sections
from tests.data.figures.pages import faults, words

LONG = "A_CLASS_$with_{a}_very$_long_name_that_nobody_would_want_to_write_out_in_full"


def values(
    classes=4, pictures=2, name="class_#", path="runs/a $run^2$", side=(400, 160), levels=5, boxes=3
) -> dict:
    """What `report_pages` takes, of a run as large as one likes, with levels like VGG's."""
    sides = [max(320 >> i, 10) for i in range(levels)]
    levels = [(f"tap {i + 1}", (64 << min(i, 3), side, side)) for i, side in enumerate(sides)]
    boxes = boxes * ["1×1 convolution 7104 → 4096\n29,102,080 parameters"]
    network = {"backbone": "vgg19_bn, fine-tuned, 20,035,392 parameters", "size": 320}
    network |= {"classifier": "classifier, 23,073,023 parameters", "levels": levels}
    network |= {"head": ["standardise\n(x − mean) / std of the sampled features", *boxes]}
    random = np.random.default_rng(0)
    names = [name.replace("#", str(index)) for index in range(classes)]
    ious = [None, *random.random(classes - 1).tolist()]
    log = [{"epoch": epoch, "loss": 2 / (epoch + 1), "miou": 0.5} for epoch in range(6)]
    log[0]["loss"] = None
    logs = {2: [row | {"val_accuracy": 0.25} for row in log[1:]], 3: log}
    of_each = {"seconds": 83.2, "data": path, "images": 1464, "settings": {"--lr": 0.5, "-f": True}}
    configs = {step: of_each.copy() for step in range(1, 5)}
    counts = (10 ** random.uniform(0, 6, classes)).astype(int).tolist()
    configs[1] |= {"rows": 123456, "classes": names, "rows_per_class": counts}
    configs[2] |= {"rows": 111111, "held_out_rows": 12345}
    configs[3] |= {"best_epoch": 4, "val_images_trained_on": 0}
    metrics = {"miou": 0.4321, "pixel_accuracy": 0.8765, "mean_accuracy": 0.5432, "fw_iou": 0.6543}
    metrics |= {"per_class": dict(zip(names, ious)), "protocol": "scored somehow, " * 9}
    record = {"run": path, "configs": configs, "logs": logs, "metrics": metrics} | {
        "confusion": random.integers(0, 100, (classes, classes)),
        "author": "A. Student",
        "images": [{"id": f"i{n}", "miou": n / 10, "worst_class": names[0]} for n in (9, 1)],
        "experiments": [],
        "versions": {"python": "3.11.7", "torch": "2.9.1+cu130", "commit": "0123456789ab+"},
        "scores_are_old": False,
        "network": network,
    }
    shown = [(f"best {index}", Image.new("RGB", side, "#336699")) for index in range(pictures)]
    return {"record": record, "shown": f"12 images of val; {path}/best.pt", "pictures": shown}


SIZES = [
    {"classes": 21},
    {"classes": 2, "pictures": 1, "boxes": 10},
    {"classes": 60, "name": LONG + "_#", "path": "runs/" + "long/" * 60},
    {"classes": 255, "pictures": 3, "side": (90, 700), "levels": 16},
]


@pytest.mark.parametrize("change", SIZES)
def test_no_text_leaves_its_page_or_overlaps_another(change):
    for number, figure in enumerate(report_pages(**values(**change)), start=1):
        assert (number, faults(figure)) == (number, [])


def test_the_values_are_on_the_pages_in_order():
    given = values(classes=3)
    record = given["record"]
    record["confusion"] = np.array([[75, 25, 0], [0, 0, 0], [1, 0, 999]])
    record["configs"][1]["rows_per_class"] = [1234567, 8, 0]
    record["metrics"]["per_class"] = {"class_0": 0.7, "class_1": None, "class_2": 0.1}
    row = {"run": "a", "differs": "train_seg --lr 0.1", "verdict": "worse", "miou": 0.4}
    row |= {"miou_low": 0.3, "miou_high": 0.5, "difference": -0.2}
    record["experiments"] = [row | {"difference_low": -0.3, "difference_high": -0.1}]
    assert "another network" not in sections(record)["Scores"]
    record["scores_are_old"] = True
    record["configs"][3]["val_images_trained_on"] = 17
    pages = [words(figure) for figure in report_pages(**given)]
    expected = [
        ["Semantic segmentation", "runs/a $run^2$", "A. Student", date.today().isoformat()]
        + ["These scores are of another network: run evaluate.py again. mIoU 0.432, pixel"]
        + ["scored somehow", "torch 2.9.1+cu130"]
        + ["best classes, by IoU, are class_0 (0.700). The worst are class_2 (0.100)."]
        + ["class_0 taken for class_1 (25% of it), class_2 taken for class_0 (0% of it)."]
        + ["2 images 1 have an mIoU, over the", "i1 (0.100, class_0), i9 (0.900, class_0)."],
        ["Training procedure", "lr 0.5", "f yes", "loss cross entropy"]
        + ["training loss 0.4", "val mIoU 0.5", "best epoch 4", "rows 123,456", "0:01:23"]
        + ["val accuracy 0.25", "val images trained on 17"],
        ["Architecture", "image 3 × 320 × 320", "tap 3", "256 × 80 × 80", "hypercolumn, Z = 1472"]
        + ["vgg19_bn, fine-tuned, 20,035,392 parameters", "29,102,080 parameters"],
        ["Sampled pixels: 1,234,575 in all", "1,234,567"],
        ["Training", "train_cls", "train_seg", "miou"],
        ["Results", "absent", "mIoU 0.432"],
        ["Confusion matrix", "75", "25", "100"],
        ["Experiments", "--lr 0.1", "-0.200 worse"],
        ["Predictions", "12 images of val", "best 0", "best 1"],
    ]
    assert len(pages) == len(expected)
    for number, (page, lines) in enumerate(zip(pages, expected), start=1):
        assert [line for line in [*lines, f"page {number} of 9"] if line not in page] == []


@pytest.mark.parametrize("last", [0, 2])
def test_what_has_left_no_record_is_said_so(last):
    given = values(pictures=0)
    record = given["record"]
    for step in range(last + 1, 5):
        record["configs"][step] = None
        record["logs"].pop(step, None)
    record |= {"metrics": None, "confusion": None}
    figures = report_pages(**given)
    assert words(figures[1]).count("no record in this run") == 4 - last
    titles = [figure.get_suptitle().partition(":")[0] for figure in figures[1:]]
    every = ["Training procedure", "Architecture", "Sampled pixels", "Training"]
    assert titles == every[: 2 + last]
    assert not any(faults(figure) for figure in figures)


@pytest.mark.parametrize("mious, chosen", [([], ""), ([2, 5], "ba"), ([*range(9)], "ihfeba")])
def test_best_typical_and_worst_are_by_miou(mious, chosen):
    pictures = [{"name": name, "miou": miou} for name, miou in zip("abcdefghi", [*mious, None])]
    assert "".join(name for _, name in choose(pictures)) == chosen
