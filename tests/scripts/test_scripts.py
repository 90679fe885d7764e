"""The five steps end to end, as a user runs them, on a tiny data set; every file they write is opened and checked."""

import csv
import json
import re
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from data.classes import VOC, VOID
from data.images import read_mask
from data.voc import read_ids
from losses import loss
from losses.score import ConfusionMatrix
from models.checkpoint import load_segmenter

STEPS = ("sample_features", "train_cls", "train_seg", "evaluate", "visualize")


@pytest.fixture(scope="module")
def walked(drawn, script, tmp_path_factory):
    """A run folder (with a space and an umlaut in its name) after all five steps, and what each printed."""
    run = tmp_path_factory.mktemp("a run") / "Läufe"
    data = ("--data", drawn)
    printed = {}
    for name, flags in {
        "sample_features": (*data, "--weights", "random", "--size", "64", "--per-class", "5"),
        "train_cls": ("--epochs", "5", "--hidden", "32"),
        "train_seg": (*data, "--epochs", "2", "--batch-size", "4"),
        "evaluate": (*data, "--save-predictions"),
        "visualize": (*data, "--limit", "2"),
    }.items():
        done = script(f"{name}.py", "--run", run, *flags)
        assert done.returncode == 0, done.stderr
        printed[name] = done.stdout
    return run, printed


def config(run, folder):
    return json.loads((run / folder / "config.json").read_text(encoding="utf-8"))


def test_each_step_says_its_number_and_name_what_it_wrote_and_what_comes_next(walked):
    _, printed = walked
    for number, name in enumerate(STEPS, start=1):
        assert printed[name].startswith(f"[{number}/5] {name}\n")
        assert "\nwrote " in printed[name]
    for name, following in zip(STEPS, STEPS[1:]):
        assert re.search(rf"^next: python {following}\.py .*--run ", printed[name], re.MULTILINE)


def test_step_1_writes_features_of_distinct_labelled_pixels(walked, drawn):
    folder = walked[0] / "1_features"
    features, labels, pixels, mean, std = (
        np.load(folder / f"{name}.npy") for name in ("features", "labels", "pixels", "mean", "std")
    )
    ids = (folder / "images.txt").read_text().split()
    assert ids == read_ids(drawn, "train")
    assert features.dtype == np.float32 and features.shape == (len(labels), 1472)
    np.testing.assert_allclose(mean, features.mean(0, dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, features.std(0, dtype=np.float64), rtol=1e-4, atol=1e-6)
    assert len(np.unique(pixels, axis=0)) == len(pixels)
    for index, image_id in enumerate(ids):
        mask = read_mask(drawn / "SegmentationClass" / f"{image_id}.png", 21)
        mine = pixels[:, 0] == index
        assert (mask[pixels[mine, 1], pixels[mine, 2]] == labels[mine]).all()
        counts = np.bincount(mask.ravel(), minlength=256)[:VOID]
        assert (np.bincount(labels[mine], minlength=VOID) == np.minimum(counts, 5)).all()


def test_step_2_writes_two_forms_of_one_classifier(walked):
    folder = walked[0] / "2_cls"
    fc = torch.load(folder / "head.pt", weights_only=True)["state"]
    segmenter, content = load_segmenter(folder / "dense.pt")
    dense = segmenter.head.state_dict()
    assert fc.keys() == dense.keys()
    assert all(torch.equal(fc[key].flatten(), dense[key].flatten()) for key in fc)
    assert content["classes"] == list(VOC.names) and segmenter.size == 64
    assert config(walked[0], "2_cls")["dense_minus_fc"] <= 1e-5
    log = list(csv.DictReader(open(folder / "log.csv")))
    assert [row["epoch"] for row in log] == ["1", "2", "3", "4", "5"]
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    Image.open(folder / "curve.png").verify()


@pytest.mark.parametrize("share, held_out", [("0", 0.0), ("0.5", 0.5)])
def test_step_2_holds_out_as_many_images_as_it_is_told(share, held_out, walked, in_process, tmp_path):
    shutil.copytree(walked[0] / "1_features", tmp_path / "1_features")
    done = in_process("train_cls.py", "--run", tmp_path, "--epochs", "2", "--held-out", share)
    assert done.returncode == 0, done.stderr
    rows, kept = (config(tmp_path, "2_cls")[key] for key in ("rows", "held_out_rows"))
    assert kept / (rows + kept) == pytest.approx(held_out, abs=0.1)
    pixels, accuracy = ("held-out", "val_accuracy") if held_out else ("training", "accuracy")
    with open(tmp_path / "2_cls" / "log.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert f"{pixels} pixel accuracy {float(last[accuracy]):.3f} after 2 epochs" in done.stdout


def test_step_3_starts_from_step_2_and_keeps_the_best_epoch(walked):
    run, _ = walked
    log = list(csv.DictReader(open(run / "3_seg" / "log.csv")))
    assert [row["epoch"] for row in log] == ["0", "1", "2"]
    best = max(float(row["miou"]) for row in log)
    assert config(run, "3_seg")["val_miou"] == pytest.approx(best)
    before, after = (load_segmenter(run / path)[0].state_dict() for path in ("2_cls/dense.pt", "3_seg/last.pt"))
    frozen = [key for key in before if key.startswith("hypercolumn.") or "standardise" in key]
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["head.layers.0.weight"], after["head.layers.0.weight"])
    assert len(list((run / "3_seg" / "previews").glob("epoch_00[012]/*.png"))) == 9
    Image.open(run / "3_seg" / "curve.png").verify()


def test_step_4_scores_its_own_predictions_at_original_size(walked, drawn):
    run, _ = walked
    metrics = json.loads((run / "4_eval" / "metrics.json").read_text())
    matrix = ConfusionMatrix(21)
    ids = read_ids(drawn, "val")
    assert sorted(path.stem for path in (run / "4_eval" / "predictions").iterdir()) == sorted(ids)
    for image_id in ids:
        prediction = Image.open(run / "4_eval" / "predictions" / f"{image_id}.png")
        truth = Image.open(drawn / "SegmentationClass" / f"{image_id}.png")
        assert (prediction.mode, prediction.size) == ("P", truth.size)
        assert prediction.getpalette("RGB")[: 21 * 3] == VOC.palette()[: 21 * 3]
        matrix.update(np.array(prediction), np.array(truth))
    assert metrics["miou"] == pytest.approx(matrix.miou())
    assert metrics["images"] == len(ids) and metrics["classes_in_mean"] == matrix.classes_in_mean()
    assert set(metrics) == {
        "miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "classes_in_mean", "images", "per_class", "protocol",
        "checkpoint",
    }  # fmt: skip
    assert list(metrics["per_class"]) == list(VOC.names)
    absent = [name for name, iou in metrics["per_class"].items() if iou is None]
    assert len(absent) == 21 - metrics["classes_in_mean"]
    rows = list(csv.DictReader(open(run / "4_eval" / "per_class.csv")))
    assert [row["class"] for row in rows] == list(VOC.names)
    for name in ("confusion.png", "iou.png"):
        Image.open(run / "4_eval" / name).verify()


def test_step_4_agrees_with_step_3s_validation(walked):
    run, _ = walked
    assert json.loads((run / "4_eval" / "metrics.json").read_text())["miou"] == pytest.approx(
        config(run, "3_seg")["val_miou"]
    )


def test_step_5_draws_the_split(walked, drawn):
    run, _ = walked
    pictures = sorted((run / "5_overlays").glob("*.png"))
    assert [path.stem for path in pictures] == sorted(read_ids(drawn, "val")[:2])
    for path in pictures:
        picture = Image.open(path)
        assert picture.mode == "RGB" and picture.width > 4 * 200
        assert np.asarray(picture).std() > 10


def test_step_5_draws_own_pictures_of_any_kind(walked, in_process, tmp_path):
    run = shutil.copytree(walked[0], tmp_path / "run")
    Image.new("L", (90, 50), 128).save(tmp_path / "grey.png")
    Image.new("RGBA", (40, 70), (255, 0, 0, 99)).save(tmp_path / "half clear.png")
    done = in_process("visualize.py", "--run", run, "--image", tmp_path / "grey.png", tmp_path / "half clear.png")
    assert done.returncode == 0, done.stderr
    assert (run / "5_overlays" / "grey.png").is_file() and (run / "5_overlays" / "half clear.png").is_file()


def test_step_5_writes_the_run_up(walked, drawn, in_process, tmp_path):
    run = shutil.copytree(walked[0], tmp_path / "Läufe $1$")
    report, command = run / "5_overlays" / "report.pdf", ("visualize.py", "--data", drawn, "--run", run, "--report")
    written = []
    for _ in range(2):
        done = in_process(*command)
        assert done.returncode == 0 and "3 pictures and report.pdf" in done.stdout, done.stderr
        written.append(report.read_bytes())
    assert written[0] == written[1]
    assert len(re.findall(rb"/Type /Page\b", written[0])) == 9, "six pages, two of pictures, the commands"
    done = in_process("visualize.py", "--run", run, "--report", "--image", drawn / "JPEGImages" / "shapes_000000.jpg")
    assert done.returncode == 0 and len(re.findall(rb"/Type /Page\b", report.read_bytes())) == 8, done.stderr
    before = report.read_bytes()
    (run / "4_eval" / "metrics.json").write_text("{}")
    done = in_process(*command)
    assert done.returncode == 2 and "metrics.json: cannot be read; run step 4 again" in done.stderr
    assert report.read_bytes() == before and (run / "5_overlays" / "config.json").is_file()


def test_evaluate_without_step_3_scores_step_2_and_says_so(walked, drawn, in_process, tmp_path):
    run = shutil.copytree(walked[0], tmp_path / "run")
    shutil.rmtree(run / "3_seg")
    done = in_process("evaluate.py", "--data", drawn, "--run", run)
    assert done.returncode == 0 and "scoring the head of step 2" in done.stdout
    metrics = json.loads((run / "4_eval" / "metrics.json").read_text())
    assert metrics["checkpoint"].endswith("dense.pt")
    assert not (run / "4_eval" / "predictions").exists(), "predictions of another checkpoint were left behind"


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(drawn, in_process, tmp_path):
    for run, workers in ((tmp_path / "a", 0), (tmp_path / "b", 2)):
        flags = ("--data", drawn, "--run", run, "--workers", workers)
        steps = (
            ("sample_features.py", *flags, "--backbone", "squeezenet1_1", "--weights", "random", "--size", "48"),
            ("train_cls.py", "--run", run, "--epochs", "2", "--hidden", "16"),
            ("train_seg.py", *flags, "--epochs", "1", "--limit", "6", "--class-weights", "batch"),
        )
        for step in steps:
            done = in_process(*step)
            assert done.returncode == 0, done.stderr
    for name in ("features", "labels", "pixels", "mean", "std"):
        first, second = ((tmp_path / run / "1_features" / f"{name}.npy").read_bytes() for run in "ab")
        assert first == second, name
    first, second = (load_segmenter(tmp_path / run / "3_seg" / "last.pt")[0].state_dict() for run in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(walked, drawn, in_process, tmp_path):
    whole, broken = (shutil.copytree(walked[0], tmp_path / name) for name in ("whole", "broken"))
    flags = ("--data", drawn, "--epochs", "2", "--batch-size", "4", "--limit", "8", "--val-limit", "2")
    assert in_process("train_seg.py", "--run", whole, *flags).returncode == 0
    ctrl_c_in_step_3 = [loss.divisor, loss.divisor, KeyboardInterrupt]
    with mock.patch("losses.batch.divisor", side_effect=lambda *labels: stop_or_go_on(ctrl_c_in_step_3.pop(0), labels)):
        stopped = in_process("train_seg.py", "--run", broken, *flags)
    assert stopped.returncode == 130 and "--resume" in stopped.stderr and "Traceback" not in stopped.stderr
    assert not (broken / "3_seg" / "config.json").exists()
    other = in_process("train_seg.py", "--run", broken, *flags, "--resume", "--lr", "0.5")
    assert other.returncode == 2 and "was made with --lr 0.001, not 0.5" in other.stderr
    resumed = in_process("train_seg.py", "--run", broken, *flags, "--resume")
    assert resumed.returncode == 0 and "after 2 steps" in resumed.stdout, resumed.stderr
    first, second = (load_segmenter(run / "3_seg" / "last.pt") for run in (whole, broken))
    assert all(torch.equal(value, second[0].state_dict()[key]) for key, value in first[0].state_dict().items())
    losses = [[row["loss"] for row in content["training"]["log"]] for _, content in (first, second)]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def stop_or_go_on(what, arguments):
    if what is KeyboardInterrupt:
        raise KeyboardInterrupt
    return what(*arguments)


@pytest.mark.parametrize("name", STEPS)
def test_help_opens_with_commands_and_states_defaults(name, in_process):
    done = in_process(f"{name}.py", "--help")
    assert done.returncode == 0
    assert f"    python {name}.py --" in done.stdout and "(default: " in done.stdout
