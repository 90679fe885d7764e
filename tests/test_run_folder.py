"""The run folder: steps finish last, what does not belong together is refused, files appear whole."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from models import RunError, run_folder, runtime
from models.checkpoint import FORMAT, save_segmenter
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter

SPEC = {"backbone": "vgg11", "taps": [1, 2], "fingerprint": "0123456789abcdef"}


def end(run, step, **settings) -> Path:
    """A finished step."""
    folder = run_folder.begin(run, step)
    run_folder.finish(run, step, settings, wrote="something")
    return folder


def test_a_step_is_finished_from_its_end_to_its_next_beginning(tmp_path, capsys):
    run = tmp_path / "runs" / "a"
    folder = run_folder.begin(run, 2)
    assert folder == run_folder.step_folder(run, 2) == run / "2_cls" and folder.is_dir()
    (folder / "head.pt").write_text("kept")
    with pytest.raises(RunError, match=f"step 2 has not finished there.* python train_cls.py --run {run}$"):
        run_folder.finished(run, 2)
    settings = {"lr": 0.1, "limit": None, "run": run, "classes": ["é", "b"], "hypercolumn": SPEC}
    run_folder.finish(run, 2, settings, wrote="all of it", then=("train_seg.py", "--run", Path("a run")))
    assert capsys.readouterr().out == f"wrote {folder}: all of it\nnext: python train_seg.py --run 'a run'\n"
    found = run_folder.finished(run, 2)
    assert found.items() >= {**settings, "run": str(run), "step": "train_cls", "format": FORMAT}.items()
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["versions"]) == {"python", "torch", "torchvision", "numpy", "commit"}
    run_folder.begin(run, 2)
    assert (folder / "head.pt").read_text() == "kept"
    with pytest.raises(RunError):
        run_folder.finished(run, 2)


def test_finish_works_outside_a_checkout_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    end(tmp_path, 1)
    assert run_folder.finished(tmp_path, 1)["versions"]["commit"] is None


@pytest.mark.parametrize("step", run_folder.STEPS)
def test_every_step_has_a_script_of_its_name(step):
    script, folder = run_folder.STEPS[step]
    assert (Path(runtime.__file__).parent.parent / f"{script}.py").is_file()
    assert folder.startswith(f"{step}_")


@pytest.mark.parametrize(
    "text", [b"", b'{"format": 1', b"[1]", b"null", b"1", b"{}", b"\xff\xfe", b'{"format": "1"}', b'{"format": null}']
)
def test_damaged_settings_are_refused_with_what_to_do(tmp_path, text):
    (end(tmp_path, 1) / "config.json").write_bytes(text)
    with pytest.raises(RunError, match="config.json: cannot be read; run step 1 again: python sample_features.py"):
        run_folder.finished(tmp_path, 1)


def test_settings_of_a_newer_version_are_refused(tmp_path):
    (end(tmp_path, 1) / "config.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(RunError, match=f"newer version .format {FORMAT + 1}, this one reads {FORMAT}"):
        run_folder.finished(tmp_path, 1)


def tiny_segmenter(seed=0) -> Segmenter:
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1], seed=seed)
    head = DenseClassifier(hypercolumn.channels, torch.zeros(64), torch.ones(64), classes=2, hidden=4)
    return Segmenter(hypercolumn, head, size=32, stride=2, names=["a", "b"], colours=[[0, 0, 0], [255, 0, 0]])


def test_trained_segmenter_is_the_one_named_else_the_best_of_step_3_else_that_of_step_2(tmp_path):
    run, named = tmp_path / "run", tmp_path / "named.pt"
    cls, seg = run / "2_cls" / "dense.pt", run / "3_seg" / "best.pt"
    for begun in range(2):
        with pytest.raises(RunError, match="step 2 has not finished"):
            run_folder.trained_segmenter(run, None)
        if not begun:
            run_folder.begin(run, 2)
    segmenter = tiny_segmenter()
    end(run, 2, head="of step 2")
    with pytest.raises(RunError, match=f"{cls}: no such checkpoint"):
        run_folder.trained_segmenter(run, None)
    run_folder.begin(run, 3)
    for stride, checkpoint, path in [(2, None, cls), (3, None, seg), (4, named, named)]:
        segmenter.stride = stride
        save_segmenter(path, segmenter, start="of step 2")
        found, source = run_folder.trained_segmenter(run, checkpoint)
        assert (found.stride, source) == (stride, path)
    with pytest.raises(RunError, match="none.pt: no such checkpoint"):
        run_folder.trained_segmenter(run, tmp_path / "none.pt")


def features_of(segmenter, **change):
    return {"hypercolumn": {**segmenter.hypercolumn.spec(), **change}, "size": change.get("size", segmenter.size)}


@pytest.mark.parametrize("change", [{"backbone": "vgg13"}, {"taps": [1, 2]}, {"fingerprint": "f" * 16}, {"size": 48}])
def test_features_from_another_extractor_or_size_are_refused_naming_both(tmp_path, change):
    segmenter, best = tiny_segmenter(), tmp_path / "3_seg" / "best.pt"
    run_folder.check_features(tmp_path, segmenter, best)
    end(tmp_path, 1, **features_of(segmenter))
    run_folder.check_features(tmp_path, segmenter, best)
    features = features_of(segmenter, **change)
    features["hypercolumn"].pop("size", None)
    end(tmp_path, 1, **features)
    with pytest.raises(RunError) as refusal:
        run_folder.check_features(tmp_path, segmenter, best)
    message = str(refusal.value)
    assert message.startswith(f"{best}: made with squeezenet1_1 (taps 1, context none, weights ")
    assert "1_features with " in message
    assert all(str(value) in message for key, value in change.items() if key != "taps")
    save_segmenter(best, segmenter)
    with pytest.raises(RunError, match="made with squeezenet1_1"):
        run_folder.trained_segmenter(tmp_path, None)
    assert run_folder.trained_segmenter(tmp_path, best)[1] == best, "a file that is named is the user's choice"


def test_a_network_fine_tuned_from_another_head_is_refused(tmp_path):
    best = tmp_path / "3_seg" / "best.pt"
    end(tmp_path, 2, head="first")
    save_segmenter(best, tiny_segmenter(), start="first")
    assert run_folder.trained_segmenter(tmp_path, None)[1] == best
    end(tmp_path, 2, head="second")
    with pytest.raises(RunError, match="best.pt: trained from another head than .*2_cls holds now; run train_seg.py"):
        run_folder.trained_segmenter(tmp_path, None)


def test_json_has_null_for_nan(tmp_path):
    run_folder.save_json(tmp_path / "file.json", {"miou": float("nan"), "images": 3})
    assert json.loads((tmp_path / "file.json").read_text()) == {"miou": None, "images": 3}


def test_the_same_classes_pass_in_any_sequence_type():
    run_folder.check_classes(["a", "b"], ("a", "b"), Path("dense.pt"), Path("voc"))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["a", "x"], ("class 1", "'x'", "'b'")),
        (["b", "a"], ("class 0", "'b'", "'a'")),
        (["a"], ("class 1", "'none'", "'b'")),
        (["a", "b", "c"], ("class 2", "'c'", "'none'")),
    ],
)
def test_other_classes_are_refused_naming_the_first_difference(given, parts):
    with pytest.raises(RunError) as refusal:
        run_folder.check_classes(["a", "b"], given, Path("runs/dense.pt"), Path("voc"))
    for part in (*parts, "runs/dense.pt", "voc"):
        assert part in str(refusal.value)


def test_csv_is_readable_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "log.csv"
    run_folder.save_csv(path, [{"epoch": 0, "loss": None, "name": "a,b"}])
    run_folder.save_csv(path, [{"epoch": 0, "loss": None, "name": "a,b"}, {"epoch": 1, "loss": 0.5, "name": "é"}])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"epoch": "0", "loss": "", "name": "a,b"}, {"epoch": "1", "loss": "0.5", "name": "é"}]
    before = path.read_bytes()
    with pytest.raises(ValueError):
        run_folder.save_csv(path, [{"epoch": 0}, {"epoch": 1, "surprise": 2}])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "config.json"
    content = {"path": Path("a/b"), "list": [1, None, True], "inner": {"name": "é"}}
    run_folder.save_json(path, {"old": 1})
    run_folder.save_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == {**content, "path": "a/b"}
    before = path.read_bytes()
    with pytest.raises(TypeError):
        run_folder.save_json(path, {("a", "tuple"): 1})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_json_takes_every_path_that_the_system_has(tmp_path):
    run_folder.save_json(tmp_path / "config.json", {"data": Path(os.fsdecode(b"photos-\xe9"))})
    assert os.fsencode(json.loads((tmp_path / "config.json").read_bytes())["data"]) == b"photos-\xe9"
