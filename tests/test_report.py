"""The write-up: its pages hold what they are given, however much it is, and no text is cut off or written over."""

import io
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from losses.report import choose, report_pages, save_pages
from tests.pages import faults, texts

STEPS = ("sample_features", "train_cls", "train_seg", "evaluate")
LONG = "a_class_$with_{a}_very$_long_name_that_nobody_would_want_to_write_out_in_full"


def values(folder, classes=21, pictures=8, epochs=5, name="class_#", path="runs/a $run^2$", side=(400, 160)) -> dict:
    """What `report_pages` takes, of a run as large as one likes."""
    random = np.random.default_rng(0)
    names = [name.replace("#", str(index)) for index in range(classes)]
    ious = [None, *random.random(classes - 1).tolist()]
    log = [
        {"epoch": epoch, "loss": 2 / (epoch + 1), "miou": 0.5, "pixel_accuracy": 0.75} for epoch in range(epochs + 1)
    ]
    log[0]["loss"] = None
    channels = [64, 128, 256, 512, 512]
    mious = {f"photo $_{index}$": index / pictures for index in range(pictures)}
    for picture in mious:
        Image.new("RGB", side, "#336699").save(folder / f"{picture}.png")
    flags = {f"a-flag-{index}": "value" for index in range(18)}
    return {
        "run": path,
        "facts": {f"step {step}": f"{step} of {path}" for step in range(1, 5)},
        "settings": {step: {"data": path, **flags} for step in STEPS},
        "sampling": {
            "names": names,
            "counts": (10 ** random.uniform(0, 6, classes)).astype(int).tolist(),
            "levels": [f"tap {tap}" for tap in range(1, 6)],
            "channels": channels,
            "mean": random.random(sum(channels)),
            "std": random.random(sum(channels)),
        },
        "logs": {"train_cls": log[1:], "train_seg": log},
        "metrics": {
            "miou": 0.4321, "pixel_accuracy": 0.8765, "mean_accuracy": 0.5432, "fw_iou": 0.6543,
            "per_class": dict(zip(names, ious)), "protocol": "scored somehow, " * 9, "scored": f"{path}/best.pt",
        },
        "confusion": random.integers(0, 100, (classes, classes)) + 500 * np.eye(classes, dtype=int),
        "commands": {step: ["python", f"{step}.py", "--run", path] for step in (*STEPS, "visualize")},
        "versions": {step: {"python": "3.11", "torch": "2.9.1+cu130", "commit": "0123456789ab+"} for step in STEPS},
        "architecture": Figure(),
        "shown": f"12 images of val; {path}/best.pt",
        "pictures": folder,
        "mious": mious,
    }  # fmt: skip


def words(figure, monkeypatch) -> str:
    return "\n".join(text for text, _ in texts(figure, monkeypatch))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"classes": 2, "epochs": 1, "pictures": 1},
        {"classes": 60, "name": LONG + "_#", "path": "runs/" + "long/" * 60},
        {"classes": 255, "pictures": 2, "side": (90, 700)},
    ],
    ids=["usual", "little", "long", "much"],
)
def test_no_text_leaves_its_page_or_runs_into_another(change, tmp_path, monkeypatch):
    for number, figure in enumerate(report_pages(**values(tmp_path, **change)), start=1):
        assert (number, faults(figure, monkeypatch)) == (number, [])


def test_the_pages_come_in_order_with_their_numbers(tmp_path, monkeypatch):
    pages = [words(figure, monkeypatch) for figure in report_pages(**values(tmp_path))]
    titles = ["Semantic segmentation with hypercolumns", "Architecture", "Data and sampling", "Training", "Results"]
    titles += ["Confusion matrix", "Predictions", "Predictions", "Predictions", "Commands and versions"]
    assert len(pages) == len(titles)
    for number, (page, title) in enumerate(zip(pages, titles), start=1):
        assert title in page and f"{number} / {len(titles)}" in page


def test_the_values_are_on_the_pages(tmp_path, monkeypatch):
    given = values(tmp_path, classes=3)
    given["confusion"] = np.array([[75, 25, 0], [0, 0, 0], [1, 0, 999]])
    given["sampling"]["counts"] = [1234567, 8, 0]
    title, _, data, training, results, confusion, *_, origins = (
        words(figure, monkeypatch) for figure in report_pages(**given)
    )
    for line in ("runs/a $run^2$", "step 3", "a-flag-17", "0.432", "0.876", "0.543", "0.654"):
        assert line in title
    assert "1,234,575 in all" in data and "1,234,567" in data and "\n0\n" in data and "Z = 1,472" in data
    assert "train_cls: 5 epochs" in training and "train_seg: 5 epochs" in training and "pixel_accuracy" in training
    assert "absent" in results and f"{given['metrics']['per_class']['class_2']:.3f}" in results
    assert "mIoU 0.432" in results and "runs/a $run^2$/best.pt" in results.replace("\n", " ")
    assert "class_0 → class_1\n25%" in confusion and confusion.count("→") == 2
    assert "python train_seg.py --run 'runs/a $run^2$'" in origins and "2.9.1+cu130" in origins


def test_a_long_command_can_be_copied_and_a_very_long_one_is_cut(tmp_path, monkeypatch):
    given = values(tmp_path)
    given["commands"]["evaluate"] = ["python", "evaluate.py", *(f"--flag-{index} 'a  b'" for index in range(12))]
    given["commands"]["visualize"] = ["python", "visualize.py", "--image", *(f"{index}.jpg" for index in range(999))]
    figure = report_pages(**given)[-1]
    assert faults(figure, monkeypatch) == []
    page = words(figure, monkeypatch)
    assert page.replace(" \\\n", " ").count("""'--flag-11 '"'"'a  b'"'"''""") == 1
    assert "0.jpg 1.jpg" in page and "998.jpg" not in page and "the rest is in its config.json" in page


def test_what_was_not_run_is_said_to_be_not_run(tmp_path, monkeypatch):
    given = values(tmp_path, pictures=0)
    nothing = dict.fromkeys(STEPS)
    given |= {"sampling": None, "metrics": None, "confusion": None, "settings": nothing, "versions": nothing}
    given |= {"logs": dict.fromkeys(("train_cls", "train_seg")), "commands": nothing | {"visualize": []}}
    figures = report_pages(**given)
    title, _, data, training, results, origins = (words(figure, monkeypatch) for figure in figures)
    assert title.count("not run to its end") == 4
    for page, step in ((data, STEPS[0]), (training, STEPS[1]), (training, STEPS[2]), (results, STEPS[3])):
        assert f"{step}.py has not been run to its end" in page
    assert origins.count("has not been run to its end") == 4 and "visualize.py: an earlier version ran" in origins
    assert [faults(figure, monkeypatch) for figure in figures] == [[]] * 6


def test_a_score_without_its_matrix_says_how_to_get_it(tmp_path, monkeypatch):
    figures = report_pages(**values(tmp_path) | {"confusion": None})
    assert "run it again" in words(figures[5], monkeypatch)


@pytest.mark.parametrize(
    ("mious", "chosen"),
    [
        ({}, {"": []}),
        ({"a": 0.5}, {"": ["a"]}),
        ({"a": None, "b": 0.5}, {"": ["b"]}),
        ({"a": 0.1, "b": 0.9}, {"best": ["b"], "worst": ["a"]}),
        ({"a": 0.1, "b": 0.9, "c": 0.4}, {"best": ["b"], "typical": ["c"], "worst": ["a"]}),
        (
            {"a": 0.1, "b": 0.9, "c": 0.4, "d": 0.5, "e": None, "f": 0.3, "g": 0.8},
            {"best": ["b", "g"], "typical": ["d", "c"], "worst": ["f", "a"]},
        ),
        ({name: None for name in "abcdefgh"}, {"": list("abcdef")}),
    ],
)
def test_best_typical_and_worst_are_by_miou(mious, chosen):
    assert choose(mious) == chosen


def test_pictures_keep_their_shape_and_fit(tmp_path):
    for side in ((3000, 200), (200, 3000), (30, 20)):
        figure = report_pages(**values(tmp_path, pictures=2, side=side))[6]
        assert len(figure.axes) == 2
        for axes in figure.axes:
            box = axes.get_position()
            width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
            assert math.isclose(width / height, side[0] / side[1], rel_tol=1e-3)
            assert 0 <= box.x0 and box.x1 <= 1 and 0 <= box.y0 and box.y1 <= 1


def test_equal_pages_give_equal_bytes_and_a_page_each(tmp_path):
    files = []
    for _ in range(2):
        file = io.BytesIO()
        save_pages(file, report_pages(**values(tmp_path)))
        files.append(file.getvalue())
    assert files[0] == files[1] and files[0].startswith(b"%PDF") and b"CreationDate" not in files[0]
    assert len(re.findall(rb"/Type /Page\b", files[0])) == 10
