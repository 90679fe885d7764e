"""What the flags of steps 2 and 3 do, and runs that build on other runs."""

import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot
from torch.nn.utils import parameters_to_vector

from data.features import draw_batches
from data.voc_files import read_ids
from models.checkpoint import load_segmenter
from tests.conftest import BACKBONE, DATA, change_masks
from tests.scripts.processes import config, contents, differences, facts, log, losses, metrics

FLAGS = ("--run", "run", *DATA, "--epochs", 1, "--limit", 4, "--val-limit", 1, "--batch-size", 2)
QUICK = ("--limit", 2, "--val-limit", 1, "--epochs", 1)
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
CHANGES += [("--seed", 1), ("--class-weights", "inverse"), ("--lovasz", 1)]
CHANGES += [("--label-smoothing", 0.5)]


def test_each_flag_of_images_and_loss_changes_the_losses(train):
    seen = []
    for flags in [(), *CHANGES]:
        said = train(*flags)
        assert losses(Path("run")) not in seen, flags
        seen.append(losses(Path("run")))
        crop = 40 if "--crop" in flags else 48
        assert f"size 48, crop {crop}, logits at 1/" in facts(said)["network"]
    train()
    assert losses(Path("run")) == seen[0]


def test_the_moving_average_is_what_is_scored_and_kept(train, succeeds):
    said = succeeds("train_cls.py", "--run", "run", "--epochs", 1, "--lr", 1e-9)  # a bad start
    accuracy, commonest = re.search(r"accuracy ([\d.]+) \(.* class: ([\d.]+)\)", said).groups()
    assert accuracy <= commonest
    said = train("--ema", 0.5, "--lr", 0.01, "--val-split", "train")
    # Two of the 18 were held out in step 2, of which this step's four are one.
    assert "note: 17 of 18 validation images are also trained on\n" in said
    assert config(SEG)["best_epoch"] == 1
    average = torch.load(SEG / "last.pt", weights_only=True)["training"]["average"]
    for name, value in load_segmenter(SEG / "best.pt")[0].named_parameters():
        assert torch.equal(value, average[f"module.{name}"])
    assert not torch.equal(head(), head(SEG / "best.pt"))


def test_accumulated_batches_are_one_batch_as_large(train):
    pixels = ("--pixels", 200)  # a CPU goes through whole grids image by image, however batched
    train(*pixels, "--batch-size", 4)
    expected, weights_then = losses(Path("run")), head()
    train(*pixels, "--batch-size", 1, "--accumulate", 4)
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


def test_few_pixels_are_passed_over_until_there_are_enough_steps(street, succeeds):
    flags = ("--run", "run", "--held-out", 0, "--batch-size", 200, "--hidden", 4)
    rows = len(np.load("run/1_features/labels.npy"))
    steps = -(-rows // 200)
    assert 1 < steps < 20
    said = succeeds("train_cls.py", *flags, "--epochs", 2, "--min-steps", 20)
    epochs = -(-20 // steps)
    assert f"  training  {epochs} epochs of {steps} steps, few to learn in: --min-steps" in said
    assert len(log("run/2_cls")) == epochs > 2
    assert log("run/2_cls")[-1]["lr"] < log("run/2_cls")[1]["lr"]  # it decays over all of them
    said = succeeds("train_cls.py", *flags, "--epochs", 2, "--min-steps", steps)
    assert len(log("run/2_cls")) == 2
    assert f"  training  2 epochs of {steps} steps, few" in said


def test_area_weights_make_the_loss_that_of_all_pixels_of_the_images(street, succeeds):
    flags = ("--held-out", 0, "--dropout", 0, "--epochs", 1, "--lr", 1e-12, "--batch-size", 10**6)
    succeeds("train_cls.py", "--run", "run", *flags, "--area-weight", 1)
    labels, areas = np.load("run/1_features/labels.npy"), np.load("run/1_features/areas.npy")
    features, mean, std = (np.load(f"run/1_features/{n}.npy") for n in ("features", "mean", "std"))
    x = torch.from_numpy((features - mean) / np.where(std > 0, std, 1))
    layers = [value.detach() for value in load_segmenter(START)[0].head.parameters()]
    for number, (weight, bias) in enumerate(zip(layers[::2], layers[1::2])):
        x = (x.relu() if number else x) @ weight.flatten(1).T + bias
    entropies = -x.log_softmax(1)[range(len(labels)), labels.astype(int)].numpy()
    assert len(set(areas)) > 1
    expected = (entropies * areas).sum() / areas.sum()
    assert log("run/2_cls")[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_mixed_rows_lie_between_two_rows_as_their_targets_do():
    torch.manual_seed(0)
    labels, weights = torch.arange(40) % 4, torch.rand(40) + 0.1
    weights[:2] = 0  # as the smallest areas to a high power
    features = weights[:, None] * one_hot(labels, 4)  # so that what is mixed alike stays equal
    rows = features, labels, weights
    for mixup in (0.0, 0.4):
        batches = [*draw_batches(rows, 16, 4, mixup)]
        assert [len(batch[0]) for batch in batches] == [16, 16, 8]
        found, targets, weight = map(torch.cat, zip(*batches))
        torch.testing.assert_close(found, targets * weight[:, None])
        assert targets.isfinite().all()
        mixtures = ((targets > 0).sum(1) > 1).sum()
        assert mixtures > 10 if mixup else mixtures == 0
        if not mixup:
            torch.testing.assert_close(found.sum(0), features.sum(0))
            assert sorted(weight.tolist()) == sorted(weights.tolist())


def test_mixup_changes_the_classifier_and_is_said(street, succeeds):
    flags = ("--run", "run", "--held-out", 0, "--epochs", 2, "--hidden", 4)
    succeeds("train_cls.py", *flags)
    plain = head(START)
    assert "--mixup 0.4" in facts(succeeds("train_cls.py", *flags, "--mixup", 0.4))["flags"]
    assert not torch.equal(head(START), plain)


def test_trainings_from_one_start_are_averaged_and_others_refused(street, succeeds, fails):
    flags = (*FLAGS[2:], "--finetune-backbone", "--lr", 0.01)
    init = ("--init", "run/2_cls/dense.pt")
    for name in "ab":
        succeeds("train_seg.py", "--run", name, *init, *flags, "--seed", ord(name))
    said = succeeds("models/export.py", "--average", "a", "b", "--half", "mean.pt")
    assert "wrote mean.pt" in said
    one, two, mean = (
        load_segmenter(Path(f"{name}.pt"))[0] for name in ("a/3_seg/best", "b/3_seg/best", "mean")
    )
    assert (one.head.layers[0].weight - two.head.layers[0].weight).abs().max() > 0.01
    for first, second, found in zip(*(network.parameters() for network in (one, two, mean))):
        torch.testing.assert_close(found, (first + second) / 2, rtol=1e-3, atol=1e-6)
    assert mean.trained_on == f"{one.trained_on}; averaged with {two.trained_on}"
    assert torch.equal(mean.seen, torch.cat([one.seen, two.seen]).unique())
    backbone = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", 48, "--seed", 3)
    succeeds("sample_features.py", "--run", "other", *DATA, *backbone, "--limit", 4)
    succeeds("train_cls.py", "--run", "other", "--epochs", 1)
    head = ("--features", "run", "--epochs", 20, "--hidden", 16, "--dropout", 0.2, "--seed", 1)
    succeeds("train_cls.py", "--run", "seed", *head)  # else as the run's
    line = fails("train_cls.py", "--run", "other", *head)
    assert "--features: other has a step 1 of its own; use another --run" in line
    for name in ("other", "seed"):
        line = fails("models/export.py", "--average", "a", name, "--half", "none.pt")
        assert f"{name}: was not trained from the same start as a" in line


BOTH, SGD = ("train_cls.py", "train_seg.py"), ("--optimizer", "sgd")
NEEDS = [  # scripts, flags, why they are refused together
    (BOTH, ("--momentum", 0.5), "--momentum: has no effect without --optimizer sgd"),
    (BOTH, ("--nesterov",), "--nesterov: has no effect without --optimizer sgd"),
    (BOTH, ("--milestones", "1,2"), "--milestones: has no effect without --decay step"),
    (BOTH, ("--gamma", 0.5), "--gamma: has no effect without --decay step"),
    (BOTH, ("--decay", "step", "--milestones", "3,30"), "30 is not before the last of"),
    (BOTH, (*SGD, "--momentum", 0, "--nesterov"), "no effect with --momentum 0"),
    (BOTH[1:], ("--frozen-stages", 1), "has no effect without --finetune-backbone"),
    (BOTH[1:], ("--backbone-lr", 0.1), "has no effect without --finetune-backbone"),
    (BOTH[1:], ("--finetune-backbone", "--frozen-stages", 4), "4: there are 4 stages"),
]


@pytest.mark.parametrize("scripts, flags, words", NEEDS)
def test_flags_that_would_change_nothing_are_refused(scripts, flags, words, street, fails):
    for script in scripts:
        assert words in fails(script, "--run", "run", *(DATA if script == BOTH[1] else ()), *flags)


def test_the_logs_tell_rates_seconds_and_both_losses(street, succeeds):
    schedule = ("--optimizer", "sgd", "--nesterov", "--decay", "step", "--milestones", 2)
    schedule += ("--lr", 0.25, "--warmup", 0, "--gamma", 0.5)
    succeeds("train_cls.py", "--run", "run", *schedule, "--epochs", 3)
    rows = log("run/2_cls")
    assert [row["lr"] for row in rows] == [0.25, 0.25, 0.125]
    assert all(row["seconds"] > 0 and row["val_loss"] > 0 for row in rows)
    flags = ("--limit", 2, "--val-limit", 1, "--epochs", 3, "--lr", 1e-4)
    flags += ("--finetune-backbone", "--backbone-lr", 2e-6)
    succeeds("train_seg.py", "--run", "run", *DATA, *schedule, *flags)
    rows = log("run/3_seg")
    assert [row["backbone_lr"] for row in rows] == [None, 2e-6, 2e-6, 1e-6]
    assert [row["loss"] is None for row in rows] == [True, False, False, False]
    assert all(row["val_loss"] > 0 for row in rows)


def test_the_validation_loss_is_that_of_training_on_whole_images(street, succeeds):
    """On a square image, which a crop is the whole of, both are the same, but for dropout."""
    ids = Path("shapes/ImageSets/Segmentation/val.txt").read_text().split()
    for path in Path("shapes").glob(f"*/{ids[0]}.*"):
        picture = Image.open(path)
        side = min(picture.size)
        picture.crop((0, 0, side, side)).save(path)
    flags = ("--lr", 1e-12, "--batch-size", 1, "--limit", 1, "--val-limit", 1, "--epochs", 1)
    succeeds("train_cls.py", "--run", "run", "--dropout", 0, "--epochs", 2)
    given = (*DATA, *flags, "--split", "val", "--stride", 1, "--lovasz", 0.5)
    succeeds("train_seg.py", "--run", "run", *given)
    before, after = log("run/3_seg")
    assert after["loss"] == pytest.approx(before["val_loss"], rel=1e-4)


def test_ten_heads_cost_one_sampling(street, succeeds, fails):
    head = ("--hidden", "none", "--epochs", 1)
    succeeds("train_cls.py", "--run", "linear", "--features", "run", *head)
    assert config("linear/2_cls")["features"] == "run"
    assert not Path("linear/1_features").exists(), "nothing is copied or linked"
    init = ("--init", "linear/2_cls/dense.pt", "--lr", 1e-12)
    said = succeeds("train_seg.py", "--run", "longer", *init, *DATA, *QUICK)
    begun, ended = log("longer/3_seg")
    assert "starts anew" not in said and ended["miou"] == pytest.approx(begun["miou"], abs=1e-3)
    # Step 1 of the first run again, with other settings: the networks hold what they need of it.
    backbone = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", 72)
    succeeds("sample_features.py", "--run", "run", *DATA, *backbone, "--limit", 2)
    for run in ("linear", "longer"):
        said = succeeds("evaluate.py", "--run", run, *DATA, "--limit", 1)
        assert "shorter side 48" in said
    line = fails("train_cls.py", "--run", "new", "--features", "nothing")
    assert "nothing/1_features: step 1 has not finished" in line


def test_a_network_is_fine_tuned_for_other_classes_in_one_command(street, succeeds, fails):
    """Own data: two of the classes under new names."""
    old, _ = load_segmenter(Path("run/3_seg/best.pt"))
    own = Path("own")
    shutil.copytree("shapes", own)
    (own / "classes.txt").write_text("nothing\nthing\n")
    change_masks(own, lambda mask: np.where(mask == 255, 255, mask > 0))
    init = ("--init", "run/3_seg/best.pt", "--lr", 1e-12)
    said = succeeds("train_seg.py", "--run", "new", "--data", "own", *init, *QUICK)
    assert "the last layer of the head starts anew" in said
    new, _ = load_segmenter(Path("new/3_seg/best.pt"))
    assert list(new.classes.names) == ["nothing", "thing"]
    *kept, weight, bias = new.parameters()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(kept, old.parameters()))
    assert len(weight) == len(bias) == 2
    trained_on = load_segmenter(Path("new/3_seg/last.pt"))[0].trained_on
    assert trained_on == f"2 images of train, 1 epoch; before that {old.trained_on}"
    said = succeeds("evaluate.py", "--run", "new", "--data", "own", "--limit", 2)
    assert "of 2 classes" in said
    (own / "classes.txt").write_text("nothing\nrenamed\n")
    line = fails("train_seg.py", "--run", "new", "--data", "own", *init, *QUICK, "--resume")
    assert "class 1 is 'renamed' there but 'thing'" in line


def test_tensorboard_gets_the_log(street, succeeds):
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = {"train_cls.py": ("run/2_cls", ()), "train_seg.py": ("run/3_seg", (*DATA, *QUICK))}
    for step, (folder, flags) in steps.items():
        succeeds(step, "--run", "run", *flags, "--epochs", 2, "--tensorboard")
        board = EventAccumulator(f"{folder}/tensorboard").Reload()
        rows = log(folder)
        assert {*board.Tags()["scalars"]} == {*rows[-1]} - {"epoch"}
        for name in board.Tags()["scalars"]:
            found = {event.step: event.value for event in board.Scalars(name)}
            expected = {row["epoch"]: row[name] for row in rows if row[name] is not None}
            assert found == pytest.approx(expected, rel=1e-6)


def test_without_tensorboard_one_line_says_so(street, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    line = fails("train_cls.py", "--run", "run", "--tensorboard")
    assert line == "train_cls: --tensorboard: needs a package; pip install tensorboard"
