"""The run folder: steps are whole or not at all, and what does not belong together is refused."""

import errno
import json
import os
from pathlib import Path
from unittest import mock

import filelock
import numpy as np
import pytest

from data import UserError
from models.run import folder


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


def test_a_new_folder_takes_the_place_of_the_old_one_when_it_is_complete(run):
    place = run / "2_cls"
    with folder.new_folder(place) as new:
        (new / "dense.pt").write_text("first")
        assert not place.exists()
    for error in (KeyError, KeyboardInterrupt):
        with pytest.raises(error), folder.new_folder(place) as new:
            (new / "log.csv").write_text("half")
            raise error
    assert [path.name for path in place.iterdir()] == ["dense.pt"]
    (run / ".2_cls.new" / "litter").mkdir(parents=True)  # of a killed process
    with folder.new_folder(place) as new:
        (new / "log.csv").write_text("second")
    assert [path.name for path in place.iterdir()] == ["log.csv"]
    assert {path.name for path in run.iterdir()} <= {"2_cls", ".2_cls.lock"}


def test_a_folder_that_cannot_be_moved_away_stays_and_so_does_the_new_one(run, monkeypatch):
    place = run / "2_cls"
    place.mkdir(parents=True)
    (place / "dense.pt").write_text("first")
    locked = mock.Mock(side_effect=PermissionError(13, "in use"))  # as Windows says of open files
    with monkeypatch.context() as patch, pytest.raises(UserError, match="is a file of it open"):
        patch.setattr(Path, "rename", locked)
        with folder.new_folder(place) as new:
            (new / "dense.pt").write_text("second")
    assert (place / "dense.pt").read_text() == "first" and (new / "dense.pt").exists()
    place.rename(run / ".2_cls.old")  # killed between the two moves
    with pytest.raises(KeyError), folder.new_folder(place):
        raise KeyError
    assert (place / "dense.pt").read_text() == "first"


def test_a_link_to_another_disk_stays_one(run):
    (run / "disk").mkdir(parents=True)
    (run / "1_features").symlink_to(run / "disk")
    for text in ("first", "second"):
        with folder.new_folder(run / "1_features") as new:
            (new / "a.txt").write_text(text)
        assert (run / "1_features").is_symlink() and (run / "disk" / "a.txt").read_text() == text


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only"), NotImplementedError])
def test_where_nothing_can_be_locked_a_folder_of_ones_own_is_named(error, run, monkeypatch):
    monkeypatch.setattr(filelock.FileLock, "acquire", mock.Mock(side_effect=error))
    line = "4_eval: cannot be written .* with --run or --out$"
    with pytest.raises(UserError, match=line), folder.claim(run / "4_eval"):
        pass


def test_versions_are_found_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert folder.versions()["commit"] is None


def test_json_keeps_plain_values_and_a_failure_keeps_the_old_file(run):
    path, odd = run / "metrics.json", Path(os.fsdecode(b"photos-\xe9"))
    values = {"miou": np.float32(0.5), "count": np.int64(3), "path": odd, "é": [float("nan")]}
    folder.save_json(path, values)
    values |= {"path": str(odd), "é": [None]}
    with pytest.raises(TypeError):
        folder.save_json(path, {("a", "tuple"): 1})
    assert json.loads(path.read_text(encoding="utf-8")) == values and list(run.iterdir()) == [path]
