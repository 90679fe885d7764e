"""What the flags of step 3 do: each changes what it says, and nothing else."""

import re
import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from data.voc_files import read_ids
from models.checkpoint import load_segmenter
from tests.conftest import BACKBONE, DATA
from tests.scripts.processes import config, contents, differences, facts, losses, metrics

FLAGS = ("--run", "run", *DATA, "--epochs", 1, "--limit", 4, "--val-limit", 1, "--batch-size", 2)
SEG, START = Path("run/3_seg"), Path("run/2_cls/dense.pt")


@pytest.fixture
def train(street, succeeds):
    """Runs step 3 afresh on a few images; what it printed."""

    def run(*flags) -> str:
        shutil.rmtree(SEG, ignore_errors=True)
        return succeeds("train_seg.py", *FLAGS, *flags)

    return run


def head(path: Path = SEG / "last.pt") -> torch.Tensor:
    """All weights of the head as one vector."""
    return parameters_to_vector(load_segmenter(path)[0].head.parameters()).detach()


def learned() -> dict[int, int]:
    """How many weights have changed in each block of the backbone."""
    before, after = (load_segmenter(path)[0].hypercolumn for path in (START, SEG / "last.pt"))
    after, counts = dict(after.named_parameters()), Counter()
    for name, value in before.named_parameters():
        if not torch.equal(value, after[name]):
            counts[int(re.search(r"\d+", name)[0])] += value.numel()
    return counts


def test_a_frozen_backbone_stays_and_the_head_learns(train):
    train("--optimizer", "sgd", "--decay", "poly")
    layers = [load_segmenter(path)[0].head.parameters() for path in (START, SEG / "last.pt")]
    assert not learned() and not any(map(torch.equal, *layers))


@pytest.mark.parametrize("frozen, blocks", [(0, {0, 3, 4}), (2, set())], ids=["all", "some"])
def test_a_trained_backbone_is_what_later_steps_use(frozen, blocks, train, succeeds):
    given = ("--frozen-stages", frozen) if frozen else ("--backbone-lr", "1e-3")
    train("--finetune-backbone", *given)
    assert set(learned()) == blocks | {6, 7, 9, 10, 11, 12}, "block 4 is the second tap"
    assert config(SEG)["parameters"] == len(head()) + sum(learned().values())
    succeeds("evaluate.py", "--run", "run", *DATA, "--checkpoint", SEG / "last.pt")
    words = r"trained on 4 images of train, 1 epochs?, backbone too, "
    assert re.match(words, metrics("run")["protocol"])


def test_all_pixels_drawn_train_as_all_on_the_finest_grid(train, succeeds):
    succeeds("train_cls.py", "--run", "run", "--epochs", 9, "--hidden", 16, "--dropout", 0)
    train("--stride", 1)
    expected, weights_then = losses(Path("run")), head()
    train("--pixels", 99999)
    assert losses(Path("run")) == pytest.approx(expected, rel=1e-5)
    train("--pixels", 400)
    some = losses(Path("run"))
    assert some == pytest.approx(expected, rel=0.1) and some != expected
    assert 0 < (weights_then - head()).norm() < 0.5 * head(START).norm()


CHANGES = [("--crop", 40), ("--scale", "0.5,2"), ("--flip",), ("--jitter", 0.5), ("--stride", 4)]
CHANGES += [("--seed", 1), ("--class-weights", "inverse")]


def test_each_flag_of_the_images_changes_the_losses(train):
    seen = []
    for flags in [(), *CHANGES]:
        said = train(*flags)
        assert losses(Path("run")) not in seen, flags
        seen.append(losses(Path("run")))
        crop = 40 if "--crop" in flags else 48
        assert f"size 48, crop {crop}, logits at 1/" in facts(said)["network"]
    train()
    assert losses(Path("run")) == seen[0]


def test_lovasz_and_label_smoothing_add_to_the_loss(train):
    first = []
    for flags in ((), ("--lovasz", 1), ("--lovasz", 2), ("--label-smoothing", 0.5)):
        train(*flags)
        first.append(losses(Path("run"))[0])
    plain, once, twice, smooth = first
    assert 0.2 < once - plain < 1.0 and twice - plain == pytest.approx(2 * (once - plain))
    assert smooth != pytest.approx(plain, rel=1e-3)


def test_the_moving_average_is_what_is_scored_and_kept(train, succeeds):
    succeeds("train_cls.py", "--run", "run", "--epochs", 1, "--lr", 1e-9)  # a bad start
    said = train("--ema", 0.5, "--lr", 0.01, "--val-split", "train")
    assert "note: 18 of 18 validation images are also trained on\n" in said
    assert config(SEG)["best_epoch"] == 1
    average = torch.load(SEG / "last.pt", weights_only=True)["training"]["average"]
    for name, value in load_segmenter(SEG / "best.pt")[0].named_parameters():
        assert torch.equal(value, average[f"module.{name}"])
    assert not torch.equal(head(), head(SEG / "best.pt"))


def test_accumulated_batches_are_one_batch_as_large(train):
    pixels = ("--pixels", 200)  # a CPU goes through whole grids image by image, however batched
    train(*pixels, "--batch-size", 4)
    expected, weights_then = losses(Path("run")), head()
    for flags in (("--batch-size", 2, "--accumulate", 2), ("--batch-size", 1, "--accumulate", 4)):
        train(*pixels, *flags)
        assert losses(Path("run")) == pytest.approx(expected, abs=1e-5)
        torch.testing.assert_close(head(), weights_then, rtol=1e-3, atol=1e-4)


def test_low_precision_is_stated_and_ends_near_the_exact_result(train, succeeds):
    train()
    exact = losses(Path("run"))
    for amp in ("bf16", "fp16"):
        said = train("--amp", amp)
        assert facts(said)["device"].startswith(f"cpu, autocast to {amp}")
        low = losses(Path("run"))
        assert low != exact and low == pytest.approx(exact, rel=0.05)
    for script in ("evaluate.py", "visualize.py"):
        assert "bf16" in succeeds(script, "--run", "run", *DATA, "--limit", 1, "--amp", "bf16")


def test_a_compiler_that_does_not_work_is_named(street, fails, monkeypatch):
    before = contents(SEG)
    monkeypatch.setattr(torch, "compile", mock.Mock(side_effect=RuntimeError("no g++\nat all")))
    line = fails("train_seg.py", *FLAGS, "--compile")
    assert re.search(r": --compile: no working compiler here \(no g\+\+\); leave it out$", line)
    assert differences(contents(SEG), before) == []


def test_a_bad_image_of_20_is_left_out_and_listed(street, succeeds):
    bad = read_ids(Path("shapes"), "trainval")[7]
    path = Path(f"shapes/JPEGImages/{bad}.jpg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    training, sampling = ("--epochs", 1), BACKBONE
    steps = {"train_seg.py": ("3_seg", training), "sample_features.py": ("1_features", sampling)}
    for script, (place, flags) in steps.items():
        flags = ("--run", "run", *DATA, "--split", "trainval", *flags, "--skip-bad")
        said = succeeds(script, *flags)
        assert "; left out 1 bad image, listed in skipped.txt\n" in said
        assert "20 images" in facts(said)["data"]
        listed = Path("run", place, "skipped.txt").read_text()
        assert listed.startswith(f"{bad}: {path}: cannot be read as an image")
