"""Runs that are killed, at any moment, and go on with --resume: they end as if nothing had come between."""

import contextlib
import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from data.shapes import make_shapes
from losses.image_scores import ImageScores
from tests import street
from tests.street import BACKBONE, Walk, contents, differences, walk, walk_in_pair

fitted, one_thread = street.fitted, street.one_thread

TRAIN = ("train_seg.py", "--data", "shapes", "--run", "run", "--workers", 0, "--epochs", 3, "--batch-size", 2)
TRAIN += ("--limit", 12, "--val-limit", 2, "--save-every", 1)
SAMPLE = ("sample_features.py", "--data", "many", "--run", "new", *BACKBONE, "--workers", 0, "--batch-size", 1)
EVALUATE = ("evaluate.py", "--data", "many", "--split", "train", "--run", "run", "--workers", 0, "--batch-size", 1)
EVALUATE += ("--save-predictions",)
FOLDERS = {"sample_features.py": "new/1_features", "train_seg.py": "run/3_seg", "evaluate.py": "run/4_eval"}


@pytest.fixture(scope="module")
def start(fitted, tmp_path_factory) -> Path:
    """The folder after steps 1 and 2, with a data set `many` of 60 images to train on."""
    make_shapes(fitted / "many", images=80, size=48)
    return fitted


@pytest.fixture
def place(start, tmp_path, monkeypatch) -> Path:
    """A copy of it, from where the scripts run."""
    monkeypatch.chdir(copy(start, tmp_path))
    return Path.cwd()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """What a command leaves in its folder where nothing stops it."""

    @functools.cache
    def run(*command) -> dict[str, Any]:
        place = copy(start, tmp_path_factory.mktemp("whole"))
        done = walk(*command, cwd=place)
        assert done.returncode == 0, done.stderr
        return contents(place / FOLDERS[command[0]])

    return run


@pytest.fixture(scope="module")
def stopped(start, tmp_path_factory) -> Path:
    """A copy where a sampling has been stopped; not to be changed."""
    place = copy(start, tmp_path_factory.mktemp("stopped"))
    stop(place, *SAMPLE)
    return place


def copy(start: Path, folder: Path) -> Path:
    """A copy of a place in a folder, all but the data."""
    return Path(shutil.copytree(start, folder / "place", symlinks=True))


def changed(path: Path) -> int:
    """When a file was changed last; 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def kill(place: Path, path: Path, times: int, *command) -> None:
    """Kills a script a moment after it has changed a file so many times."""
    with Walk(*command, cwd=place) as run:
        for _ in range(times):
            before = changed(path)
            run.wait_for(lambda before=before: changed(path) != before)
        time.sleep(random.uniform(0, 0.03))
        run.send(signal.SIGKILL)
        assert run.end().returncode == -signal.SIGKILL


def stop(place: Path, *command, number: int = signal.SIGTERM) -> int:
    """Stops a script after its first images; their number."""
    folder, pattern = place / FOLDERS[command[0]], "features.npy.part" if command[0] == SAMPLE[0] else "*.part/*.png"
    with Walk(*command, cwd=place) as run:
        run.wait_for(lambda: list(folder.glob(pattern)))
        run.send(number)
        done = run.end()
    script, name = command[0].removesuffix(".py"), "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    said = re.fullmatch(
        "\nstopping as soon as all is saved; once more stops at once\n"
        rf"\n{script}: stopped by {name}; (\d+) images are done; go on with the same command and --resume\n",
        done.stderr,
    )
    assert said and done.returncode == 128 + number, done.stderr
    assert not (folder / "config.json").exists()
    return int(said[1])


@contextlib.contextmanager
def killed_before(name: str, time: int = 1) -> Iterator[None]:
    """A script in this process comes to its end before a file gets its name for the first time, or a later one."""
    real, times = os.replace, itertools.count(1)

    def replace(source, target):
        if Path(target).name == name and next(times) == time:
            raise KeyboardInterrupt
        real(source, target)

    with mock.patch("os.replace", replace):
        yield


@pytest.mark.parametrize(
    "flags, kills", [((), 3), (("--workers", 2, "--save-every", 2), 2)], ids=["all steps saved", "2 workers"]
)
def test_a_training_killed_again_and_again_ends_as_one_that_was_not(flags, kills, place, whole):
    last = place / "run" / "3_seg" / "last.pt"
    command, times = TRAIN + flags, [random.randint(1, 2) for _ in range(kills)]
    for number in times:
        kill(place, last, number, *command, "--resume")
    steps = len(torch.load(last, weights_only=True)["training"]["losses"])
    done = walk(*command, "--resume", cwd=place)
    assert done.returncode == 0 and f"last.pt, after {steps} steps\n" in done.stdout, done.stderr
    assert differences(contents(place / "run" / "3_seg"), whole(*TRAIN)) == [], f"killed after {times} changes"


@pytest.mark.parametrize(
    "name, time", [("best.pt", 1), ("last.pt", 3), ("log.csv", 2), ("curve.png", 2), ("config.json", 1)]
)
def test_a_training_killed_between_two_files_ends_as_one_that_was_not(name, time, place, whole, in_process, one_thread):
    command = (*TRAIN, "--epochs", 1, "--limit", 4)
    with killed_before(name, time):
        assert in_process(*command).returncode == 130
    done = in_process(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert differences(contents(place / "run" / "3_seg"), whole(*command)) == []


@pytest.mark.parametrize(
    "command, name",
    [
        (SAMPLE, "labels.npy"),
        (SAMPLE, "backbone.pt"),
        (SAMPLE, "config.json"),
        (EVALUATE, "metrics.json"),
        (EVALUATE, "config.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_run_killed_between_two_of_its_last_files_ends_as_one_that_was_not(
    command, name, place, whole, in_process, one_thread
):
    command = (*command, "--limit", 25)  # progress was kept after 20
    with killed_before(name):
        assert in_process(*command).returncode == 130
    done = in_process(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert differences(contents(place / FOLDERS[command[0]]), whole(*command)) == []


def test_a_scoring_killed_between_its_scores_and_its_progress_ends_as_one_that_was_not(
    place, whole, in_process, one_thread
):
    command, folder = (*EVALUATE, "--limit", 45), place / "run" / "4_eval"  # progress is kept after 20 and 40
    with killed_before("progress.json", 2):
        assert in_process(*command).returncode == 130
    assert len(ImageScores.load(folder / "per_image.npz.part")) == 40
    assert json.loads((folder / "progress.json").read_text())["images"] == 20
    kept = (folder / "per_image.npz.part").read_bytes()
    for spoil, message in (
        (cut, "cannot be read as the scores"),
        (Path.unlink, "no such file"),
        (few, "does not hold"),
    ):
        spoil(folder / "per_image.npz.part")
        done = in_process(*command, "--resume")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert f"per_image.npz.part: {message}" in done.stderr and "start over without --resume" in done.stderr
        (folder / "per_image.npz.part").write_bytes(kept)
    done = in_process(*command, "--resume")
    assert done.returncode == 0 and "after 20 images\n" in done.stdout, done.stderr
    assert differences(contents(folder), whole(*command)) == []


def few(path: Path) -> None:
    """Leaves the scores of fewer images than are done."""
    scores = ImageScores.load(path)
    with open(path, "wb") as file:
        scores.take(range(19)).save(file)


@pytest.mark.parametrize("command", [SAMPLE, EVALUATE], ids=lambda command: command[0])
def test_a_run_killed_twice_ends_as_one_that_was_not(command, place, whole):
    folder = place / FOLDERS[command[0]]
    for _ in range(2):
        kill(place, folder / "progress.json", 1, *command, "--resume")
    images = json.loads((folder / "progress.json").read_text())["images"]
    done = walk(*command, "--resume", cwd=place)
    assert images >= 40 and done.returncode == 0 and f"\n  start     after {images} images\n" in done.stdout, done
    assert differences(contents(folder), whole(*command)) == []


@pytest.mark.parametrize(
    "command, number", [(SAMPLE, signal.SIGTERM), (EVALUATE, signal.SIGINT)], ids=["sample", "evaluate"]
)
def test_two_processes_go_on_where_one_was_stopped_by_a_signal(command, number, place, whole, tmp_path):
    images = stop(place, *command, number=number)
    other = copy(place, tmp_path / "of rank 1")
    before = contents(other)
    done = walk_in_pair(*command, "--resume", places=(place, other))
    assert [one.returncode for one in done] == [0, 0], done
    assert f"after {images} images\n" in done[0].stdout
    assert differences(contents(other), before) == [], "only rank 0 writes"
    assert differences(contents(place / FOLDERS[command[0]]), whole(*command)) == []


@pytest.mark.parametrize("command", [SAMPLE, EVALUATE], ids=lambda command: command[0])
def test_without_resume_a_stopped_run_is_forgotten(command, place, whole, in_process):
    stop(place, *command)
    with mock.patch("models.progress.Progress.round_done", side_effect=KeyboardInterrupt):
        assert in_process(*command).returncode == 130
    done = walk(*command, "--resume", cwd=place)
    assert done.returncode == 0 and "\n  start     first image\n" in done.stdout, done.stderr
    assert differences(contents(place / FOLDERS[command[0]]), whole(*command)) == []


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


@pytest.mark.parametrize(
    "flags, spoil, message",
    [
        (("--per-class", 4), None, "progress.json was made with --per-class 3, not 4; keep to that"),
        (("--split", "trainval"), None, "progress.json was made with --split train, not trainval; keep to that"),
        (("--limit", 50), None, "progress.json was made with --limit None, not 50; keep to that"),
        (("--taps", "1,2"), None, "progress.json was made with --taps None, not [1, 2]; keep to that"),
        ((), ("labels.npy.part", cut), "labels.npy.part: shorter than the "),
        ((), ("pixels.npy.part", Path.unlink), "pixels.npy.part: no such file to go on with; start over without"),
        ((), ("progress.json", cut), "progress.json: cannot be read; start over without --resume"),
    ],
)
def test_what_a_stopped_sampling_left_is_not_taken_up_by_another(
    flags, spoil, message, stopped, in_process, one_thread, tmp_path, monkeypatch
):
    place = copy(stopped, tmp_path)
    monkeypatch.chdir(place)
    if spoil:
        spoil[1](place / "new" / "1_features" / spoil[0])
    done = in_process(*SAMPLE, *flags, "--resume")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"new/1_features/{message}" in done.stderr and done.stderr.startswith("sample_features: ")


def test_a_new_training_keeps_an_interrupted_one_until_it_has_a_result_and_nothing_of_it_then(
    place, in_process, one_thread
):
    folder = place / "run" / "3_seg"
    in_epoch_2 = mock.patch("models.records.Records.check", side_effect=[None] * 7 + [KeyboardInterrupt])
    before_its_result = mock.patch("losses.score.ConfusionMatrix.update", side_effect=KeyboardInterrupt)
    in_epoch_1 = mock.patch("models.records.Records.check", side_effect=KeyboardInterrupt)
    left = []
    goes_on, not_begun = "go on with the same command and --resume", "the training had not begun"
    for interrupted, flags, kept in (
        (in_epoch_2, (), goes_on),
        (before_its_result, ("--seed", 1), not_begun),
        (in_epoch_1, ("--seed", 1), goes_on),
    ):
        with interrupted:
            done = in_process(*TRAIN, *flags, "--val-limit", 1)
        assert done.returncode == 130 and kept in done.stderr
        left.append(contents(folder))
    first, same, second = left
    assert differences(first, same) == []
    assert {name.split("/")[1] for name in first if "/" in name} == {"epoch_000", "epoch_001"}
    of_epoch_0 = {"last.pt", "best.pt", "log.csv", "steps.csv", "curve.png"}
    assert {name for name in second if "/" not in name} == of_epoch_0, "config.json is for the end"
    assert {name.split("/")[1] for name in second if "/" in name} == {"epoch_000"}
    assert second["last.pt"]["training"]["settings"]["--seed"] == 1 and not second["last.pt"]["training"]["losses"]
    fitted, best = (torch.load(path, weights_only=True) for path in (place / "run/2_cls/dense.pt", folder / "best.pt"))
    assert differences(fitted["state"], best["state"]) == []
