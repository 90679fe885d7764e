"""Step 4 on predictions of other programs, and two runs side by side."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.voc import read_ids
from losses.image_scores import ImageScores
from losses.score import ConfusionMatrix, bootstrap_mious, percentile_interval
from tests.street import BACKBONE, contents, differences


@pytest.fixture(scope="module")
def network(drawn, in_turn, tmp_path_factory) -> Path:
    """A run whose network has been scored on the 18 training images; not to be changed."""
    run = tmp_path_factory.mktemp("network") / "run"
    in_turn(
        ("sample_features.py", "--data", drawn, "--run", run, *BACKBONE),
        ("train_cls.py", "--run", run, "--epochs", 1, "--hidden", 8),
        ("evaluate.py", "--data", drawn, "--run", run, "--split", "train", "--save-predictions"),
    )
    return run


@pytest.fixture
def guesses(drawn, tmp_path) -> Path:
    """Predictions of the 18 training images that some program has written: the truth, with every fifth column wrong."""
    folder = tmp_path / "guesses"
    folder.mkdir()
    for image_id in read_ids(drawn, "train"):
        values = np.array(Image.open(drawn / "SegmentationClass" / f"{image_id}.png"))
        values[values == 255] = 0
        values[:, ::5] = (values[:, ::5] + 1) % 21
        Image.fromarray(values).save(folder / f"{image_id}.png")
    return folder


@pytest.fixture
def score(drawn, in_process):
    """Scores a folder of predictions; what was printed."""

    def run(folder: Path, *flags, data: Path = drawn) -> str:
        done = in_process("evaluate.py", "--data", data, "--split", "train", "--predictions", folder, *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def fails(in_process):
    """Runs step 4 and returns the one line it fails with."""

    def run(*flags) -> str:
        done = in_process("evaluate.py", *flags)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("evaluate: ")
        return done.stderr.strip()

    return run


def test_a_network_s_own_predictions_score_as_the_network_does(network, score, tmp_path):
    said = score(network / "4_eval" / "predictions", "--run", tmp_path / "same")
    ours, theirs = contents(network / "4_eval"), contents(tmp_path / "same" / "4_eval")
    files = {
        "metrics.json",
        "per_class.csv",
        "confusion.csv",
        "per_image.npz",
        "iou.png",
        "confusion.png",
        "config.json",
    }
    assert set(theirs) == files == {name for name in ours if not name.startswith("predictions/")}
    for name in files - {"metrics.json", "config.json"}:
        assert ours[name] == theirs[name], name
    ours, theirs = (json.loads(found["metrics.json"]) for found in (ours, theirs))
    assert theirs.pop("predictions") == str(network / "4_eval" / "predictions")
    assert theirs.pop("protocol").startswith("predictions in ") and theirs.pop("checkpoint") is None
    assert {name: ours[name] for name in theirs} == theirs
    assert f"mIoU {theirs['miou']:.4f} over" in said and f"wrote {tmp_path / 'same' / '4_eval'}: mIoU" in said


def test_without_a_run_the_table_is_printed_and_nothing_written(guesses, drawn, score, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    matrix = ConfusionMatrix(21)
    for image_id in read_ids(drawn, "train")[:5]:
        truth = np.array(Image.open(drawn / "SegmentationClass" / f"{image_id}.png"))
        matrix.update(np.array(Image.open(guesses / f"{image_id}.png")), truth)
    said = score(guesses, "--limit", 5)
    assert f"mIoU {matrix.miou():.4f} over {matrix.classes_in_mean()} of 21 classes" in said and "wrote" not in said
    assert not list((tmp_path / "here").iterdir())


def spoil_size(folder: Path, image_id: str) -> str:
    path = folder / f"{image_id}.png"
    picture = Image.open(path)
    picture.crop((0, 0, picture.width - 1, picture.height)).save(path)
    return f"{path}: the prediction is {picture.width - 1}x{picture.height} but its image is {picture.width}x"


def spoil_value(folder: Path, image_id: str) -> str:
    path = folder / f"{image_id}.png"
    values = np.array(Image.open(path))
    values[3, 4] = 21
    Image.fromarray(values).save(path)
    return f"{path}: value 21 is outside the classes 0..20"


def spoil_presence(folder: Path, image_id: str) -> str:
    (folder / f"{image_id}.png").unlink()
    return f"{folder}: no prediction for 1 of the 18 images: {image_id}.png"


@pytest.mark.parametrize("spoil", [spoil_size, spoil_value, spoil_presence])
def test_a_prediction_that_cannot_be_scored_ends_it_and_what_was_there_stays(
    spoil, guesses, drawn, score, fails, tmp_path
):
    flags = ("--run", tmp_path / "theirs")
    score(guesses, *flags)
    before = contents(tmp_path / "theirs")
    message = spoil(guesses, read_ids(drawn, "train")[7])
    assert message in fails("--data", drawn, "--split", "train", "--predictions", guesses, *flags)
    assert differences(contents(tmp_path / "theirs"), before) == []


def test_predictions_of_others_do_not_replace_the_score_of_a_run_s_network(network, guesses, drawn, fails):
    before = contents(network / "4_eval")
    line = fails("--data", drawn, "--split", "train", "--predictions", guesses, "--run", network)
    assert f"--run {network}: holds step 1 of a network" in line and "name another folder" in line
    assert differences(contents(network / "4_eval"), before) == []


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "the following arguments are required: --run"),
        (("--compare", "a"), "argument --compare: expected 2 arguments"),
        (("--compare", "a", "b", "--predictions", "c"), "--predictions: not allowed with argument --compare"),
        (("--compare", "a", "b", "--amp", "bf16"), "argument --amp: not allowed with argument --compare"),
        (("--predictions", "a", "--recipe", "best"), "argument --recipe: not allowed with argument --predictions"),
        (("--predictions", "a", "--quiet"), "argument --quiet: not allowed with argument --predictions"),
        (("--compare", "a", "b", "--run", "c"), "argument --run: not allowed with argument --compare"),
        (("--compare", "a", "b", "--limit", "3"), "argument --limit: not allowed with argument --compare"),
        (("--predictions", "a", "--tta", "flip"), "argument --tta: not allowed with argument --predictions"),
        (
            ("--predictions", "a", "--save-predictions"),
            "argument --save-predictions: not allowed with argument --predictions",
        ),
    ],
)
def test_flags_that_do_not_go_together(flags, message, fails):
    assert message in fails(*flags)


@pytest.mark.parametrize("flags", [("--predictions", "a"), ("--compare", "a", "b")])
def test_reading_files_wants_one_process(flags, fails, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "runs in one process: start it with python, not with torchrun" in fails(*flags)


@pytest.fixture
def theirs(guesses, score, tmp_path) -> Path:
    """A run folder with the scores of `guesses`."""
    score(guesses, "--run", tmp_path / "theirs")
    return tmp_path / "theirs"


def test_two_runs_are_compared_class_by_class_with_an_interval(network, theirs, in_process):
    done = in_process("evaluate.py", "--compare", network, theirs)
    assert done.returncode == 0, done.stderr
    runs = [ImageScores.load(run / "4_eval" / "per_image.npz") for run in (network, theirs)]
    first, second = (run.total() for run in runs)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["A", f"{network}:", str(network / "2_cls" / "dense.pt")] in lines
    assert ["B", f"{theirs}:", str(theirs.parent / "guesses")] in lines
    difference = second.miou() - first.miou()
    assert ["mIoU", f"{first.miou():.4f}", f"{second.miou():.4f}", f"{difference:+.4f}"] in lines
    a, b = first.iou()[0], second.iou()[0]
    assert ["background", f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}"] in lines
    mious = bootstrap_mious([run.pixels() for run in runs])
    low, high = percentile_interval(mious[:, 1] - mious[:, 0])
    assert 0 < low < difference < high
    assert f"95 % interval of the difference: {low:+.4f} to {high:+.4f} (10,000 paired" in done.stdout
    assert "\nB is better, on images like these\nnote: 18 images are few" in done.stdout
    swapped = in_process("evaluate.py", "--compare", theirs, network)
    assert f"of the difference: {-high:+.4f} to {-low:+.4f} (" in swapped.stdout and "\nA is better" in swapped.stdout


def test_a_run_is_as_good_as_itself(theirs, in_process):
    done = in_process("evaluate.py", "--compare", theirs, theirs)
    assert "interval of the difference: +0.0000 to +0.0000 (" in done.stdout
    assert "\nA and B may be equally good, on images like these\n" in done.stdout


def scored_fewer(run: Path, data: Path, guesses: Path, score) -> str:
    score(guesses, "--run", run, "--limit", 17)
    return f"they are of other images (18 and 17; {read_ids(data, 'train')[17]} is in one alone)"


def scored_on_other_data(run: Path, data: Path, guesses: Path, score) -> str:
    image_id = read_ids(data, "train")[2]
    path = data / "SegmentationClass" / f"{image_id}.png"
    values = np.array(Image.open(path))
    values[0, 0] = 3 if values[0, 0] != 3 else 4
    Image.fromarray(values).save(path)
    score(guesses, "--run", run, data=data)
    return f"the ground truth of {image_id} is not the same, so it is other data"


def scored_with_other_classes(run: Path, data: Path, guesses: Path, score) -> str:
    (data / "classes.txt").write_text("".join(f"thing_{index}\n" for index in range(21)))
    score(guesses, "--run", run, data=data)
    return "class 0 is 'background' in one and 'thing_0' in the other"


@pytest.mark.parametrize("other", [scored_fewer, scored_on_other_data, scored_with_other_classes])
def test_runs_that_scored_something_else_are_refused(other, theirs, shapes, guesses, score, fails, tmp_path):
    message = other(tmp_path / "other", shapes, guesses, score)
    line = fails("--compare", theirs, tmp_path / "other")
    assert f"{theirs} and {tmp_path / 'other'} cannot be compared: {message}; score both on the same list" in line


def test_a_run_without_scores_is_named(theirs, fails, tmp_path):
    other = Path(shutil.copytree(theirs, tmp_path / "other"))
    path = other / "4_eval" / "per_image.npz"
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path}: cannot be read as the scores of images; run step 4 again, for" in fails("--compare", theirs, other)
    path.unlink()
    assert f"{path}: no such file; run step 4 again" in fails("--compare", other, theirs)
    (other / "4_eval" / "config.json").unlink()
    assert "step 4 has not finished there" in fails("--compare", theirs, other)
