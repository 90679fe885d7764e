"""What a run has recorded is read back as it is in its files; what is missing or damaged is said in one line."""

import csv
import json
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from models import RunError, run_folder
from models.history import read_history
from tests import street

fitted = street.fitted
SCRIPTS = ["sample_features", "train_cls", "train_seg", "evaluate", "visualize"]


@pytest.fixture(scope="module")
def scored(fitted, in_turn) -> Path:
    """A run after steps 1, 2 and 4; not to be changed: see `run`."""
    in_turn(("evaluate.py", "--data", fitted / "shapes", "--run", fitted / "run", "--workers", 0))
    return fitted / "run"


@pytest.fixture
def run(scored, tmp_path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(scored, tmp_path / "run"))


def config(run: Path, folder: str) -> dict:
    return json.loads((run / folder / "config.json").read_text())


def fine_tune(run: Path, log: list[dict]) -> None:
    """What a finished step 3 leaves, but for the network."""
    folder = run_folder.begin(run, 3)
    run_folder.save_csv(folder / "log.csv", log)
    settings = {
        "epochs": len(log) - 1,
        "split": "train",
        "best_epoch": 1,
        "val_miou": 0.375,
        "flip": True,
        "crop": None,
        "tta": ([0.75, 1.25], True),
    }
    run_folder.finish(run, 3, settings, wrote="a log")


def test_the_history_holds_what_is_in_the_files(scored):
    history = read_history(scored)
    features, classifier = config(scored, "1_features"), config(scored, "2_cls")
    metrics = json.loads((scored / "4_eval" / "metrics.json").read_text())
    sampling = history["sampling"]
    labels = np.load(scored / "1_features" / "labels.npy")
    assert sampling["counts"] == np.bincount(labels, minlength=21).tolist()
    assert sampling["names"] == features["classes"] and sampling["channels"] == features["channels"]
    assert sampling["levels"] == ["tap 1", "tap 2", "tap 3", "tap 4"]
    for name in ("mean", "std"):
        np.testing.assert_array_equal(sampling[name], np.load(scored / "1_features" / f"{name}.npy"))
    with open(scored / "2_cls" / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [row["loss"] for row in history["logs"]["train_cls"]] == losses
    metrics["scored"] = metrics["checkpoint"]
    assert history["metrics"].items() <= metrics.items() and history["metrics"]["miou"] == metrics["miou"]
    assert history["settings"]["sample_features"]["size"] == "48"
    assert history["settings"]["train_cls"]["lr"] == f"{classifier['lr']:g}"
    assert "limit" not in history["settings"]["evaluate"] and "compile" not in history["settings"]["evaluate"]
    assert f"{len(labels)} pixels" in history["facts"]["step 1"] and "squeezenet1_1" in history["facts"]["step 1"]
    assert f"mIoU {metrics['miou']:.3f}" in history["facts"]["step 4"]
    assert history["versions"]["train_cls"] == {key: str(value) for key, value in classifier["versions"].items()}


def test_the_matrix_gives_the_score_again(scored):
    history = read_history(scored)
    counts, hits = history["confusion"], np.diag(history["confusion"])
    union = counts.sum(0) + counts.sum(1) - hits
    assert (hits[union > 0] / union[union > 0]).mean() == pytest.approx(history["metrics"]["miou"])
    assert [iou is None for iou in history["metrics"]["per_class"].values()] == (union == 0).tolist()


def test_commands_are_kept_as_they_were_typed(scored, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/visualize.py", "--run", "a  run", "--report"])
    commands = read_history(scored)["commands"]
    assert list(commands) == SCRIPTS
    assert commands["train_cls"] == shlex.split("python train_cls.py --run run --epochs 5 --hidden 16")
    assert commands["train_seg"] is None
    assert commands["visualize"] == ["python", "visualize.py", "--run", "a  run", "--report"]


def test_steps_that_were_not_run_are_none_and_said_to_be_so(run):
    history = read_history(run)
    assert history["logs"]["train_seg"] is None and history["settings"]["train_seg"] is None
    assert history["facts"]["step 3"] == "train_seg.py has not been run to its end"
    shutil.rmtree(run / "4_eval")
    shutil.rmtree(run / "1_features")
    history = read_history(run)
    assert history["sampling"] is history["metrics"] is history["confusion"] is None
    history = read_history(run / "nowhere")
    assert set(history["settings"].values()) == {None} and history["commands"]["evaluate"] is None


def test_a_log_with_gaps_is_read(run):
    fine_tune(run, [{"epoch": 0, "loss": None, "miou": 0.25}, {"epoch": 1, "loss": float("nan"), "miou": 0.375}])
    history = read_history(run)
    first, second = history["logs"]["train_seg"]
    assert first == {"epoch": 0, "loss": None, "miou": 0.25} and np.isnan(second["loss"])
    assert (
        "1 epoch on" in history["facts"]["step 3"]
        and "best epoch 1, validation mIoU 0.375" in history["facts"]["step 3"]
    )
    assert history["settings"]["train_seg"]["flip"] == "on" and "crop" not in history["settings"]["train_seg"]
    assert history["settings"]["train_seg"]["tta"] == "flip,0.75,1.25"


def test_a_run_of_an_earlier_version_lacks_the_commands_and_the_matrix(run):
    for folder in ("1_features", "2_cls", "4_eval"):
        content = config(run, folder)
        del content["command"]
        (run / folder / "config.json").write_text(json.dumps(content))
    (run / "4_eval" / "confusion.csv").unlink()
    history = read_history(run)
    assert history["commands"]["train_cls"] == [] and history["confusion"] is None and history["metrics"]


@pytest.mark.parametrize(
    "name", ["1_features/mean.npy", "1_features/std.npy", "2_cls/log.csv", "3_seg/log.csv", "4_eval/metrics.json"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "binary"])
def test_a_missing_or_damaged_file_is_named_with_what_to_do(name, damage, run):
    fine_tune(run, [{"epoch": 0, "loss": None, "miou": 0.25}])
    path = run / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut short": content[: len(content) // 2], "binary": b"\xff\xfe\x00"}[damage])
    if (name, damage) == ("3_seg/log.csv", "cut short"):
        path.write_bytes(b"epoch,loss\n0,0.5,0.5,0.5\n")
    if (name, damage) == ("2_cls/log.csv", "cut short"):
        path.write_bytes(content.replace(b"0.", b"O.", 1))
    step = int(name[0])
    again = f"run step {step} again: python {SCRIPTS[step - 1]}.py --run {run}"
    with pytest.raises(RunError) as refusal:
        read_history(run)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and message.endswith(again) and "\n" not in message


@pytest.mark.parametrize(
    ("folder", "change"),
    [
        ("1_features", {"rows_per_class": [1, 2]}),
        ("1_features", {"rows_per_class": ["many"] * 21}),
        ("1_features", {"channels": [1, 2, 3]}),
        ("1_features", {"hypercolumn": None}),
        ("1_features", {"rows": "several"}),
        ("2_cls", {"command": "python 'train_cls.py"}),
        ("2_cls", {"versions": None}),
        ("2_cls", {"val_accuracy": "good"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(folder, change, run):
    (run / folder / "config.json").write_text(json.dumps(config(run, folder) | change))
    with pytest.raises(RunError, match=f"{folder}/config.json: cannot be read; run step {folder[0]} again: python "):
        read_history(run)


@pytest.mark.parametrize("name", ["rows_per_class", "channels", "hypercolumn"])
def test_a_setting_that_is_not_there_is_named(name, run):
    content = config(run, "1_features")
    del content[name]
    (run / "1_features" / "config.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=f"1_features/config.json: does not say '{name}'"):
        read_history(run)


@pytest.mark.parametrize(
    "change", [{"miou": None}, {"miou": 39.6}, {"per_class": {}}, {"per_class": {"a": 2}}, {"per_class": [0.5]}]
)
def test_scores_that_make_no_sense_are_refused(change, run):
    path = run / "4_eval" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match="metrics.json: cannot be read; run step 4 again: python evaluate.py"):
        read_history(run)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("aeroplane", "airplane"),
        lambda text: text.rsplit("\n", 2)[0],
        lambda text: text.replace("\nbackground,", "\nbackground,-1"),
        lambda text: text.replace("\nbackground,", "\nbackground,7,"),
        lambda text: "",
    ],
    ids=["other class", "a row less", "negative", "a number more", "empty"],
)
def test_a_matrix_that_does_not_go_with_the_scores_is_refused(damage, run):
    path = run / "4_eval" / "confusion.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match="confusion.csv: cannot be read; run step 4 again: python evaluate.py"):
        read_history(run)


def test_scores_of_another_program_name_its_files(run):
    path = run / "4_eval" / "metrics.json"
    found = json.loads(path.read_text()) | {"checkpoint": None, "predictions": "theirs"}
    path.write_text(json.dumps(found))
    assert read_history(run)["metrics"]["scored"] == "theirs"
