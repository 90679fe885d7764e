"""Step 4 on predictions of other programs and in folders of its own; runs side by side."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import read_mask
from data.voc import read_ids
from losses.compare import compared, short_names
from losses.metrics import ConfusionMatrix, class_ious, load_image_scores
from tests.conftest import DATA
from tests.scripts.processes import contents, differences, metrics, table

COMPARE = "losses/compare.py"
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
    said = succeeds("evaluate.py", *flags, charts=True)
    ours, theirs = contents(Path("run/4_eval")), contents(Path("same/4_eval"))
    assert set(theirs) == {name for name in ours if not name.startswith("predictions/")}
    other = [name for name in theirs if differences(ours[name], theirs[name])]
    assert set(other) == {"config.json", "metrics.json"}
    ours, theirs = metrics("run"), metrics("same")
    assert theirs["checkpoint"] is None
    assert theirs["protocol"].startswith(f"predictions in {predictions}; 3 images of val")
    of_source = {"checkpoint", "protocol", "predictions"}
    assert all(ours[name] == theirs[name] for name in ours.keys() - of_source)
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
    return f"{path}: the mask is {width - 1}x{height} but its image is {width}x"


def of_no_class(path: Path) -> str:
    values = np.array(Image.open(path))
    values[3, 4] = 21
    Image.fromarray(values).save(path)
    return f"{path}: label 21 is outside the classes 0..20"


def absent(path: Path) -> str:
    path.unlink()
    return f"{path}: no such file"


@pytest.mark.parametrize("spoil", [of_another_size, of_no_class, absent])
def test_a_prediction_that_cannot_be_scored_ends_it_and_earlier_scores_stay(
    spoil, guesses, score, fails
):
    score("--run", "theirs")
    before = contents(Path("theirs"))
    message = spoil(GUESSES / f"{guesses[7]}.png")
    line = fails("evaluate.py", *SPLIT, "--predictions", GUESSES, "--run", "theirs")
    assert message in line and differences(contents(Path("theirs")), before) == []


def test_scores_in_a_folder_of_their_own_leave_those_of_the_run(street, succeeds):
    before = contents(Path("run"))
    flags = ("--run", "run", *DATA, "--save-predictions")
    said = succeeds("evaluate.py", *flags, "--out", "kept/plain", charts=True)
    assert "wrote kept/plain: mIoU" in said and "next:" not in said
    ours = {name: value for name, value in before.items() if name.startswith("4_eval/")}
    kept = {f"4_eval/{name}": value for name, value in contents(Path("kept/plain")).items()}
    assert differences(kept, ours) == ["/4_eval/config.json/out"]
    succeeds("evaluate.py", *flags[:-1], "--out", "kept/plain", "--limit", 2)
    assert len(load_image_scores("kept/plain/per_image.npz")[1]) == 2
    assert not Path("kept/plain/predictions").exists()
    predictions = "run/4_eval/predictions"
    succeeds("evaluate.py", *DATA[:2], "--predictions", predictions, "--out", "kept/theirs")
    assert Path("kept/theirs/config.json").is_file()
    assert differences(contents(Path("run")), before) == []


@pytest.mark.parametrize("file", ["notes.txt", "predictions/cat.png", "1_features/config.json"])
def test_a_folder_of_something_else_is_not_written_to(file, street, fails):
    path = Path("other") / file
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    line = fails("evaluate.py", "--run", "run", *DATA, "--out", "other")
    assert f"--out other: holds other files ({Path(file).parts[0]}); name a new folder" in line
    assert [path for path in Path("other").rglob("*") if path.is_file()] == [path]
    assert f"{path}: " in fails("evaluate.py", "--run", "run", *DATA, "--out", path)


def test_predictions_do_not_replace_the_score_of_a_network(guesses, fails):
    before = contents(Path("run"))
    line = fails("evaluate.py", *SPLIT, "--predictions", GUESSES, "--run", "run")
    assert "--run run: holds step 1 of a network" in line and "name another folder" in line
    assert differences(contents(Path("run")), before) == []


WHERE = "argument --run: not allowed with arguments --predictions and --out"


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "the following arguments are required: --run"),
        (("--predictions", "a", "--run", "b", "--out", "c"), WHERE),
        (
            ("--predictions", "a", "--tta", "flip"),
            "argument --tta: not allowed with argument --pre",
        ),
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


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in a text."""
    lines = (line for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_runs_are_compared_with_the_first_and_by_class(theirs, succeeds):
    said = succeeds(COMPARE, "run", "theirs")
    found = [load_image_scores(f"{run}/4_eval/per_image.npz")[2] for run in ("run", "theirs")]
    ours, other = compared(np.stack(found))
    lines = cells(said)
    assert "run: run/3_seg/best.pt, one view of each image\ntheirs: guesses\n" in said
    a, b = (class_ious(counts.sum(0))[0] for counts in found)
    assert ["background", f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}"] in lines
    (_, *mine), (_, *last) = lines[-2:]
    bounds = f"{ours['miou_low']:.4f} to {ours['miou_high']:.4f}"
    assert mine[:3] == [f"{ours['miou']:.4f}", bounds, f"{ours['pixel_accuracy']:.4f}"]
    bounds = f"{other['difference_low']:+.4f} to {other['difference_high']:+.4f}"
    assert last[3:] == [f"{other['difference']:+.4f}", bounds, "better"]
    assert "from 10,000 paired resamples" in said and "\nnote: 18 images are few" in said
    assert not list(Path().glob("compare.*")), "without --out nothing is written"


def test_any_number_of_scores_is_compared_and_saved(theirs, succeeds):
    flags = ("--run", "run", *DATA, "--split", "train", "--tta", "flip")
    succeeds("evaluate.py", *flags, "--out", "kept/theirs/flip")
    places = ("theirs", "run", "kept/theirs/flip", "theirs/4_eval")
    said = succeeds(COMPARE, *places, "--out", "table", charts=True)
    views = "mean probabilities at scales 1, flipped too"
    flipped = "kept/theirs/flip"
    assert f"{flipped}: run/3_seg/best.pt, {views}\n" in said
    assert "wrote table: compare.csv, compare.png" in said
    tables = cells(said)
    assert [len(line) for line in tables] == [5] * 24 + [7] * 6
    assert [line[-1] for line in tables[-4:]] == ["", "worse", "worse", "may be equal"]
    rows = table("table/compare.csv")
    assert [row["run"] for row in rows] == list(places)
    assert (rows[0]["difference"], rows[3]["difference_high"]) == ("", "0.0")
    miou = json.loads(Path(flipped, "metrics.json").read_text())["miou"]
    assert float(rows[2]["miou"]) == pytest.approx(miou, rel=1e-14)
    assert Image.open("table/compare.png").format == "PNG"


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("a/x/4_eval", "a/y/4_eval"), ["x", "y"]),
        (("a/x", "a/x/flip"), ["x", "x/flip"]),
        (("a/x", "b/x"), ["a", "b"]),
        (("a/x", "a/x"), ["x", "x"]),
    ],
)
def test_runs_have_short_names_that_tell_them_apart(places, names):
    assert short_names([Path(place) for place in places]) == names


def test_kept_scores_are_refused_once_their_checkpoint_has_changed(street, succeeds, fails):
    dense = ("--checkpoint", "run/2_cls/dense.pt")
    succeeds("evaluate.py", "--run", "run", *DATA, "--out", "best")
    succeeds("evaluate.py", "--run", "run", *DATA, *dense, "--out", "start")
    succeeds(COMPARE, "start", "best")
    shutil.copy("run/2_cls/dense.pt", "run/3_seg/best.pt")
    line = fails(COMPARE, "start", "best")
    assert "best: scores of an earlier network; run step 4 again, for best" in line
    shutil.rmtree("run")
    succeeds(COMPARE, "start", "best")


def test_runs_that_scored_another_truth_are_refused(theirs, guesses, score, fails):
    path = MASKS / f"{guesses[2]}.png"
    values = read_mask(path, 21)
    values[0, 0] = 3 if values[0, 0] != 3 else 4
    Image.fromarray(values).save(path)
    score("--run", "other")
    words = f"the ground truth of {guesses[2]} is not the same, so it is other data"
    words = f"theirs and other cannot be compared: {words}; score both on the same list"
    assert words in fails(COMPARE, "theirs", "theirs", "other")


def test_a_run_without_scores_is_named(theirs, fails):
    shutil.copytree(theirs, "other")
    path = Path("other/4_eval/per_image.npz")
    path.write_bytes(path.read_bytes()[:-9])
    line = fails(COMPARE, "theirs", "other")
    assert f"{path}: cannot be read as the scores of images; run step 4 again" in line
    path.unlink()
    line = fails(COMPARE, "other", "theirs")
    assert f"{path}: no such file; run step 4 again" in line
    path.with_name("config.json").unlink()
    line = fails(COMPARE, "theirs", "other")
    assert "other/4_eval: step 4 has not finished there; run it first: python eval" in line
    shutil.copytree("theirs/4_eval", "kept")
    Path("kept/config.json").unlink()
    line = fails(COMPARE, "theirs", "kept")
    assert line.endswith("run it first: python evaluate.py --run RUN --out kept")
