"""Two processes side by side do what one does: as torchrun starts them, on loopback, without a GPU."""

import random
import re
import shutil
import signal
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.stream import batches
from data.voc import read_ids
from models import processes
from models.checkpoint import load_checkpoint
from tests import street
from tests.street import BACKBONE, contents, differences, ended, losses, torchrun, walk, walk_in_pair

fitted = street.fitted

EVALUATE = ("evaluate.py", "--data", "shapes", "--run", "run", "--split", "train", "--workers", 0)
TRAIN = ("train_seg.py", "--data", "shapes", "--run", "run", "--workers", 0, "--epochs", 2)
UNEVEN = (*TRAIN, "--batch-size", 17, "--class-weights", "batch")  # of 18 images; the last step has one for both
SLOW = (*TRAIN, "--epochs", 3, "--limit", 12, "--batch-size", 2, "--val-limit", 1, "--save-every", 1)


@pytest.fixture
def place(fitted, tmp_path) -> Path:
    """A copy of the folder after steps 1 and 2."""
    return Path(shutil.copytree(fitted, tmp_path / "place", symlinks=True))


@pytest.fixture
def other(fitted, tmp_path) -> Path:
    """Another one."""
    return Path(shutil.copytree(fitted, tmp_path / "other", symlinks=True))


def assert_trained_alike(place: Path, other: Path) -> None:
    """Same losses, scores, weights and gradients in two places but for the order in which sums are taken."""
    assert losses(place / "run") == pytest.approx(losses(other / "run"), abs=1e-5)
    start = load_checkpoint(place / "run" / "2_cls" / "dense.pt", "segmenter")["state"]
    ours, theirs = (load_checkpoint(folder / "run" / "3_seg" / "last.pt", "segmenter") for folder in (place, other))
    for log, other_log in zip(ours["training"]["log"], theirs["training"]["log"], strict=True):
        assert log == pytest.approx(other_log, abs=1e-3)
    apart = sum((ours["state"][name] - theirs["state"][name]).norm() for name in start)
    assert apart < 1e-2 * sum((theirs["state"][name] - start[name]).norm() for name in start)
    moments, other_moments = (
        torch.cat([state["exp_avg"].flatten() for state in content["training"]["optimizer"]["state"].values()])
        for content in (ours, theirs)
    )  # of the gradients: the weights alone hide a wrong factor, which AdamW divides out
    assert (moments - other_moments).norm() < 1e-2 * other_moments.norm()


def damage(place: Path, image_id: str) -> Path:
    """Makes the data set of a place one of its own, where an image is cut off; its path."""
    drawn = (place / "shapes").resolve()
    (place / "shapes").unlink()
    shutil.copytree(drawn, place / "shapes")
    path = place / "shapes" / "JPEGImages" / f"{image_id}.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path.relative_to(place)


@given(images=st.integers(1, 50), size=st.integers(1, 9), count=st.integers(1, 6))
def test_turns_cover_every_batch_once_in_order_and_equally_many(images, size, count):
    plan = batches(range(images), size)
    shares = []
    for rank in map(str, range(count)):
        with mock.patch.dict("os.environ", WORLD_SIZE=str(count), RANK=rank):
            shares.append(processes.turns(plan))
    assert {len(share) for share in shares} == {-(-len(plan) // count)}
    interleaved = [batch for together in zip(*shares) for batch in together]
    assert interleaved[: len(plan)] == plan and not any(interleaved[len(plan) :])


def test_alone_nothing_has_to_be_exchanged():
    network, tensor = torch.nn.Linear(1, 1), torch.ones(2)
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    assert processes.wrap(network) is network and processes.total(tensor) is tensor
    assert processes.gather("a") == ["a"] and processes.turns([[0, 1], [2]]) == [[0, 1], [2]]
    assert processes.agree(True) and not processes.agree(False)
    assert not processes.is_parting(RuntimeError("gloo: connection closed by peer"))
    assert processes.describe(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("script", ["train_cls.py", "visualize.py"])
def test_the_quick_steps_want_one_process(script, fitted, in_process, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    done = in_process(script, "--run", fitted / "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "runs in one process: start it with python, not with torchrun" in done.stderr


def test_two_processes_sample_the_same_features_byte_for_byte(fitted, tmp_path):
    (tmp_path / "shapes").symlink_to((fitted / "shapes").resolve())
    flags = ("--data", "shapes", "--run", "run", *BACKBONE, "--workers", 0, "--batch-size", 4)
    done = ended(torchrun("sample_features.py", *flags, cwd=tmp_path))
    assert done.returncode == 0, done.stderr
    assert "\n  device    cpu, 2 processes\n" in done.stdout and done.stdout.count("[1/5] sample_features") == 1
    alone, together = (contents(folder / "run" / "1_features") for folder in (fitted, tmp_path))
    assert {"features.npy", "labels.npy", "pixels.npy", "mean.npy", "std.npy", "images.txt"} < set(alone)
    assert differences(alone, together) == []


def test_two_processes_score_every_image_once_and_predict_the_same_bytes(place, other):
    scoring = (*EVALUATE, "--batch-size", 4, "--save-predictions")
    done = ended(torchrun(*scoring, cwd=place))
    assert done.returncode == 0, done.stderr
    alone = walk(*scoring, cwd=other)
    assert alone.returncode == 0, alone.stderr
    together, expected = (contents(folder / "run" / "4_eval") for folder in (place, other))
    assert sum(name.startswith("predictions/") for name in expected) == 18
    assert {"metrics.json", "per_class.csv", "confusion.png", "config.json"} < set(expected)
    assert differences(together, expected) == []
    assert done.stdout.replace("cpu, 2 processes", "cpu") == alone.stdout


def test_two_processes_train_as_one_and_one_of_them_speaks(place, other):
    done = ended(torchrun(*UNEVEN, cwd=place))
    assert done.returncode == 0, done.stderr
    alone = walk(*UNEVEN, cwd=other)
    assert alone.returncode == 0, alone.stderr
    assert len(losses(other / "run")) == 4
    assert_trained_alike(place, other)
    said, expected = (re.sub(r", \d+ s$", "", text, flags=re.MULTILINE) for text in (done.stdout, alone.stdout))
    assert said.replace("cpu, 2 processes", "cpu") == expected and said.count("[3/5] train_seg") == 1


def test_two_processes_train_as_one_on_some_pixels_and_several_batches_a_step(place, other, fitted):
    flags = (*TRAIN, "--pixels", 200, "--batch-size", 4, "--accumulate", 2)
    for done in (*walk_in_pair(*flags, places=(place, fitted)), walk(*flags, cwd=other)):
        assert done.returncode == 0, done.stderr
    assert len(losses(other / "run")) == 6
    assert_trained_alike(place, other)
    assert contents(fitted / "run" / "3_seg") == {}, "only rank 0 writes"


def test_two_batches_a_step_are_one_twice_as_large(place, other):
    flags = (*TRAIN, "--class-weights", "batch", "--limit", 16, "--epochs", 1)
    for folder, size in ((place, ("--batch-size", 3, "--accumulate", 2)), (other, ("--batch-size", 6))):
        done = walk(*flags, *size, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert len(losses(other / "run")) == 3
    assert_trained_alike(place, other)


def test_an_image_that_only_the_second_process_reads_ends_both_under_torchrun(place):
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1)).tolist()
    path = damage(place, read_ids(place / "shapes", "train")[order[3]])
    done = ended(torchrun(*TRAIN, "--batch-size", 2, cwd=place))
    assert done.returncode != 0
    assert done.stderr.count(f"train_seg: {path}: cannot be read as an image") == 1
    assert 'train_seg.py", line' not in done.stderr, "a traceback of ours beside that of torchrun"


@pytest.mark.parametrize("culprit", [0, 1])
def test_the_process_that_fails_says_why_and_the_other_that_it_is_alone(culprit, place):
    path = damage(place, read_ids(place / "shapes", "train")[2 + culprit])
    done = walk_in_pair(*EVALUATE, "--batch-size", 1, places=(place, place))
    assert [one.returncode for one in done] == ([2, 1] if culprit == 0 else [1, 2])
    said = [one.stderr for one in done]
    assert said[culprit].startswith(f"evaluate: {path}: cannot be read as an image")
    assert f"evaluate: rank {1 - culprit} has lost another process of this run (" in said[1 - culprit]
    assert not any("Traceback" in text for text in said)


@pytest.mark.parametrize("step", [TRAIN, EVALUATE], ids=["train", "evaluate"])
def test_processes_that_see_other_data_than_each_other_are_told(step, place, other):
    data = Path(shutil.copytree((other / "shapes").resolve(), other / "copy"))
    (other / "shapes").unlink()
    data.rename(other / "shapes")
    for path in (other / "shapes" / "ImageSets" / "Segmentation").glob("*.txt"):
        path.write_text("\n".join(path.read_text().split()[:-1]))
    done = walk_in_pair(*step, places=(place, other))
    assert [one.returncode for one in done] == [2, 2]
    assert all("rank 1 has other flags, data or run folder than rank 0; start" in one.stderr for one in done)


def test_sigterm_to_torchrun_ends_the_training_so_that_one_or_two_processes_go_on(place, other, tmp_path):
    last = place / "run" / "3_seg" / "last.pt"
    process = torchrun(*SLOW, cwd=place)
    deadline = time.monotonic() + street.LIMIT
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.stderr.count("stopped by SIGTERM; ") == 1 and "--resume" in done.stderr
    assert 'train_seg.py", line' not in done.stderr
    steps = len(torch.load(last, weights_only=True)["training"]["losses"])
    assert steps < 18 and not (last.parent / "config.json").exists()
    third = Path(shutil.copytree(place, tmp_path / "third", symlinks=True))
    alone, resumed = walk(*SLOW, cwd=other), walk(*SLOW, "--resume", cwd=place)
    for done in (alone, resumed, *walk_in_pair(*SLOW, "--resume", places=(third, third))):
        assert done.returncode == 0, done.stderr
    assert f"last.pt, after {steps} steps\n" in resumed.stdout and len(losses(other / "run")) == 18
    for folder in (place, third):
        assert_trained_alike(folder, other)
