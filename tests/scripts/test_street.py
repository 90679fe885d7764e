"""The five steps as a user runs them: what each prints and leaves, opened and checked."""

import glob
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from data.classes import VOC, VOID, read_classes
from data.features import read_features
from data.image_files import read_mask
from data.shapes import make_shapes
from data.transforms import ResizeImage
from data.voc import VOCFolder
from data.voc_files import read_ids
from losses.metrics import ConfusionMatrix, load_image_scores
from models import load
from models.checkpoint import load_extractor
from tests.conftest import BACKBONE, DATA, STEPS
from tests.scripts.processes import config, contents, facts, log, losses, metrics, table


def test_each_step_says_what_it_wrote_and_comes_next_and_in_config_how_it_came_about(walked):
    names, folders = list(STEPS), ("1_features", "2_cls", "3_seg", "4_eval", "5_overlays")
    for number, (name, folder) in enumerate(zip(names, folders), start=1):
        said = walked.said[name]
        assert said.startswith(f"[{number}/5] {name}\n") and f"\nwrote run/{folder}: " in said
        assert "\r" not in said and "it/s" not in said, "a progress bar off a terminal"
        for following in names[number : number + 1]:
            data = "" if following in ("train_cls", "train_seg") else "--data shapes "
            assert said.endswith(f"\nnext: python {following}.py {data}--run run\n")
        content = config(walked.place / "run" / folder)
        assert content["step"] == name and content["seconds"] >= 0
        assert content["command"] == " ".join(["python", f"{name}.py", "--run run", *STEPS[name]])
        assert content["versions"]["torch"] == torch.__version__
    first, second = (config(walked.place / "run" / name) for name in ("1_features", "2_cls"))
    changed = {"--backbone": "squeezenet1_1", "--weights": "random", "--size": 48, "--per-class": 5}
    assert first["changed"] == changed
    assert first["rows"] == sum(first["rows_per_class"]) == second["rows"] + second["held_out_rows"]
    assert 0.05 < second["held_out_rows"] / first["rows"] < 0.15


def test_step_1_leaves_features_of_distinct_labelled_pixels(walked):
    folder = walked.place / "run" / "1_features"
    features, labels, pixels, _, mean, std, *_ = read_features(folder)
    ids = (folder / "images.txt").read_text().split()
    assert ids == read_ids(walked.place / "shapes", "train")
    assert features.dtype == np.float32 and features.shape == (len(labels), 960)
    np.testing.assert_allclose(mean, features.mean(0, dtype=np.float64), rtol=1e-5, atol=1e-6)
    hypercolumn = load_extractor(folder / "backbone.pt")
    images = VOCFolder(walked.place / "shapes", "train", ResizeImage(48))
    levels = [hypercolumn(sample.image[None]) for sample in images]
    anywhere = torch.cat([hypercolumn.as_map(maps, (48, 48)).flatten(2) for maps in levels], dim=2)
    own, anywhere = features.std(0, dtype=np.float64), anywhere.std((0, 2)).numpy()
    assert (std >= 0.9999 * own).all() and (anywhere > 1.2 * own).sum() > 20
    assert np.isclose(std, np.maximum(own, anywhere), rtol=0.1, atol=1e-6).mean() > 0.95
    for index, image_id in enumerate(ids):
        mask = read_mask(walked.place / "shapes" / "SegmentationClass" / f"{image_id}.png", VOC)
        mine = pixels[:, 0] == index
        assert (mask[pixels[mine, 1], pixels[mine, 2]] == labels[mine]).all()
        assert np.bincount(labels[mine]).max() == 5 and {*labels[mine]} == {*mask.flat} - {VOID}


def test_step_2_leaves_a_classifier_equal_to_the_trained_one(walked):
    folder = walked.place / "run" / "2_cls"
    assert config(folder)["dense_minus_fc"] <= 1e-5
    epochs = log(folder)
    assert len(epochs) == 20 and epochs[-1]["loss"] < epochs[0]["loss"]
    accuracy = f"held-out pixel accuracy {epochs[-1]['val_accuracy']:.3f} (always the commonest"
    assert accuracy in walked.said["train_cls"]


def test_step_3_leaves_its_best_epoch_and_a_log(walked):
    run = walked.place / "run"
    epochs, found = log(run / "3_seg"), config(run / "3_seg")
    assert [row["epoch"] for row in epochs] == [0, 1, 2] and epochs[0]["loss"] is None
    best = max(epochs, key=lambda row: row["miou"])
    assert found["best_epoch"] == best["epoch"]
    assert found["scores"]["miou"] == pytest.approx(best["miou"])
    assert len(losses(run)) == 10, "18 images are 5 steps of 4, the last one filled up"
    for epoch in (1, 2):
        steps = losses(run)[5 * epoch - 5 : 5 * epoch]
        assert epochs[epoch]["loss"] == pytest.approx(sum(steps) / 5)
    pictures = (run / "3_seg" / "previews").glob("epoch_00[012]/*.png")
    assert {path.stem for path in pictures} == set(read_ids(walked.place / "shapes", "val"))


def test_step_4_scores_its_own_predictions_at_original_size(walked):
    run, shapes, matrix = walked.place / "run", walked.place / "shapes", ConfusionMatrix(21)
    ids = read_ids(shapes, "val")
    assert {path.stem for path in (run / "4_eval/predictions").iterdir()} == {*ids}
    for image_id in ids:
        prediction = Image.open(run / f"4_eval/predictions/{image_id}.png")
        truth = Image.open(shapes / f"SegmentationClass/{image_id}.png")
        assert (prediction.mode, prediction.size) == ("P", truth.size)
        assert prediction.getpalette("RGB")[: 21 * 3] == VOC.palette()[: 21 * 3]
        matrix.update(np.array(prediction), np.array(truth))
    found, ious = metrics(run), [None if iou != iou else iou for iou in matrix.iou().tolist()]
    assert {name: found[name] for name in matrix.scores()} == pytest.approx(matrix.scores())
    assert found["miou"] == config(run / "3_seg")["scores"]["miou"], "as step 3 has scored its best"
    doubts = matrix.doubts(VOC.names)
    assert doubts and all(f"  note: {doubt}\n" in walked.said["evaluate"] for doubt in doubts)
    assert found["images"] == 3 and found["classes_in_mean"] == matrix.classes_in_mean()
    assert found["checkpoint"] == "run/3_seg/best.pt"
    assert found["protocol"].startswith("trained on 18 images of train, ")
    assert found["protocol"].endswith("; one view of each")
    assert found["per_class"] == dict(zip(VOC.names, ious))
    rows = [(row["class"], row["iou"]) for row in table(run / "4_eval" / "per_class.csv")]
    assert rows == [(n, "" if v is None else str(v)) for n, v in zip(VOC.names, ious)]
    pixels = table(run / "4_eval" / "confusion.csv")
    assert [[int(row[name]) for name in VOC.names] for row in pixels] == matrix.counts.tolist()
    for name in ("2_cls/curve", "3_seg/curve", "4_eval/confusion", "4_eval/iou"):
        Image.open(run / f"{name}.png").verify()


def test_without_step_3_the_head_of_step_2_is_scored_and_drawn(street, succeeds):
    score, note = ("evaluate.py", "--run", "run", "--workers", 0), "step 3 has not finished in this"
    Path("run/3_seg/config.json").unlink()
    assert f"note: {note} run; run/3_seg/best.pt is scored" in succeeds(*score), "on step 1's data"
    as_it_came = log("run/3_seg")[0]["miou"]
    shutil.rmtree("run/3_seg")
    assert f"note: {note} run; run/2_cls/dense.pt is scored" in succeeds(*score)
    assert metrics("run")["checkpoint"] == "run/2_cls/dense.pt"
    assert metrics("run")["miou"] == as_it_came
    assert not Path("run/4_eval/predictions").exists(), "those of an earlier scoring"
    assert "run/2_cls/dense.pt" in facts(succeeds("visualize.py", "--run", "run", *DATA))["network"]


def test_the_data_is_that_of_the_step_before(street, succeeds, fails):
    Path("shapes").rename("others")
    succeeds("train_seg.py", "--run", "run", "--data", "others", "--epochs", 1, "--limit", 2)
    for script in ("evaluate.py", "visualize.py"):
        said = facts(succeeds(script, "--run", "run", "--limit", 1))
        assert "others, split val" in (said.get("data") or said["images"])
    steps = ("1_features", "2_cls", "3_seg")
    for path in (Path("run", step, "config.json") for step in steps):
        path.write_text(path.read_text("utf-8").replace('"format": ', '"format": 9'), "utf-8")
    line = fails("train_seg.py", "--run", "run")
    assert "run step 2 again: python train_cls.py --run run" in line
    line = fails("sample_features.py", "--run", "run", *BACKBONE)
    assert "no data set in VOC layout there" in line and "--data" in line, "no other step is named"


def rename_on_windows(folder: Path, target: Path, rename=Path.rename) -> Path:
    """Moves no folder of which this process has a file open or mapped."""
    used = [os.path.realpath(link) for link in glob.glob("/proc/self/fd/*")]
    used += Path("/proc/self/maps").read_text().splitlines()
    if any(f"{folder.resolve()}/" in line for line in used):
        raise PermissionError(13, "is being used by another process", str(folder))
    return rename(folder, target)


def test_a_quiet_street_with_workers_leaves_the_same(walked, street, succeeds, capfd, monkeypatch):
    """Also if they are spawned and open files stay; it prints a line for programs."""
    shutil.rmtree("run")
    monkeypatch.setattr(Path, "rename", rename_on_windows)
    scores = {}
    for name, flags in STEPS.items():
        workers = ("--workers", 2) if "--workers" in flags else ()
        flags = ("--run", "run", *flags, *workers, "--quiet", "--json")
        multiprocessing.set_start_method("spawn" if name == "sample_features" else None, True)
        assert succeeds(f"{name}.py", *flags) == ""
        line = json.loads(capfd.readouterr().out)
        assert line["step"] == name and line["seconds"] > 0
        assert Path(line["wrote"], "config.json").is_file()
        scores[name] = line["scores"]
    ours, theirs = contents(street / "run"), contents(walked.place / "run")
    assert len(theirs) > 40 and ours == theirs
    assert scores["sample_features"]["images"] == 18 and scores["visualize"] == {"pictures": 2}
    for name in ("miou", "pixel_accuracy"):
        assert scores["train_seg"][name] == scores["evaluate"][name] == metrics("run")[name]
    assert scores["train_cls"]["accuracy"] == log("run/2_cls")[-1]["accuracy"]


def test_limits_take_the_first_images_of_a_list(street, succeeds):
    flags, ids = ("--run", "run", *DATA), read_ids(Path("shapes"), "trainval")
    succeeds("sample_features.py", *flags, *BACKBONE, "--split", "trainval", "--limit", 5)
    assert Path("run/1_features/images.txt").read_text().split() == ids[:5]
    said = succeeds("train_cls.py", "--run", "run", "--epochs", 1, "--hidden", 8)
    assert said.endswith("\nnext: python train_seg.py --split trainval --limit 5 --run run\n")
    said = succeeds("train_seg.py", *flags, "--epochs", 1, "--limit", 4, "--val-limit", 2)
    assert "4 images of train, validation on 2 of " in facts(said)["data"]
    miou = config("run/3_seg")["scores"]["miou"]
    assert f"on all of val {miou:.4f}" in said
    succeeds("evaluate.py", *flags)
    assert metrics("run")["miou"] == miou


def test_the_network_in_the_box_sees_photos_is_scored_and_trained_on(street, succeeds, fails):
    photo = min(Path("shapes/JPEGImages").iterdir())
    said = succeeds("visualize.py", "--image", photo)
    assert "wrote runs/photos: 1 picture" in said and "voc (efficientnet_lite2)" in said
    assert "required: --run" in fails("visualize.py", *DATA)
    said = succeeds("evaluate.py", "--checkpoint", "voc", *DATA, "--limit", 1)
    assert "wrote runs/scores: mIoU" in said
    flags = ("--crop", 48, "--batch-size", 1, "--epochs", 1, "--limit", 1, "--val-limit", 1)
    said = succeeds("train_seg.py", "--run", "tuned", "--init", "voc", *DATA, *flags)
    assert facts(said)["start"] == "voc" and "efficientnet_lite2" in facts(said)["network"]


HEIGHT, WIDTH, FIBRE = 480, 640, 5  # pixels
NAMES = [*(f"thing_{number}" for number in range(39)), "fibre"]
FIBRES = ("--data", "fibres", "--workers", 0)
BARE = ("--backbone", "squeezenet1_1", "--weights", "random", "--per-class", 100)
HEAD = ("--epochs", 30, "--hidden", "32,", "--dropout", 0, "--held-out", 0)


def draw_fibres(place: Path) -> None:
    """Four photos of noise with dark fibres, in VOC layout; the last of them is for validation."""
    rng = np.random.default_rng(0)
    make_shapes(place, images=4, size=32)
    (place / "classes.txt").write_text("\n".join(NAMES))
    for path in sorted((place / "JPEGImages").iterdir()):
        mask = Image.new("L", (WIDTH, HEIGHT))
        for _ in range(6):
            ends = rng.integers(0, (WIDTH, HEIGHT), (2, 2)).ravel().tolist()
            ImageDraw.Draw(mask).line(ends, fill=39, width=FIBRE)
        mask.save(place / f"SegmentationClass/{path.stem}.png")
        grey = rng.normal(150, 25, (HEIGHT, WIDTH, 3)) - 70 * (np.asarray(mask) > 0)[..., None]
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path, quality=99)


def test_fibres_are_lost_in_small_inputs_and_found_at_their_size(succeeds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_fibres(Path("fibres"))
    for run, size in (("small", 80), ("large", HEIGHT)):
        succeeds("sample_features.py", *FIBRES, *BARE, "--run", run, "--size", size)
        succeeds("train_cls.py", "--run", run, *HEAD)

    def iou(run: str, *flags) -> float:
        succeeds("evaluate.py", *FIBRES, "--run", run, *flags)
        return metrics(run)["per_class"]["fibre"]

    small, large = iou("small"), iou("large", "--save-predictions")
    assert small < 0.3 and large > 0.4
    (path,), palette = Path("large/4_eval/predictions").iterdir(), read_classes(Path("fibres"))
    assert Image.open(path).getpalette("RGB")[: 3 * 40] == np.ravel(palette.colours).tolist()
    assert iou("large", "--tile", 200) == pytest.approx(large, abs=0.1)
    assert iou("large", "--size", 96) < 0.3  # fibres below a pixel
    assert "--size 96" in metrics("large")["protocol"]
    Path("fibres/classes.txt").write_text("\n".join([*NAMES[:-1], "thread"]))
    flags = ("--run", "moved", "--epochs", 1, "--class-weights", "inverse", "--lovasz", 0.5)
    said = succeeds("train_seg.py", *FIBRES, *flags, "--init", "small", "--size", 150)
    assert "size 150, crop 150," in said
    assert "  note: thread: " in said and "at --size 150; take --size" in said
    assert config("moved/3_seg")["size"] == load("moved").segmenter.input_size == 150


REAL = [Path(os.environ.get(name, "")) for name in ("VOC_ROOT", "HYPERCOLUMN_WEIGHTS")]


@pytest.mark.real
@pytest.mark.skipif(Path() in REAL, reason="VOC_ROOT and HYPERCOLUMN_WEIGHTS name no real data")
def test_the_head_on_sparse_pixels_beats_the_most_frequent_class(succeeds, tmp_path):
    data = ("--run", tmp_path, "--data", REAL[0], "--limit", 12, "--workers", 0)
    network = ("--backbone", "squeezenet1_1", "--size", 160, "--weights", REAL[1])
    succeeds("sample_features.py", *data, *network)
    succeeds("train_cls.py", "--run", tmp_path, "--epochs", 60)
    succeeds("evaluate.py", *data, "--split", "train")
    pixels, found = load_image_scores(tmp_path / "4_eval/per_image.npz")[2], metrics(tmp_path)
    truth = pixels.sum(0)[:, 0]  # of each class; the first is the most frequent
    assert found["images"] == 12
    assert found["miou"] > 2 * truth[0] / truth.sum() / found["classes_in_mean"]
