"""Two processes together do what one does: on loopback, without a GPU."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from data import UserError
from data.voc_files import read_ids
from models.run import distributed
from tests.conftest import DATA, STEPS, cut
from tests.scripts.processes import contents, losses, run_apart, torchrun

TRAIN = ("train_seg.py", "--run", "run", *DATA, "--epochs", 2, "--limit", 14)
EVALUATE = ("evaluate.py", "--run", "run", *DATA, "--split", "train", "--save-predictions")
SAMPLE = ("sample_features.py", "--run", "run", *STEPS["sample_features"])


@pytest.fixture
def other(walked, tmp_path) -> Path:
    """The folder of the second process, as on another machine."""
    return Path(shutil.copytree(walked.place, tmp_path / "other"))


def assert_trained_alike(first: Path, second: Path) -> None:
    """Same losses, weights and gradients but for the order in which sums are taken."""
    assert losses(first) == pytest.approx(losses(second), abs=1e-5)
    ours, theirs = (torch.load(run / "3_seg/last.pt", weights_only=True) for run in (first, second))
    begun = torch.load(second / "2_cls/dense.pt", weights_only=True)["state"]
    apart = sum((ours["state"][name] - theirs["state"][name]).norm() for name in begun)
    assert apart < 1e-2 * sum((theirs["state"][name] - begun[name]).norm() for name in begun)
    # AdamW's averages of the gradients, too: from the weights it divides a wrong factor out.
    states = (content["training"]["optimizer"]["state"].values() for content in (ours, theirs))
    ours, theirs = (torch.cat([state["exp_avg"].flatten() for state in own]) for own in states)
    assert (ours - theirs).norm() < 1e-2 * theirs.norm()


def said_alike(together: str, alone: str) -> bool:
    """Whether they print the same but for the processes and the seconds."""
    together, alone = (re.sub(r", \d+ s$", "", text, flags=re.M) for text in (together, alone))
    return together.replace("cpu, 2 processes", "cpu") == alone


PARTS = ("--batch-size", 2, "--accumulate", 3, "--class-weights", "inverse", "--lovasz", 0.5)
PARTS += ("--finetune-backbone", "--crop", 40, "--flip")
DRAWN = ("--batch-size", 4, "--accumulate", 2, "--pixels", 200, "--ema", 0.9)


@pytest.mark.parametrize("launch, flags", [(torchrun, PARTS), (run_apart, DRAWN)])
def test_two_processes_train_as_one_and_one_of_them_speaks(launch, flags, street, other, succeeds):
    before = contents("run")
    done = launch(*TRAIN, *flags, places=(other, street))
    assert not any(one.returncode for one in done), done
    assert contents("run") == before, "only rank 0 writes"
    assert said_alike("".join(one.stdout for one in done), succeeds(*TRAIN, *flags))
    assert_trained_alike(other / "run", street / "run")


@pytest.mark.parametrize("command, made", [(SAMPLE, "1_features"), (EVALUATE, "4_eval")])
def test_a_pair_leaves_the_same_bytes_and_says_the_same(command, made, street, succeeds):
    alone = succeeds(*command)
    expected = contents(f"run/{made}")
    shutil.rmtree(f"run/{made}")
    done = run_apart(*command, places=(street, street))
    assert [one.returncode for one in done] == [0, 0], done
    assert contents(f"run/{made}") == expected
    assert said_alike("".join(one.stdout for one in done), alone)


def test_processes_that_see_other_data_are_told(street, other):
    path = other / "shapes/ImageSets/Segmentation/val.txt"
    path.write_text("\n".join(read_ids(other / "shapes", "val")[:-1]))
    done = run_apart(*TRAIN, "--batch-size", 2, places=(street, other))
    assert [one.returncode for one in done] == [2, 2]
    words = "rank 1 has other flags, data or run folder than rank 0; start all processes alike"
    assert all(words in one.stderr for one in done) and not Path("run/3_seg.1").exists()


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_process_that_fails_says_why_and_the_other_that_it_is_alone(culprit, street):
    path = Path(f"shapes/JPEGImages/{read_ids(Path('shapes'), 'train')[2 + culprit]}.jpg")
    cut(path)
    done = run_apart(*EVALUATE, places=(street, street))
    assert [one.returncode for one in done] == ([2, 1] if culprit == 0 else [1, 2])
    said = [one.stderr for one in done]
    assert f"{path}: cannot be read as an image" in said[culprit]
    assert "lost another process of this run (" in said[1 - culprit]
    assert not any("Traceback" in text for text in said)


def test_only_torchruns_launch_counts_and_what_two_cannot_do_is_refused(street, fails, monkeypatch):
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "1"}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    assert (distributed.world_size(), distributed.rank()) == (1, 0), "a scheduler left that behind"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    assert (distributed.world_size(), distributed.rank()) == (2, 1)
    assert distributed.local_world_size() == 1
    with pytest.raises(UserError, match="^--device mps: several processes need cpu or cuda"):
        distributed.init(torch.device("mps"))
    theirs = ("--data", "shapes", "--predictions", "run/4_eval/predictions")
    alone = {"train_cls.py": ("--run", "run"), "visualize.py": ("--run", "run")}
    for script, flags in (alone | {"evaluate.py": theirs}).items():
        assert "runs in one process: start it with python, not" in fails(script, *flags)
    line = fails("train_seg.py", "--run", "run", *DATA, "--batch-size", 3)
    assert "argument --batch-size: does not divide into 2 processes" in line
