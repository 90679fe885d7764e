"""Step 3 stopped at any moment by kill -9, Ctrl-C, SIGTERM or data, and resumed."""

import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from data.voc_files import read_ids
from tests.conftest import DATA, STEPS, change_head
from tests.scripts.processes import config, contents, log, run_apart, stopping_before

# All that has a state to be resumed: dropout, augmentation, drawn pixels, two optimizer groups, the
# average, the scale of float16.
TRAIN = ("train_seg.py", "--run", "run", *DATA, "--epochs", 2, "--limit", 7, "--val-limit", 1)
TRAIN += ("--batch-size", 1, "--accumulate", 2, "--save-every", 1, "--pixels", 100, "--ema", 0.9)
TRAIN += ("--flip", "--scale", "0.8,1.2", "--jitter", 0.2, "--finetune-backbone", "--amp", "fp16")
SEG, LAST = Path("run/3_seg"), Path("run/3_seg/last.pt")


@pytest.fixture
def place(street) -> Path:
    """The street after step 2."""
    shutil.rmtree(SEG)
    return street


@pytest.fixture(scope="module")
def whole(walked, succeeds, tmp_path_factory) -> dict:
    """What is in 3_seg after a training that nothing has stopped."""
    place = Path(shutil.copytree(walked.place, tmp_path_factory.mktemp("whole") / "street"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        succeeds(*TRAIN)
        return contents(SEG)


# The files that are about to get their names, and for which time, when the process is killed.
BEGINNING = [("best.pt", 1), ("last.pt", 1)]  # before there is a result, while it is saved
LATER = [("last.pt", 6), ("last.pt", 3), ("steps.csv", 1), ("config.json", 1)]  # 6: an epoch


@pytest.mark.parametrize("moments", [BEGINNING, LATER])
def test_a_killed_training_ends_as_one_that_was_not(moments, place, whole, succeeds):
    for moment in moments:
        (done,) = run_apart(*TRAIN, "--resume", places=[place], killed_before=moment)
        assert done.returncode == -signal.SIGKILL, done.stderr
    start = "dense.pt"
    if LAST.exists():
        made = torch.load(LAST, weights_only=True)["training"]["losses"]
        start = f"{LAST}, after {len(made)} steps\n"
    assert start in succeeds(*TRAIN, "--resume")
    assert contents(SEG) == whole


@pytest.mark.parametrize(
    "number, code, name, workers", [(2, 130, "Ctrl-C", 0), (15, 143, "SIGTERM", 2)]
)
def test_a_signal_ends_with_one_line_and_the_training_goes_on(
    number, code, name, workers, place, whole, in_process, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stopping_before("best.pt", 1, number))
        line = f"train_seg: stopped by {name}; the training had not begun\n"
        assert in_process(*TRAIN).stderr == line
        patch.setattr("os.replace", stopping_before("last.pt", 3, number))
        done = in_process(*TRAIN, "--workers", workers)
    how = f"go on from {LAST} with the same command and --resume"
    assert done.returncode == code and done.stderr == f"train_seg: stopped by {name}; {how}\n"
    assert not (SEG / "config.json").exists() and not list(SEG.glob(".*"))
    done = in_process(*TRAIN, "--resume", "--workers", 2, "--save-every", 3)
    assert "last.pt, after 1 steps\n" in done.stdout, done.stderr
    assert contents(SEG) == whole
    epochs = sum(row["seconds"] for row in log(SEG))
    assert config(SEG)["seconds"] >= round(epochs, 1), "those of both runs"


OTHERS = [("--lr", 0.5), ("--pixels", 99), ("--epochs", 1), ("--epochs", 3), ("--amp", "bf16")]
OTHERS += [("--seed", 1), ("--limit", 6), ("--stride", 4)]


def test_other_settings_epochs_and_images_are_refused(street, fails):
    before = contents(SEG)
    again = ("train_seg.py", "--run", "run", *STEPS["train_seg"], "--resume")
    for flag, value in OTHERS:
        line = fails(*again, flag, value)
        assert re.search(rf"--resume: {LAST} was made with {flag} .+, not {value}; keep to", line)
        assert "with another --run and --init run/3_seg/best.pt, without --resume" in line
    path, ids = Path("shapes/ImageSets/Segmentation/train.txt"), read_ids(Path("shapes"), "train")
    path.write_text("\n".join(reversed(ids)))
    assert f"--resume: {LAST} was made with images 18 (" in fails(*again)
    path.write_text("\n".join(ids))
    mask = Path(f"shapes/SegmentationClass/{ids[0]}.png")
    Image.new("P", Image.open(mask).size).save(mask)
    assert f"--resume: {LAST} was made with images 18 (" in fails(*again), "of other masks"
    assert contents(SEG) == before
    (SEG / "best.pt").unlink()
    assert f"{SEG}/best.pt: no such checkpoint file" in fails(*again)


def test_a_loss_that_is_not_finite_names_its_images_and_leaves_last_pt(place, fails, succeeds):
    path = Path("run/2_cls/dense.pt")
    good = path.read_bytes()
    change_head(path, lambda weights: weights * 1e37)  # finite scores, but not their sum
    line = fails(*TRAIN[:-2])
    named = [name for name in read_ids(Path("shapes"), "train")[:7] if name in line]
    assert "train_seg: step 1: the loss or a gradient is not finite, at images shapes_" in line
    assert len(named) == 2 and "; last.pt is still good: start over with a smaller --lr" in line
    assert torch.load(LAST, weights_only=True)["training"]["losses"] == []
    path.write_bytes(good)
    succeeds(*TRAIN[:-2])
    assert [row["epoch"] for row in log(SEG)] == [0, 1, 2]
