"""Step 4 on predictions of other programs, and two runs side by side."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import read_mask
from data.voc import read_ids
from losses.metrics import ConfusionMatrix, ImageScores, bootstrap_mious, percentile_interval
from tests.conftest import DATA
from tests.scripts.processes import contents, differences

SPLIT = ("--data", "shapes", "--split", "train")
GUESSES, MASKS = Path("guesses"), Path("shapes/SegmentationClass")


@pytest.fixture
def guesses(street) -> list[str]:
    """Fills GUESSES with the truth, but every fifth column wrong, of the training images; ids."""
    GUESSES.mkdir()
    ids = read_ids(Path("shapes"), "train")
    for image_id in ids:
        values = read_mask(MASKS / f"{image_id}.png", 21)
        values[values == 255] = 0
        values[:, ::5] = (values[:, ::5] + 1) % 21
        Image.fromarray(values).save(GUESSES / f"{image_id}.png")
    return ids


@pytest.fixture
def score(guesses, succeeds):
    """Scores GUESSES; what was printed."""
    return lambda *flags: succeeds("evaluate.py", *SPLIT, "--predictions", GUESSES, *flags)


def test_a_run_that_holds_scored_predictions_alone_is_written_up(score, succeeds):
    score("--run", "theirs")
    flags = ("--data", "shapes", "--limit", 1, "--checkpoint", "run/3_seg/best.pt")
    succeeds("visualize.py", "--run", "theirs", *flags, "--report")
    assert Path("theirs/5_overlays/report.pdf").stat().st_size > 10_000


def test_a_networks_own_predictions_score_as_the_network_does(street, succeeds):
    predictions = Path("run/4_eval/predictions")
    flags = ("--data", "shapes", "--predictions", predictions, "--run", "same")
    said = succeeds("evaluate.py", *flags)
    ours, theirs = contents(Path("run/4_eval")), contents(Path("same/4_eval"))
    assert set(theirs) == {name for name in ours if not name.startswith("predictions/")}
    other = [name for name in theirs if differences(ours[name], theirs[name])]
    assert set(other) == {"config.json", "metrics.json"}
    ours, theirs = (json.loads(found["metrics.json"]) for found in (ours, theirs))
    assert theirs.pop("predictions") == str(predictions) and theirs.pop("checkpoint") is None
    assert theirs.pop("protocol").startswith(f"predictions in {predictions}; 3 images of val")
    assert {name: ours[name] for name in theirs} == theirs
    assert f"wrote same/4_eval: mIoU {theirs['miou']:.4f} over" in said


def test_without_a_run_the_table_is_printed_and_nothing_written(guesses, score, street):
    matrix, before = ConfusionMatrix(21), sorted(street.rglob("*"))
    for image_id in guesses[:5]:
        truth = read_mask(MASKS / f"{image_id}.png", 21)
        matrix.update(np.array(Image.open(GUESSES / f"{image_id}.png")), truth)
    said = score("--limit", 5)
    words = f"mIoU {matrix.miou():.4f} over {matrix.classes_in_mean()} of 21 classes"
    assert words in said and "wrote" not in said
    assert sorted(street.rglob("*")) == before


def of_another_size(path: Path) -> str:
    picture = Image.open(path)
    width, height = picture.size
    picture.crop((0, 0, width - 1, height)).save(path)
    return f"{path}: the prediction is {width - 1}x{height} but its image is {width}x"


def of_no_class(path: Path) -> str:
    values = np.array(Image.open(path))
    values[3, 4] = 21
    Image.fromarray(values).save(path)
    return f"{path}: value 21 is outside the classes 0..20"


def absent(path: Path) -> str:
    path.unlink()
    return f"{GUESSES}: no prediction for 1 of the 18 images: {path.name}"


@pytest.mark.parametrize("spoil", [of_another_size, of_no_class, absent])
def test_a_prediction_that_cannot_be_scored_ends_it_and_earlier_scores_stay(
    spoil, guesses, score, fails
):
    score("--run", "theirs")
    before = contents(Path("theirs"))
    message = spoil(GUESSES / f"{guesses[7]}.png")
    line = fails("evaluate.py", *SPLIT, "--predictions", GUESSES, "--run", "theirs")
    assert message in line and differences(contents(Path("theirs")), before) == []


def test_predictions_do_not_replace_the_score_of_a_network(guesses, fails):
    before = contents(Path("run"))
    line = fails("evaluate.py", *SPLIT, "--predictions", GUESSES, "--run", "run")
    assert "--run run: holds step 1 of a network" in line and "name another folder" in line
    assert differences(contents(Path("run")), before) == []


BESIDE_COMPARE = [("--predictions", "c"), ("--amp", "bf16"), ("--run", "c"), ("--limit", 3)]
BESIDE_PREDICTIONS = [("--recipe", "best"), ("--tta", "flip"), ("--save-predictions",)]


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "the following arguments are required: --run"),
        (("--compare", "a"), "argument --compare: expected 2 arguments"),
        *[
            (
                ("--compare", "a", "b", *flag),
                f"argument {flag[0]}: not allowed with argument --comp",
            )
            for flag in [*BESIDE_COMPARE, ("--quiet",)]
        ],
        *[
            (("--predictions", "a", *flag), f"argument {flag[0]}: not allowed with argument --pred")
            for flag in [*BESIDE_PREDICTIONS, ("--quiet",)]
        ],
    ],
)
def test_flags_that_do_not_go_together(flags, message, fails):
    assert message in fails("evaluate.py", *flags)


@pytest.fixture
def theirs(score, succeeds) -> Path:
    """A run with the scores of GUESSES, beside `run` with those of its network."""
    score("--run", "theirs")
    succeeds("evaluate.py", "--run", "run", *DATA, "--split", "train")
    return Path("theirs")


def test_two_runs_are_compared_class_by_class_with_an_interval(theirs, succeeds):
    said = succeeds("evaluate.py", "--compare", "run", "theirs")
    runs = [ImageScores.load(f"{run}/4_eval/per_image.npz") for run in ("run", "theirs")]
    first, second = (run.total() for run in runs)
    lines = [line.split() for line in said.splitlines()]
    assert ["A", "run:", "run/3_seg/best.pt"] in lines and ["B", "theirs:", "guesses"] in lines
    gain = second.miou() - first.miou()
    assert ["mIoU", f"{first.miou():.4f}", f"{second.miou():.4f}", f"{gain:+.4f}"] in lines
    a, b = first.iou()[0], second.iou()[0]
    assert ["background", f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}"] in lines
    mious = bootstrap_mious([run.pixels() for run in runs])
    low, high = percentile_interval(mious[:, 1] - mious[:, 0])
    assert 0 < low < gain < high
    assert f"95 % interval of the difference: {low:+.4f} to {high:+.4f} (10,000 paired" in said
    assert "\nB is better, on images like these\nnote: 18 images are few" in said
    swapped = succeeds("evaluate.py", "--compare", "theirs", "run")
    assert f"of the difference: {-high:+.4f} to {-low:+.4f} (" in swapped
    assert "\nA is better" in swapped
    itself = succeeds("evaluate.py", "--compare", "theirs", "theirs")
    assert "interval of the difference: +0.0000 to +0.0000 (" in itself
    assert "\nA and B may be equally good, on images like these\n" in itself


def fewer_images(ids: list[str]) -> tuple[str, tuple]:
    return f"they are of other images (18 and 17; {ids[17]} is in one alone)", ("--limit", 17)


def another_truth(ids: list[str]) -> tuple[str, tuple]:
    path = MASKS / f"{ids[2]}.png"
    values = read_mask(path, 21)
    values[0, 0] = 3 if values[0, 0] != 3 else 4
    Image.fromarray(values).save(path)
    return f"the ground truth of {ids[2]} is not the same, so it is other data", ()


def other_classes(ids: list[str]) -> tuple[str, tuple]:
    Path("shapes/classes.txt").write_text("".join(f"thing_{index}\n" for index in range(21)))
    return "class 0 is 'background' in one and 'thing_0' in the other", ()


@pytest.mark.parametrize("change", [fewer_images, another_truth, other_classes])
def test_runs_that_scored_something_else_are_refused(change, theirs, guesses, score, fails):
    message, flags = change(guesses)
    score("--run", "other", *flags)
    line = fails("evaluate.py", "--compare", "theirs", "other")
    assert f"theirs and other cannot be compared: {message}; score both on the same list" in line


def test_a_run_without_scores_is_named(theirs, fails):
    shutil.copytree(theirs, "other")
    path = Path("other/4_eval/per_image.npz")
    path.write_bytes(path.read_bytes()[:-9])
    line = fails("evaluate.py", "--compare", "theirs", "other")
    assert f"{path}: cannot be read as the scores of images; run step 4 again, for other" in line
    path.unlink()
    line = fails("evaluate.py", "--compare", "other", "theirs")
    assert f"{path}: no such file; run step 4 again, for other" in line
    path.with_name("config.json").unlink()
    line = fails("evaluate.py", "--compare", "theirs", "other")
    assert "step 4 has not finished there" in line
