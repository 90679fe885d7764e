"""Checkpoints give back what was saved, hold plain values, run no code and show their damage."""

import pytest
import torch
from torch import nn

from data import UserError
from models.checkpoint import (
    FORMAT,
    load_checkpoint,
    load_extractor,
    save_checkpoint,
    save_extractor,
)
from models.hypercolumn import Hypercolumn
from tests.conftest import Bomb
from tests.models.conftest import SMALL


def cut(path) -> None:
    """Half a checkpoint."""
    save_checkpoint(path, "head", weight=torch.zeros(20_000))
    path.write_bytes(path.read_bytes()[:40_000])


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("pickled half-way")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dense.pt"


def test_what_is_saved_comes_back(path):
    content = {"weight": torch.arange(20.0), "taps": [1, 2], "name": "é", "loss": None}
    save_checkpoint(path, "head", **content)
    found = load_checkpoint(path, "head")
    assert found["format"] == FORMAT and found["kind"] == "head"
    assert found.pop("weight").equal(content.pop("weight")) and content.items() <= found.items()


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(path):
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half-way"):
        save_checkpoint(path, "head", first=torch.ones(1000), second=Unpicklable())
    assert [file.read_bytes() for file in path.parent.iterdir()] == [b"old"]


def test_weights_that_do_not_fit_their_network_are_refused_in_a_line(path):
    save_extractor(path, Hypercolumn(SMALL, "random", [1]))
    content = torch.load(path, weights_only=True)
    content["state"]["features.9.renamed"] = content["state"].pop("features.0.weight")
    torch.save(content, path)
    with pytest.raises(UserError, match=f"^{path}: its weights do not fit .*another version"):
        load_extractor(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickled_code_is_refused_and_does_not_run(path, tmp_path, legacy):
    mark = tmp_path / "mark"
    content = {"format": FORMAT, "kind": "head", "state": Bomb(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=f"^{path}: not a checkpoint file .* could run code"):
        load_checkpoint(path, "head")
    assert not mark.exists()
    torch.load(path, weights_only=False)["state"].close()
    assert mark.exists(), "the bomb is a dud: this test could not fail"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such checkpoint file"),
        (lambda path: path.touch(), "cannot be read as a checkpoint file"),
        (cut, "cannot be read as a checkpoint file"),
        (lambda path: torch.save(nn.Linear(2, 2), path), "could run code"),
        (lambda path: torch.save([1, 2], path), "(found: list"),
        (lambda path: torch.save({"0.bias": torch.ones(1)}, path), "(found: None)"),
        (lambda path: save_checkpoint(path, "extractor"), "(found: extractor)"),
        (lambda path: torch.save({"format": FORMAT + 1, "kind": "head"}, path), "newer version"),
    ],
)
def test_a_file_that_is_no_such_checkpoint_is_refused_in_a_line(path, write, message):
    write(path)
    with pytest.raises(UserError) as refusal:
        load_checkpoint(path, "head")
    text = str(refusal.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and message in text
