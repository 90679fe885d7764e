"""The run folder: steps are whole or not at all, and what does not belong together is refused."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from data import UserError
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.run import folder
from models.segmenter import Segmenter, save_segmenter
from tests.conftest import HOME


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("sys.argv", ["x.py", "--run", "a run"])
    return tmp_path / "run"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1])
    head = DenseClassifier(hypercolumn.channels, torch.zeros(64), torch.ones(64), 2, (4, 4))
    return Segmenter(hypercolumn, head, 32, 2, ["a", "b"], [[0, 0, 0], [255, 0, 0]])


def save_step(run: Path, step: int, **results) -> None:
    folder.save_config(folder.step_folder(run, step), step, {"started": 0.0}, **results)


@pytest.mark.parametrize("step", folder.STEPS)
def test_every_step_has_a_script_of_its_name(step):
    script, name = folder.STEPS[step]
    assert (HOME / f"{script}.py").is_file() and name.startswith(f"{step}_")
    assert folder.step_title(step) == f"[{step}/5] {script}"


def test_a_new_folder_takes_the_place_of_the_old_one_when_it_is_complete(run):
    place = folder.step_folder(run, 2)
    with folder.new_folder(place) as new:
        (new / "dense.pt").write_text("first")
        assert not place.exists()
    for error in (KeyError, KeyboardInterrupt):
        with pytest.raises(error), folder.new_folder(place) as new:
            (new / "log.csv").write_text("half")
            raise error
    assert [path.name for path in place.iterdir()] == ["dense.pt"]
    (run / ".2_cls.new").mkdir()  # of a killed process
    (run / ".2_cls.new" / "litter").touch()
    with folder.new_folder(place) as new:
        (new / "log.csv").write_text("second")
    assert [path.name for path in place.iterdir()] == ["log.csv"]
    assert {path.name for path in run.iterdir()} <= {"2_cls", ".2_cls.lock"}


def test_an_error_in_a_new_folder_names_the_place_that_the_user_knows(run):
    place = folder.step_folder(run, 1)
    with pytest.raises(OSError) as refusal, folder.new_folder(place) as new:
        raise OSError(28, "No space left on device", str(new / "features.npy"))
    assert refusal.value.filename == str(place / "features.npy")


def test_a_step_keeps_other_runs_out_of_its_folder_while_it_lasts(run):
    place = run / "2_cls"
    with folder.claim(place):
        message = f"^{place}: another process is writing there; wait, or use another --run$"
        with pytest.raises(UserError, match=message), folder.claim(place):
            pass
        with folder.claim(run / "3_seg"):
            pass
    with pytest.raises(KeyError), folder.claim(place):
        raise KeyError
    with folder.claim(place):
        pass


def test_only_the_main_process_claims_a_folder(run, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with folder.claim(run / "2_cls"):
        assert not run.exists()


def test_a_step_is_finished_once_its_config_is_there(run, capsys):
    again = f"step 2 has not finished there; run it first: python train_cls.py --run {run}$"
    with pytest.raises(UserError, match=again):
        folder.finished(run, 2)
    flags = {"lr": 0.1, "run": run, "classes": ["é", "b"], "started": 0.0, "recipe": "best: -x"}
    config = folder.save_config(folder.step_folder(run, 2), 2, flags, miou=float("nan"))
    found = folder.finished(run, 2)
    expected = {"lr": 0.1, "run": str(run), "classes": ["é", "b"], "miou": None}
    assert found.items() >= {**expected, "step": "train_cls", "format": folder.FORMAT}.items()
    assert found["command"] == "python train_cls.py --run 'a run'" and found["seconds"] > 1e9
    assert found["versions"]["torch"] == torch.__version__ and folder.is_finished(run, 2)
    folder.finish(run, 2, config, "all of it", ("train_seg.py", "--run", Path("a run")))
    printed = f"wrote {run / '2_cls'}: all of it\n"
    printed += "next: python train_seg.py --run 'a run' --recipe best\n"
    assert capsys.readouterr().out == printed


def test_versions_are_found_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert folder.versions()["commit"] is None


@pytest.mark.parametrize("text", [b"", b'{"format": 1', b"null", b"[1]", b"{}", b"\xff\xfe"])
def test_a_damaged_config_is_refused_with_what_to_do(run, text):
    folder.save_json(run / "1_features" / "config.json", {})
    (run / "1_features" / "config.json").write_bytes(text)
    message = "config.json: cannot be read; run step 1 again: python sample_features.py"
    with pytest.raises(UserError, match=message):
        folder.finished(run, 1)


@pytest.mark.parametrize("change, age", [(1, "a newer"), (-1, "an earlier")])
def test_a_config_of_another_version_is_refused(change, age, run):
    folder.save_json(run / "1_features" / "config.json", {"format": folder.FORMAT + change})
    with pytest.raises(UserError, match=f"written by {age} version .format"):
        folder.finished(run, 1)


def test_a_folder_is_kept_aside_under_the_first_free_number(run):
    place = run / "3_seg"
    place.mkdir(parents=True)
    assert folder.keep_aside(place) is None and place.is_dir(), "it holds nothing"
    for number in (1, 2):
        place.mkdir(exist_ok=True)
        (place / "best.pt").write_text(str(number))
        assert folder.keep_aside(place) == run / f"3_seg.{number}"
    assert [(run / f"3_seg.{n}" / "best.pt").read_text() for n in (1, 2)] == ["1", "2"]


# What goes on from what


def test_the_network_is_the_one_named_else_the_best_of_step_3_else_that_of_step_2(run, segmenter):
    with pytest.raises(UserError, match="step 2 has not finished"):
        folder.trained_segmenter(run, None)
    save_step(run, 2, id="two", made_from=None)
    with pytest.raises(UserError, match="dense.pt: no such checkpoint"):
        folder.trained_segmenter(run, None)
    named = run / "named.pt"
    places = (None, run / "2_cls" / "dense.pt"), (None, run / "3_seg" / "best.pt"), (named, named)
    for stride, (checkpoint, path) in enumerate(places, start=2):
        segmenter.stride = stride
        save_segmenter(path, segmenter, made_from=None)
        found, source = folder.trained_segmenter(run, checkpoint)
        assert (found.stride, source) == (stride, path)
    assert folder.trained_segmenter(None, run)[1] == run / "3_seg" / "best.pt", "a run's folder"


def test_what_was_made_from_something_else_is_refused_at_the_link_that_is_broken(run, segmenter):
    save_segmenter(run / "3_seg" / "best.pt", segmenter, made_from="two")
    folder.trained_segmenter(run, None)  # nothing is there to compare with
    save_step(run, 2, id="two", made_from="one")
    save_step(run, 1, id="one")
    folder.trained_segmenter(run, None)
    save_step(run, 1, id="another")
    words = "2_cls: made from something else than .*1_features holds now; run train_cls.py again"
    with pytest.raises(UserError, match=words):
        folder.trained_segmenter(run, None)
    save_step(run, 2, id="new", made_from="another")
    words = "best.pt: made from something else than .*2_cls holds now; run train_seg.py again"
    with pytest.raises(UserError, match=words):
        folder.trained_segmenter(run, None)
    save_segmenter(run / "3_seg" / "best.pt", segmenter, made_from=None)  # of --init
    folder.trained_segmenter(run, None)


def test_another_extractor_or_size_is_another_step_1(segmenter):
    spec = segmenter.hypercolumn.spec()
    found = {folder.extractor_id({**spec, name: "other"}, 32) for name in spec}
    found |= {folder.extractor_id(spec, size) for size in (32, 48)}
    assert len(found) == len(spec) + 2 and folder.extractor_id(dict(spec), 32) in found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a", "x"], "voc: class 1 is 'x' there but 'b' in dense.pt; use the data"),
        (["a"], "voc: class 1 is 'none' there but 'b'"),
        (["a", "b", "c"], "voc: class 2 is 'c' there but 'none'"),
    ],
)
def test_other_classes_are_refused_naming_the_first_difference(given, words):
    folder.check_classes(["a", "b"], ("a", "b"), Path("dense.pt"), Path("voc"))
    with pytest.raises(UserError) as refusal:
        folder.check_classes(["a", "b"], given, Path("dense.pt"), Path("voc"))
    assert str(refusal.value).startswith(words)


# Files


def test_json_keeps_plain_values_and_a_failure_keeps_the_old_file(run):
    path = run / "metrics.json"
    content = {"list": [1, None, True], "inner": {"name": "é"}}
    numbers = {"miou": np.float32(0.5), "count": np.int64(3), "none": float("nan")}
    odd = {"path": Path("a/b"), "per_class": {"a": float("nan")}}
    folder.save_json(path, {**content, **numbers, **odd})
    expected = {**content, "miou": 0.5, "count": 3, "none": None, "path": "a/b"}
    assert json.loads(path.read_text(encoding="utf-8")) == {**expected, "per_class": {"a": None}}
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


def test_skipped_images_are_listed_where_there_are_any(tmp_path):
    words = folder.save_skipped(tmp_path, {"a": "a.png: damaged", "b": "b.jpg: no such file"})
    assert words == "; left out 2 bad images, listed in skipped.txt"
    text = (tmp_path / "skipped.txt").read_text()
    assert text == "a: a.png: damaged\nb: b.jpg: no such file\n"
    assert folder.save_skipped(tmp_path, {}) == ""
