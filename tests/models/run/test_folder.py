"""The run folder: steps finish last, what does not belong together is refused, runs are read."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from models import RunError
from models.backbones import fingerprint
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.run import folder
from models.segmenter import Segmenter, save_segmenter
from tests.conftest import HOME


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1])
    head = DenseClassifier(hypercolumn.channels, torch.zeros(64), torch.ones(64), 2, (4, 4))
    return Segmenter(hypercolumn, head, 32, 2, ["a", "b"], [[0, 0, 0], [255, 0, 0]])


def features_of(segmenter, **changed) -> dict:
    """The config of step 1 that goes with a segmenter."""
    size = changed.pop("size", segmenter.size)
    return {"hypercolumn": {**segmenter.hypercolumn.spec(), **changed}, "size": size}


@pytest.mark.parametrize("step", folder.STEPS)
def test_every_step_has_a_script_of_its_name(step):
    script, name = folder.STEPS[step]
    assert (HOME / f"{script}.py").is_file() and name.startswith(f"{step}_")
    assert folder.step_title(step) == f"[{step}/5] {script}"


def test_a_step_is_finished_from_its_config_to_the_next_time_it_writes(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x.py", "--run", "a run"])
    place = folder.step_folder(run, 2)
    assert place == run / "2_cls"
    place.mkdir(parents=True)
    again = f"step 2 has not finished there; run it first: python train_cls.py --run {run}$"
    with pytest.raises(RunError, match=again):
        folder.finished(run, 2)
    (place / "head.pt").write_text("kept")
    (place / ".log.csv.123.part").write_text("litter of a killed process")
    config = {"lr": 0.1, "run": run, "classes": ["é", "b"], "miou": float("nan")}
    folder.finish(run, 2, config, wrote="all of it", then=("train_seg.py", "--run", Path("a run")))
    printed = f"wrote {place}: all of it\nnext: python train_seg.py --run 'a run'\n"
    assert capsys.readouterr().out == printed
    found = folder.finished(run, 2)
    expected = {
        **config,
        "run": str(run),
        "miou": None,
        "step": "train_cls",
        "format": folder.FORMAT,
    }
    assert found.items() >= expected.items() and folder.is_finished(run, 2)
    assert found["command"] == "python train_cls.py --run 'a run'"
    assert found["versions"]["torch"] == torch.__version__
    folder.mark_unfinished(place)
    assert [path.name for path in place.iterdir()] == ["head.pt"]
    assert not folder.is_finished(run, 2)


def test_versions_are_found_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert folder.versions()["commit"] is None


def test_a_step_keeps_other_runs_out_of_its_folder_while_it_lasts(run):
    place = run / "2_cls"
    with folder.claim(place):
        assert not list(place.iterdir())
        message = f"^{place}: process {os.getpid()} on .* is writing there; wait, or use another"
        with pytest.raises(RunError, match=message), folder.claim(place):
            pass
        with folder.claim(run / "3_seg"):
            pass
    with pytest.raises(KeyError), folder.claim(place):
        raise KeyError
    with folder.claim(place):
        pass


def test_only_the_main_process_claims_a_folder(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with folder.claim(run / "2_cls"):
        assert not run.exists()


def test_a_folder_that_cannot_be_made_is_noticed(run):
    run.write_text("a file")
    with pytest.raises(OSError), folder.claim(run / "2_cls"):
        pass


@pytest.mark.parametrize("text", [b"", b'{"format": 1', b"null", b"[1]", b"{}", b"\xff\xfe"])
def test_a_damaged_config_is_refused_with_what_to_do(run, text):
    folder.save_json(run / "1_features" / "config.json", {})
    (run / "1_features" / "config.json").write_bytes(text)
    message = "config.json: cannot be read; run step 1 again: python sample_features.py"
    with pytest.raises(RunError, match=message):
        folder.finished(run, 1)


@pytest.mark.parametrize(
    "change, message",
    [
        (1, "a newer version .format 3, this one reads 2"),
        (-1, "an earlier version .format 1, this one"),
    ],
)
def test_a_config_of_another_version_is_refused(change, message, run):
    folder.save_json(run / "1_features" / "config.json", {"format": folder.FORMAT + change})
    with pytest.raises(RunError, match=f"written by {message}"):
        folder.finished(run, 1)


def test_a_folder_is_kept_aside_under_the_first_free_number(run):
    place = run / "3_seg"
    assert folder.keep_aside(place) is None
    place.mkdir(parents=True)
    assert folder.keep_aside(place) is None and place.is_dir(), "it holds nothing"
    for number in (1, 2):
        place.mkdir(exist_ok=True)
        (place / "best.pt").write_text(str(number))
        assert folder.keep_aside(place) == run / f"3_seg.{number}"
    assert not place.exists()
    assert [(run / f"3_seg.{n}" / "best.pt").read_text() for n in (1, 2)] == ["1", "2"]


# What goes on from what


def test_the_network_is_the_one_named_else_the_best_of_step_3_else_that_of_step_2(run, segmenter):
    with pytest.raises(RunError, match="step 2 has not finished"):
        folder.trained_segmenter(run, None)
    folder.finish(run, 2, {"head": "of step 2"}, "")
    with pytest.raises(RunError, match="dense.pt: no such checkpoint"):
        folder.trained_segmenter(run, None)
    named = run / "named.pt"
    places = (None, run / "2_cls" / "dense.pt"), (None, run / "3_seg" / "best.pt"), (named, named)
    for stride, (checkpoint, path) in enumerate(places, start=2):
        segmenter.stride = stride
        save_segmenter(path, segmenter, start="of step 2")
        found, source = folder.trained_segmenter(run, checkpoint)
        assert (found.stride, source) == (stride, path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backbone": "vgg13"}, "vgg13 (taps 1,"),
        ({"taps": [1, 2]}, "(taps 1,2, context none"),
        ({"context": ["image", "5"]}, "context image,5, weights"),
        ({"dilated": 1}, "context none, 1 strides dilated"),
        ({"fingerprint": 16 * "f"}, "weights " + 16 * "f"),
        ({"size": 48}, "size 48)"),
    ],
)
def test_features_of_another_extractor_or_size_are_refused_naming_both(
    run, segmenter, changed, words
):
    best = run / "3_seg" / "best.pt"
    save_segmenter(best, segmenter)
    folder.check_features(run, segmenter, best)  # there is no step 1 to compare with
    folder.finish(run, 1, features_of(segmenter), "")
    folder.trained_segmenter(run, None)
    folder.finish(run, 1, features_of(segmenter, **changed), "")
    with pytest.raises(RunError) as refusal:
        folder.trained_segmenter(run, None)
    ours = f"{best}: made with squeezenet1_1 (taps 1, context none, weights "
    assert str(refusal.value).startswith(ours)
    assert words in str(refusal.value).partition("1_features with ")[2]
    assert folder.trained_segmenter(run, best)[1] == best, "a file that is named is the user's"


def test_a_fine_tuned_backbone_goes_with_the_features_of_the_one_it_was(run, segmenter):
    segmenter.origin = "0123"
    folder.finish(run, 1, features_of(segmenter, fingerprint="0123"), "")
    folder.check_features(run, segmenter, run)
    segmenter.origin = None
    with pytest.raises(RunError):
        folder.check_features(run, segmenter, run)


def test_a_network_trained_from_another_head_is_refused(run, segmenter):
    save_segmenter(run / "3_seg" / "best.pt", segmenter, start="first")
    folder.finish(run, 2, {"head": "first"}, "")
    folder.trained_segmenter(run, None)
    folder.finish(run, 2, {"head": "second"}, "")
    with pytest.raises(RunError, match="best.pt: trained from another head than .*2_cls holds"):
        folder.trained_segmenter(run, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a", "x"], "voc: class 1 is 'x' there but 'b' in dense.pt; use the data"),
        (["b", "a"], "voc: class 0 is 'b' there but 'a'"),
        (["a"], "voc: class 1 is 'none' there but 'b'"),
        (["a", "b", "c"], "voc: class 2 is 'c' there but 'none'"),
    ],
)
def test_other_classes_are_refused_naming_the_first_difference(given, words):
    folder.check_classes(["a", "b"], ("a", "b"), Path("dense.pt"), Path("voc"))
    with pytest.raises(RunError) as refusal:
        folder.check_classes(["a", "b"], given, Path("dense.pt"), Path("voc"))
    assert str(refusal.value).startswith(words)


def test_a_run_is_resumed_with_the_same_settings_alone():
    settings = {"--lr": 0.01, "--pixels": None, "images": "4 (abcd)"}
    folder.check_settings({**settings, "--older": 1}, settings, Path("last.pt"))
    message = "^--resume: last.pt was made with --pixels 512, not None; keep to that$"
    with pytest.raises(RunError, match=message):
        folder.check_settings({**settings, "--pixels": 512}, settings, Path("last.pt"))


# Records


def test_a_run_is_read_as_far_as_it_has_come(run):
    empty = folder.read_run(run)
    assert empty["configs"] == {1: None, 2: None, 3: None, 4: None}
    assert empty["logs"] == {2: None, 3: None}
    assert empty["metrics"] is empty["confusion"] is empty["moments"] is None

    one, four = folder.step_folder(run, 1), folder.step_folder(run, 4)
    for place in (one, four):
        place.mkdir(parents=True)
    np.save(one / "mean.npy", np.arange(3, dtype=np.float32))
    np.save(one / "std.npy", np.ones(3, dtype=np.float32))
    rows = [{"epoch": 0, "loss": None, "miou": 0.5}, {"epoch": 1, "loss": 0.25, "miou": 1.0}]
    folder.save_csv(run / "3_seg" / "log.csv", rows)
    folder.save_json(four / "metrics.json", {"miou": 0.5})
    (four / "confusion.csv").write_text(",a,b\na,3,1\nb,0,9999999999\n")
    for step in (1, 3, 4):
        folder.finish(run, step, {"size": step, "checkpoint": None}, "")
    record = folder.read_run(run)
    assert [config and config["size"] for config in record["configs"].values()] == [1, None, 3, 4]
    assert record["logs"] == {2: None, 3: rows}
    assert record["metrics"] == {"miou": 0.5}
    assert record["confusion"].tolist() == [[3, 1], [0, 9999999999]]
    assert [moment.tolist() for moment in record["moments"]] == [[0, 1, 2], [1, 1, 1]]
    assert record["command"].startswith("python visualize.py") and record["run"] == str(run)


def test_scores_are_old_once_the_network_that_was_scored_has_changed(run, segmenter):
    path = run / "other.pt"
    save_segmenter(path, segmenter)
    config = {"checkpoint": path, "network": fingerprint(segmenter), "scored_best": False}
    folder.finish(run, 4, config, "")
    assert not folder.scored_another_network(run)
    folder.finish(run, 4, {**config, "network": "0123"}, "")
    assert folder.scored_another_network(run)
    path.unlink()
    assert not folder.scored_another_network(run)
    folder.finish(run, 4, {"checkpoint": None}, "")  # predictions of any program
    assert not folder.scored_another_network(run)


def test_scores_of_step_2_are_old_once_step_3_has_run(run, segmenter):
    dense, best = run / "2_cls" / "dense.pt", run / "3_seg" / "best.pt"
    save_segmenter(dense, segmenter)
    folder.finish(run, 2, {"head": "h"}, "")
    config = {"checkpoint": dense, "network": fingerprint(segmenter), "scored_best": True}
    folder.finish(run, 4, config, "")
    assert not folder.scored_another_network(run)
    with torch.no_grad():
        segmenter.head.layers[-1].bias.add_(1)
    save_segmenter(best, segmenter, start="h")
    assert folder.scored_another_network(run)


def test_json_keeps_plain_values_and_a_failure_keeps_the_old_file(run):
    path = run / "metrics.json"
    content = {"list": [1, None, True], "inner": {"name": "é"}}
    numbers = {"miou": np.float32(0.5), "count": np.int64(3), "none": float("nan")}
    folder.save_json(path, {**content, **numbers, "path": Path("a/b")})
    expected = {**content, "miou": 0.5, "count": 3, "none": None, "path": "a/b"}
    assert json.loads(path.read_text(encoding="utf-8")) == expected
    before = path.read_bytes()
    with pytest.raises(TypeError):
        folder.save_json(path, {("a", "tuple"): 1})
    assert path.read_bytes() == before and list(run.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_json_takes_every_path_that_the_system_has(run):
    folder.save_json(run / "config.json", {"data": Path(os.fsdecode(b"photos-\xe9"))})
    found = json.loads((run / "config.json").read_bytes())["data"]
    assert os.fsencode(found) == b"photos-\xe9"


def test_csv_is_readable(run):
    rows = [{"epoch": "0", "loss": "", "name": "a,b"}, {"epoch": "1", "loss": "0.5", "name": "é"}]
    folder.save_csv(run / "log.csv", rows)
    with open(run / "log.csv", encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_skipped_images_are_listed_while_there_are_any(tmp_path):
    words = folder.save_skipped(tmp_path, {"a": "a.png: damaged", "b": "b.jpg: no such file"})
    path = tmp_path / "skipped.txt"
    assert words == f"; skipped 2 bad images, listed in {path}"
    assert path.read_text() == "a: a.png: damaged\nb: b.jpg: no such file\n"
    assert folder.save_skipped(tmp_path, {}) == "" and not path.exists()


def test_numbers_have_their_nouns():
    found = [folder.count(number, "epoch") for number in (0, 1, 2)]
    assert found == ["0 epochs", "1 epoch", "2 epochs"]
