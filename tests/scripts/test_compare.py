"""Step 4 on predictions of other programs and in folders of its own; runs side by side."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC, VOID
from data.image_files import read_mask
from data.voc_files import read_ids
from losses.compare import compared
from losses.metrics import class_ious, load_image_scores
from tests.conftest import DATA, STEPS
from tests.scripts.processes import contents, metrics, read_json, table

COMPARE = "losses/compare.py"
GUESSES, MASKS = Path("guesses"), Path("shapes/SegmentationClass")
SCORE = ("evaluate.py", *DATA, "--split", "train")
SCORE_THEIRS = (*SCORE, "--predictions", GUESSES, "--out", "theirs")


@pytest.fixture
def theirs(street, succeeds) -> Path:
    """Scores of the truth, but every fifth column wrong, which is saved in GUESSES."""
    GUESSES.mkdir()
    for image_id in read_ids(Path("shapes"), "train"):
        values = read_mask(MASKS / f"{image_id}.png", VOC)
        values[values == VOID] = 0
        values[:, ::5] = (values[:, ::5] + 1) % 21
        Image.fromarray(values).save(GUESSES / f"{image_id}.png")
    succeeds(*SCORE_THEIRS)
    return Path("theirs")


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


def columns(text: str) -> list[dict[str, str]]:
    """What a table in markdown says of each run, by the names of its lines."""
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    names, *runs = zip(*([cell.strip() for cell in line] for line in lines))
    return [dict(zip(names, run)) for run in runs]


SPOILT = [  # what is made of a prediction, what is said of it
    (lambda values: values[:, :-1], "x64 but its image shapes"),
    (lambda values: values * 0 + 21, "label 21 is outside the classes 0..20 "),
    (lambda values: values | 255, "; 255 is void: save the likeliest class"),
    (None, "no such file"),
]


@pytest.mark.parametrize("spoil, message", SPOILT)
def test_what_cannot_be_scored_ends_it_and_earlier_scores_stay(spoil, message, theirs, fails):
    before, path = contents(theirs), max(GUESSES.iterdir())
    values = np.array(Image.open(path))
    path.unlink()
    if spoil:
        Image.fromarray(spoil(values)).save(path)
    line = fails(*SCORE_THEIRS)
    assert f"{path}: " in line and message in line
    assert contents(theirs) == before


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


def test_scores_in_a_folder_of_their_own_leave_those_of_the_run(street, succeeds):
    before, flags = contents("run"), ("--run", "run", *DATA, "--out", "kept/plain")
    said = succeeds("evaluate.py", *flags, "--save-predictions")
    assert "wrote kept/plain: mIoU" in said and "next:" not in said
    ours, kept = contents("run/4_eval"), contents("kept/plain")
    assert kept["config.json"].pop("out") != ours["config.json"].pop("out") and kept == ours
    *_, counts = load_image_scores("kept/plain/per_image.npz")
    succeeds("evaluate.py", *flags, "--limit", 2, "--dilate", 1)
    *_, dilated = load_image_scores("kept/plain/per_image.npz")
    assert len(dilated) == 2 and not np.array_equal(dilated, counts[:2])
    assert not Path("kept/plain/predictions").exists()
    assert contents("run") == before


def test_runs_are_compared_with_the_first_and_by_class_and_saved(theirs, succeeds):
    succeeds(*SCORE, "--run", "run")
    said = succeeds(COMPARE, "run", "theirs")
    found = [load_image_scores(f"{run}/per_image.npz")[2] for run in ("run/4_eval", "theirs")]
    assert "theirs differs in: network guesses; evaluate --size none\n" in said
    assert "\nnote: 18 images are few" in said
    for run, scores, counts in zip(columns(said), compared(np.stack(found)), found):
        assert run["miou low"] == f"{scores['miou_low']:.4f}" and run["images"] == "18"
        assert run["difference high"] == f"{scores['difference_high']:+.4f}"
        for name, iou in zip(VOC.names, class_ious(counts.sum(0))):
            assert run[f"IoU {name}"] == ("absent" if np.isnan(iou) else f"{iou:.4f}")
    places = ["theirs", "run", "theirs"]
    said = succeeds(COMPARE, *places, "--out", "table")
    assert "wrote table: compare.csv, compare.png" in said
    assert [run["verdict"] for run in columns(said)] == ["", "worse", "may be equal"]
    rows = table("table/compare.csv")
    assert [row["run"] for row in rows] == places and rows[2]["difference_high"] == "0.0"
    assert Image.open("table/compare.png").format == "PNG"


def test_what_differs_between_runs_is_said_wherever_they_are_now(street, succeeds, fails):
    flags = ("--save-predictions", "--tta", "flip", "--out", "flipped")
    succeeds("evaluate.py", "--run", "run", *DATA, *flags)
    assert "flipped differs in: evaluate --tta flip\n" in succeeds(COMPARE, "run", "flipped")
    Path("run").rename("moved")
    photo = f"shapes/JPEGImages/{read_ids(Path('shapes'), 'train')[0]}.jpg"
    Image.open(photo).rotate(180).save(photo)
    for name in ("sample_features", "train_cls", "evaluate"):
        succeeds(f"{name}.py", "--run", "new", *STEPS[name])
    said = succeeds(COMPARE, "moved", "new", "moved")
    assert re.search(r"in: without train_seg; sample_features images 18 \(\w+\)\n", said)
    assert "moved differs in: nothing\n" in said
    assert "moved differs in: with train_seg; " in succeeds(COMPARE, "new", "moved")
    assert "run/4_eval: step 4 has not finished there; run it" in fails(COMPARE, "moved", "run")
