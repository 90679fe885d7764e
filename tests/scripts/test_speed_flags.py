"""The flags that make steps 3 to 5 faster: what they say, what they leave as it was, and what they refuse."""

import csv
import re
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch

from data.shapes import make_shapes
from losses import loss
from models.checkpoint import load_segmenter

FLAGS = ("--epochs", "1", "--limit", "4", "--val-limit", "1", "--batch-size", "2", "--workers", "0")


@pytest.fixture(scope="module")
def fitted(drawn, in_process, tmp_path_factory) -> Path:
    """A run after steps 1 and 2, without dropout, so that what a flag changes shows."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    backbone = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48")
    for step in (
        ("sample_features.py", "--data", drawn, "--run", run, *backbone, "--workers", "0"),
        ("train_cls.py", "--run", run, "--epochs", "5", "--hidden", "16", "--dropout", "0"),
    ):
        done = in_process(*step)
        assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def train(drawn, in_process):
    """Runs step 3 on a few images."""
    return lambda run, *flags, data=drawn: in_process("train_seg.py", "--data", data, "--run", run, *FLAGS, *flags)


@pytest.fixture(scope="module")
def plain(fitted, train, tmp_path_factory) -> Path:
    """A run after step 3 without any of the flags."""
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("plain") / "run"))
    done = train(run)
    assert done.returncode == 0, done.stderr
    said = [facts(done)[name] for name in ("device", "pixels", "cache")]
    assert said == ["cpu, exact float32", "all labelled ones", "no: every epoch runs the backbone"]
    return run


@pytest.fixture
def run(fitted, tmp_path) -> Path:
    """A copy of the run after steps 1 and 2."""
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def facts(done) -> dict[str, str]:
    """What a step said about itself before it began."""
    return dict(re.findall(r"^  (\w+) {2,}(.+)$", done.stdout, re.MULTILINE))


def refusal(done) -> str:
    """The one line that a script failed with."""
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    return lines[0]


def head(path: Path) -> torch.Tensor:
    """All trained weights as one vector."""
    return torch.cat([value.detach().flatten() for value in load_segmenter(path)[0].head.parameters()])


def distance(run: Path, plain: Path) -> float:
    """How far two trainings from one start ended from each other, as a share of the way that one of them went."""
    start, ours, theirs = head(run / "2_cls/dense.pt"), head(run / "3_seg/last.pt"), head(plain / "3_seg/last.pt")
    assert not torch.equal(start, ours)
    return ((ours - theirs).norm() / (theirs - start).norm()).item()


def losses(run: Path) -> list[str]:
    with open(run / "3_seg" / "log.csv") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def caches(run: Path) -> list[Path]:
    return list((run / "3_seg").glob("cache*"))


def stop_in_the_second_step(train, run, *flags, **options) -> None:
    """Step 3 with Ctrl-C after the first two images."""
    one_then_ctrl_c = iter([loss.divisor, mock.Mock(side_effect=KeyboardInterrupt)])
    with mock.patch("losses.batch.divisor", side_effect=lambda *labels: next(one_then_ctrl_c)(*labels)):
        assert train(run, *flags, **options).returncode == 130
    assert [len(list(cache.glob("*.npz"))) for cache in caches(run)] == [2]


def test_some_pixels_of_each_image_train_much_as_all_do(run, plain, train):
    done = train(run, "--pixels", "400")
    assert done.returncode == 0, done.stderr
    assert facts(done)["pixels"] == "400 random labelled ones of each image"
    assert 0.01 < distance(run, plain) < 0.5
    assert float(losses(run)[1]) == pytest.approx(float(losses(plain)[1]), rel=0.1)
    line = refusal(train(run, "--pixels", "401", "--resume"))
    assert "3_seg/last.pt was made with --pixels 400, not 401; keep to that" in line
    assert "was made with --pixels 400, not None; keep to that" in refusal(train(run, "--resume"))


def test_more_pixels_than_there_are_train_as_all_do(run, plain, train):
    done = train(run, "--pixels", "100000")
    assert done.returncode == 0, done.stderr
    assert float(losses(run)[1]) == pytest.approx(float(losses(plain)[1]), rel=1e-3)
    assert distance(run, plain) < 0.05


def test_a_cache_changes_next_to_nothing_outlives_ctrl_c_and_is_gone_at_the_end(run, plain, train):
    stop_in_the_second_step(train, run, "--cache", "1")
    assert "was made with --cache True, not False" in refusal(train(run, "--resume"))
    done = train(run, "--cache", "0.5", "--resume")
    assert done.returncode == 0, done.stderr
    assert f" GiB in {run / '3_seg' / 'cache_'}" in facts(done)["cache"]
    assert facts(done)["cache"].endswith(", removed at the end")
    assert not caches(run)
    assert distance(run, plain) < 0.05


def test_a_new_training_reads_no_levels_that_another_one_left(run, plain, train, tmp_path):
    other = make_shapes(tmp_path / "other", images=24, size=64, seed=1)
    stop_in_the_second_step(train, run, "--cache", "1", data=other)
    done = train(run, "--cache", "1")
    assert done.returncode == 0, done.stderr
    assert distance(run, plain) < 0.05


def test_a_cache_without_room_leaves_an_earlier_training_alone(plain, train, tmp_path):
    run = Path(shutil.copytree(plain, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refusal(train(run, "--cache", "0.0001"))
    assert re.match(r"train_seg: --cache 0.0001: the levels of 4 images take 0\.000\d+ GiB; allow that much, ", line)
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=100_000)):
        assert ", but its disk has 9.31e-05 GiB free" in refusal(train(run, "--cache", "1"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_low_precision_is_stated_by_every_step_and_ends_near_the_exact_result(run, plain, train, drawn, in_process):
    done = train(run, "--amp", "bf16")
    assert done.returncode == 0, done.stderr
    assert facts(done)["device"] == "cpu, autocast to bf16"
    assert 0 < distance(run, plain) < 0.4
    assert "was made with --amp bf16, not off" in refusal(train(run, "--resume"))
    for script in ("evaluate.py", "visualize.py"):
        for flags, words in ((("--amp", "bf16"), "autocast to bf16"), ((), "exact float32")):
            done = in_process(script, "--data", drawn, "--run", run, "--limit", "1", "--workers", "0", *flags)
            assert done.returncode == 0, done.stderr
            assert facts(done)["device"] == f"cpu, {words}"


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_flags_go_together(amp, run, plain, train):
    done = train(run, "--amp", amp, "--cache", "1", "--pixels", "100000")
    assert done.returncode == 0, done.stderr
    assert facts(done)["device"] == f"cpu, autocast to {amp}"
    assert 0 < distance(run, plain) < 0.4
    assert not caches(run)


def test_a_compiler_that_does_not_work_is_named(plain, train, drawn, in_process):
    with mock.patch("torch.compile", side_effect=RuntimeError("Compiler: cl is not found.")):
        for script in ("train_seg.py", "evaluate.py", "visualize.py"):
            line = refusal(in_process(script, "--data", drawn, "--run", plain, "--compile"))
            assert line.endswith(": --compile: no working compiler here (Compiler: cl is not found.); leave it out")
