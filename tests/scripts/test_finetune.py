"""What step 3 can do beside the plain course recipe: augment, average, train the backbone; and what goes together."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint, load_segmenter
from tests.test_speed_flags import FLAGS, facts, refusal

AUGMENTED = ("--crop", "40", "--scale", "0.8,1.2", "--flip", "--jitter", "0.2")


@pytest.fixture(scope="module")
def fitted(drawn, in_turn, tmp_path_factory) -> Path:
    """A run after steps 1 and 2; not to be changed: see `run`."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    backbone = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48", "--context", "image")
    in_turn(
        ("sample_features.py", "--data", drawn, "--run", run, *backbone, "--workers", "0"),
        ("train_cls.py", "--run", run, "--epochs", "5", "--hidden", "16"),
    )
    return run


@pytest.fixture
def run(fitted, tmp_path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "run"))


@pytest.fixture
def train(run, drawn, in_process):
    return lambda *flags: in_process("train_seg.py", "--data", drawn, "--run", run, *FLAGS, *flags)


def weights(path: Path, part: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_segmenter(path)[0].state_dict().items() if name.startswith(part)}


def test_a_trained_backbone_is_the_one_that_later_steps_use(run, train, drawn, in_process):
    done = train("--finetune-backbone", "--backbone-lr", "1e-3", "--pixels", "100", *AUGMENTED)
    assert done.returncode == 0, done.stderr
    assert "trained with peak rate 0.001" in facts(done)["network"]
    before, after = (weights(run / path, "hypercolumn.features") for path in ("2_cls/dense.pt", "3_seg/last.pt"))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    done = in_process("evaluate.py", "--data", drawn, "--run", run, "--limit", "1", "--tta", "flip,1.25")
    assert done.returncode == 0, done.stderr
    assert "mean probabilities at scales 1, 1.25, flipped too" in done.stdout
    assert "flipped too" in json.loads((run / "4_eval" / "metrics.json").read_text())["protocol"]
    again = train("--finetune-backbone", "--backbone-lr", "1e-3", "--pixels", "100", *AUGMENTED, "--resume")
    assert again.returncode == 0, again.stderr


def test_a_frozen_backbone_stays_as_it_is(run, train):
    assert train(*AUGMENTED).returncode == 0
    before, after = (weights(run / path, "hypercolumn") for path in ("2_cls/dense.pt", "3_seg/last.pt"))
    assert all(map(torch.equal, before.values(), after.values()))


def test_the_first_stages_of_a_trained_backbone_may_stay_as_they_are(run, train):
    flags = ("--finetune-backbone", "--backbone-lr", "1e-3", "--pixels", "50", "--frozen-stages", "2")
    done = train(*flags, "--recompute")
    assert done.returncode == 0, done.stderr
    assert facts(done)["network"].startswith("squeezenet1_1, trained with peak rate 0.001, its first 2 stages frozen;")
    before, after = (weights(run / path, "hypercolumn.features") for path in ("2_cls/dense.pt", "3_seg/last.pt"))
    learned = sum(value.numel() for value in weights(run / "3_seg/last.pt", "head.layers").values())
    learned += sum(value.numel() for name, value in after.items() if int(name.split(".")[2]) > 4)
    assert facts(done)["parameters"] == f"{learned:,} learn"
    assert json.loads((run / "3_seg" / "config.json").read_text())["parameters"] == learned
    changed = {int(name.split(".")[2]) for name in before if not torch.equal(before[name], after[name])}
    assert changed == {6, 7, 9, 10, 11, 12}, "features[4] is the second tap"
    shutil.rmtree(run / "3_seg")
    assert train(*flags).returncode == 0
    again = weights(run / "3_seg/last.pt", "hypercolumn.features")
    assert all(torch.equal(again[name], after[name]) for name in after), "--recompute changes no value"


@pytest.mark.parametrize("flag", [("--frozen-stages", "1"), ("--recompute",)])
def test_what_is_about_a_backbone_that_learns_is_refused_for_a_frozen_one(flag, train):
    assert "add --finetune-backbone" in refusal(train(*flag))


def test_a_backbone_that_learns_needs_a_stage_that_does(train):
    assert "--frozen-stages 4: of 4 stages" in refusal(train("--finetune-backbone", "--frozen-stages", "4"))


def test_the_average_is_what_is_scored_and_kept(run, train):
    done = train("--ema", "0.5", "--lr", "0.01")
    assert done.returncode == 0, done.stderr
    content = load_checkpoint(run / "3_seg" / "last.pt", "segmenter")
    average = {name.removeprefix("module."): value for name, value in content["training"]["average"].items()}
    name = "head.layers.0.weight"
    assert not torch.equal(average[name], content["state"][name])
    if json.loads((run / "3_seg" / "config.json").read_text())["best_epoch"] == 1:
        assert torch.equal(weights(run / "3_seg" / "best.pt", "head")[name], average[name])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_augmentation_depends_on_the_seed_alone(workers, run, train):
    done = train(*AUGMENTED, "--lovasz", "0.5", "--label-smoothing", "0.1", "--workers", workers)
    assert done.returncode == 0, done.stderr
    first = (run / "3_seg" / "steps.csv").read_bytes()
    shutil.rmtree(run / "3_seg")
    assert train(*AUGMENTED, "--lovasz", "0.5", "--label-smoothing", "0.1", "--workers", "0").returncode == 0
    assert (run / "3_seg" / "steps.csv").read_bytes() == first
    shutil.rmtree(run / "3_seg")
    assert train(*AUGMENTED, "--lovasz", "0.5", "--label-smoothing", "0.1", "--seed", "1").returncode == 0
    assert (run / "3_seg" / "steps.csv").read_bytes() != first


@pytest.mark.parametrize("optimizer, decay", [("sgd", "poly"), ("adamw", "none")])
def test_other_optimizers_and_decays_train_too(optimizer, decay, run, train):
    done = train("--optimizer", optimizer, "--decay", decay, "--lr", "0.01")
    assert done.returncode == 0, done.stderr
    assert f"{optimizer}, peak rate 0.01" in facts(done)["training"]
    before, after = (weights(run / path, "head.layers") for path in ("2_cls/dense.pt", "3_seg/last.pt"))
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("flag", [("--flip",), ("--crop", "40"), ("--jitter", "0.1"), ("--scale", "1,2")])
def test_a_cache_refuses_what_changes(flag, train):
    assert "--cache keeps what never changes" in refusal(train("--cache", "1", *flag))


@pytest.mark.parametrize("flag, value", [("--crop", "8"), ("--scale", "0.1,1")])
def test_inputs_that_chance_could_make_too_small_are_refused_at_once(flag, value, train):
    assert f"{flag}: " in (line := refusal(train(flag, value))) and "too few for squeezenet1_1" in line


def test_a_cache_refuses_a_backbone_in_training(train):
    assert "--cache keeps what never changes" in refusal(train("--cache", "1", "--finetune-backbone"))


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--scale", "2,1"),
        ("--scale", "1"),
        ("--scale", "0,1"),
        ("--crop", "0"),
        ("--ema", "1"),
        ("--lovasz", "-1"),
        ("--lovasz", "nan"),
    ],
)
def test_flags_of_a_wrong_kind(flag, value, train):
    assert f"argument {flag}: " in refusal(train(flag, value))
