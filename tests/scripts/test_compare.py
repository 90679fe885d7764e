"""Step 4 on predictions of other programs and in folders of its own; runs side by side."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC
from data.image_files import read_mask
from data.voc_files import read_ids
from losses.compare import compared
from losses.metrics import class_ious, iou_cell, load_image_scores
from tests.conftest import DATA
from tests.scripts.processes import contents, metrics, read_json, table

COMPARE = "losses/compare.py"
SPLIT = ("--data", "shapes", "--split", "train")
GUESSES, MASKS = Path("guesses"), Path("shapes/SegmentationClass")


@pytest.fixture
def guesses(street) -> list[str]:
    """Fills GUESSES with the truth, but every fifth column wrong, of the training images; ids."""
    GUESSES.mkdir()
    ids = read_ids(Path("shapes"), "train")
    for image_id in ids:
        values = read_mask(MASKS / f"{image_id}.png", VOC)
        values[values == 255] = 0
        values[:, ::5] = (values[:, ::5] + 1) % 21
        Image.fromarray(values).save(GUESSES / f"{image_id}.png")
    return ids


@pytest.fixture
def score(guesses, succeeds):
    """Scores GUESSES; what was printed."""
    return lambda *flags: succeeds("evaluate.py", *SPLIT, "--predictions", GUESSES, *flags)


def test_a_networks_own_predictions_score_as_the_network_does(street, succeeds):
    flags = ("--data", "shapes", "--predictions", "run/4_eval/predictions")
    said = succeeds("evaluate.py", *flags)
    ours, theirs = contents("run/4_eval"), contents("runs/scores")
    assert set(theirs) == {name for name in ours if not name.startswith("predictions/")}
    other = {name for name in theirs if ours[name] != theirs[name]}
    assert other == {"config.json", "metrics.json"}
    theirs = read_json(Path("runs/scores/metrics.json"))
    assert theirs == metrics("run") | {"checkpoint": None, "protocol": theirs["protocol"]}
    assert theirs["protocol"].startswith("predictions in run/4_eval/predictions; 3 images of val")
    assert f"wrote runs/scores: mIoU {theirs['miou']:.4f} over" in said


def cells(text: str) -> list[list[str]]:
    """The rows of tables in markdown, without the rules below their headings."""
    lines = [line for line in text.splitlines() if line.startswith("|") and {*line} - {*"|-: "}]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


UNFIT = "label {} is outside the classes 0..20 (each pixel of a prediction needs one; "
SPOILT = [  # what is made of a prediction, what is said of it
    (lambda values: values[:, :-1], "the mask is 63x64 but its image {stem}.jpg is 64x"),
    (lambda values: values * 0 + 21, UNFIT.format(21) + "is it class + 1?)"),
    (lambda values: values | 255, UNFIT.format(255) + "255 is void: save the likeliest "),
    (None, "no such file"),
]


@pytest.mark.parametrize("spoil, message", SPOILT)
def test_a_prediction_that_cannot_be_scored_ends_it_and_earlier_scores_stay(
    spoil, message, guesses, score, fails
):
    score("--out", "theirs")
    before, path = contents("theirs"), GUESSES / f"{guesses[7]}.png"
    values = np.array(Image.open(path))
    path.unlink()
    if spoil:
        Image.fromarray(spoil(values)).save(path)
    line = fails("evaluate.py", *SPLIT, "--predictions", GUESSES, "--out", "theirs")
    assert f"{path}: {message.format(stem=path.stem)}" in line
    assert contents("theirs") == before


@pytest.mark.parametrize("shift, way", [(1, "above"), (-1, "below"), (0, "")])
def test_predictions_shifted_by_a_class_are_said(shift, way, guesses, score):
    for path in GUESSES.iterdir():
        truth = np.array(Image.open(path)).clip(1, 19)
        Image.fromarray(truth).save(MASKS / path.name)
        Image.fromarray((truth + np.int64(shift)).astype(np.uint8)).save(path)
    said = score()
    assert (f"note: most predictions are the class {way} the true one" in said) == bool(way)
    assert ("are they shifted?" in said) == bool(way)


def test_a_list_without_masks_is_predicted_and_not_scored(street, succeeds, fails):
    before, flags = contents("run"), ("--run", "run", *DATA)
    ids = read_ids(Path("shapes"), "val")
    for image_id in ids:
        (MASKS / f"{image_id}.png").unlink()
    assert f"{MASKS / ids[0]}.png: no such file" in fails("evaluate.py", *flags)
    assert "--out FOLDER predicts alone" in fails("evaluate.py", *flags, "--save-predictions")
    said = succeeds("evaluate.py", *flags, "--save-predictions", "--out", "seen")
    assert "  note: no mask of val is there: its images are predicted, not scored" in said
    assert "mIoU" not in said and said.endswith("wrote seen: predictions, 3 images\n")
    files = {"config.json", *(f"predictions/{image_id}.png" for image_id in ids)}
    assert contents("seen").keys() == files
    assert contents("run") == before


def test_scores_in_a_folder_of_their_own_leave_those_of_the_run(street, succeeds, fails):
    before, flags = contents("run"), ("--run", "run", *DATA, "--out", "kept/plain")
    said = succeeds("evaluate.py", *flags, "--save-predictions")
    assert "wrote kept/plain: mIoU" in said and "next:" not in said
    ours, kept = contents("run/4_eval"), contents("kept/plain")
    assert kept["config.json"].pop("out") != ours["config.json"].pop("out") and kept == ours
    succeeds("evaluate.py", *flags, "--limit", 2)
    ids = read_ids(Path("shapes"), "val")
    assert load_image_scores("kept/plain/per_image.npz")[1] == ids[:2] != ids
    assert not Path("kept/plain/predictions").exists()
    Path("kept/plain/notes.txt").write_text("mine")
    assert "notes.txt: would be replaced" in fails("evaluate.py", *flags)
    assert contents("run") == before


def test_flags_that_do_not_go_together(fails):
    assert "the following arguments are required: --run" in fails("evaluate.py")
    both = ("evaluate.py", "--predictions", "a")
    for flags in (("--run", "b", "--out", "c"), ("--tta", "flip")):
        assert f"{flags[0]}: not allowed with argument --pre" in fails(*both, *flags)


@pytest.fixture
def theirs(score, succeeds) -> Path:
    """A run with the scores of GUESSES, beside `run` with those of its network."""
    score("--out", "theirs")
    succeeds("evaluate.py", "--run", "run", *DATA, "--split", "train")
    return Path("theirs")


def test_runs_are_compared_with_the_first_and_by_class_and_saved(theirs, succeeds):
    said = succeeds(COMPARE, "run", "theirs")
    found = [load_image_scores(f"{run}/per_image.npz")[2] for run in ("run/4_eval", "theirs")]
    ours, other = compared(np.stack(found))
    assert "run: run/3_seg/best.pt --split train\ntheirs: guesses --split train\n" in said
    a, b = (class_ious(counts.sum(0)) for counts in found)
    heading, *classes = cells(said)[:22]
    (_, *mine), (_, *last) = cells(said)[-2:]
    assert heading == ["", "run", "theirs", "minus first"]
    pairs = zip(VOC.names, map(iou_cell, a), map(iou_cell, b))
    assert [line[:3] for line in classes] == [[cell.strip() for cell in pair] for pair in pairs]
    assert classes[0][3] == f"{b[0] - a[0]:+.3f}"
    bounds = f"{ours['miou_low']:.4f} to {ours['miou_high']:.4f}"
    assert mine[:3] == [f"{ours['miou']:.4f}", bounds, f"{ours['pixel_accuracy']:.4f}"]
    bounds = f"{other['difference_low']:+.4f} to {other['difference_high']:+.4f}"
    differs = "without sample_features; without train_cls; without train_seg"
    assert last[3:] == [f"{other['difference']:+.4f}", bounds, "better", differs]
    assert "\nnote: 18 images are few" in said
    places = ["theirs", "run", "theirs"]
    said = succeeds(COMPARE, *places, "--out", "table")
    assert "wrote table: compare.csv, compare.png" in said
    assert [line[-2] for line in cells(said)[-3:]] == ["", "worse", "may be equal"]
    rows = table("table/compare.csv")
    assert [row["run"] for row in rows] == places
    assert (rows[0]["difference"], rows[2]["difference_high"]) == ("", "0.0")
    assert float(rows[1]["miou"]) == pytest.approx(ours["miou"], rel=1e-14)
    assert Image.open("table/compare.png").format == "PNG"


def test_what_differs_between_runs_is_said_wherever_they_are_now(street, succeeds):
    flags = ("--save-predictions", "--tta", "flip", "--out", "flipped")
    succeeds("evaluate.py", "--run", "run", *DATA, *flags)
    said = succeeds(COMPARE, "run", "flipped")
    assert [line[-1] for line in cells(said)[-2:]] == ["", "evaluate --tta flip"]
    Path("run").rename("moved")
    shutil.copytree("moved", "run")  # what is now where the moved run has been
    config = Path("run/2_cls/config.json")
    config.write_text(config.read_text("utf-8").replace('"--epochs": ', '"--epochs": 9'), "utf-8")
    last = cells(succeeds(COMPARE, "run", "moved"))[-1]
    assert last[-1].startswith("train_cls --epochs ")


def test_damaged_or_missing_scores_are_named(theirs, fails):
    path = Path("theirs/per_image.npz")
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path}: cannot be read as the scores of images" in fails(COMPARE, "run", "theirs")
    shutil.rmtree(theirs)
    line = fails(COMPARE, "theirs", "run")
    assert "theirs/4_eval: step 4 has not finished there; run it first: python eval" in line
