"""What the flags of steps 2 and 3 do, sparse labels, and runs that build on other runs."""

import re
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot
from torch.nn.utils import parameters_to_vector

from data.features import draw_batches, estimate_areas, read_features
from data.sampling import KEPT
from data.voc_files import read_ids
from models.checkpoint import load_segmenter
from models.run.chain import trained_segmenter
from models.run.record import read_run
from tests.conftest import BACKBONE, DATA, STEPS, change_masks, cut
from tests.drawn_strokes import draw_strokes
from tests.scripts.processes import config, contents, facts, log, losses, metrics
from tests.textbook import logits

EPOCH, FEW = ("--epochs", 1), ("--limit", 2, "--val-limit", 1)
FLAGS = ("--run", "run", *DATA, *EPOCH, *FEW, "--limit", 4, "--batch-size", 2)
CLS = ("train_cls.py", "--run", "run")
FEATURES, START, SEG = Path("run/1_features"), Path("run/2_cls/dense.pt"), Path("run/3_seg")


@pytest.fixture
def train(street, succeeds):
    """Runs step 3 on a few images; what it printed."""
    return partial(succeeds, "train_seg.py", *FLAGS)


def head(path: Path = SEG / "last.pt") -> torch.Tensor:
    return parameters_to_vector(load_segmenter(path)[0].head.parameters()).detach()


def learned() -> dict[int, int]:
    """How many weights have changed in each block of the backbone."""
    states = (load_segmenter(path)[0].hypercolumn for path in (START, SEG / "last.pt"))
    counts = Counter()
    for (name, before), after in zip(*(state.named_parameters() for state in states)):
        if not torch.equal(before, after[1]):
            counts[int(re.search(r"\d+", name)[0])] += before.numel()
    return counts


LATE, TUNE = {6, 7, 9, 10, 11, 12}, "--finetune-backbone"
LEARN = [  # flags, the blocks that learn; block 4 is the second tap
    (("--optimizer", "sgd", "--decay", "poly"), set()),
    ((TUNE, "--backbone-lr", "1e-3"), {0, 3, 4} | LATE),
    ((TUNE, "--frozen-stages", 2), LATE),
]


@pytest.mark.parametrize("flags, blocks", LEARN)
def test_what_the_flags_name_learns_and_is_what_later_steps_use(flags, blocks, train, succeeds):
    train(*flags)
    layers = [load_segmenter(path)[0].head.parameters() for path in (START, SEG / "last.pt")]
    assert set(learned()) == blocks and not any(map(torch.equal, *layers))
    assert config(SEG)["parameters"] == len(head()) + sum(learned().values())
    succeeds("evaluate.py", "--run", "run", *DATA, "--checkpoint", SEG / "last.pt")
    words = ", backbone too" * bool(blocks) + "; before that 325 pixels of 16 images of train"
    assert metrics("run")["protocol"].startswith(f"trained on 4 images of train, 1 epoch{words}, ")


def test_all_pixels_drawn_train_as_all_on_the_finest_grid(train, succeeds):
    succeeds(*CLS, "--epochs", 9, "--hidden", 16, "--dropout", 0)
    found = []
    for flags in (("--stride", 1), ("--pixels", 99999), ("--pixels", 400)):
        train(*flags)
        found.append(losses(Path("run")))
    grid, every, some = found
    assert every == pytest.approx(grid, rel=1e-5)
    assert some == pytest.approx(grid, rel=0.1) and some != grid


SEG_STEP, CLS_STEP = ("train_seg.py", *FLAGS), (*CLS, "--held-out", 0, *EPOCH, "--hidden", 4)
CHANGES = [("--crop", 40), ("--scale", "0.5,2.0"), ("--flip",), ("--jitter", 0.5), ("--stride", 4)]
CHANGES += [("--lovasz", 1), ("--scale", "0.5,2.0", "--mosaic")]
OF_HEAD = [("--mixup", 0.4), ("--input-dropout", 0.3), ("--dropout", 0), ("--activation", "gelu")]
OF_BOTH = [("--seed", 1), ("--class-weights", "inverse"), ("--label-smoothing", 0.5)]


@pytest.mark.parametrize("step, changes", [(SEG_STEP, CHANGES), (CLS_STEP, OF_HEAD)])
def test_each_flag_changes_the_losses_and_is_said(step, changes, street, succeeds):
    seen = []
    for flags in [(), *changes, *OF_BOTH]:
        said = succeeds(*step, *flags)
        assert " ".join(map(str, flags)) in facts(said)["flags"]
        aside = f"note: what an earlier training left is now in run/3_seg.{len(seen) + 1}\n"
        assert (aside in said) == (step is SEG_STEP)
        found = [row["loss"] for row in log(SEG if step is SEG_STEP else START.parent)]
        assert found not in seen, flags
        seen.append(found)


def test_the_moving_average_is_what_is_scored_and_kept(train, succeeds):
    succeeds(*CLS, *EPOCH, "--lr", 1e-9)  # a bad start
    said = train("--ema", 0.5, "--lr", 0.01, "--val-split", "train")
    # Two of the 18 were held out in step 2, of which this step's four are one.
    assert "note: 17 of 18 validation images are also trained on\n" in said
    assert config(SEG)["best_epoch"] == 1
    average = torch.load(SEG / "last.pt", weights_only=True)["training"]["average"]
    for name, value in load_segmenter(SEG / "best.pt")[0].named_parameters():
        assert torch.equal(value, average[f"module.{name}"])
    assert not torch.equal(head(), head(SEG / "best.pt"))


def test_low_precision_is_stated_and_ends_near_the_exact_result(train, succeeds):
    found = {}
    for amp in ("off", "bf16", "fp16"):
        device = facts(train("--amp", amp))["device"]
        assert amp == "off" or device.startswith(f"cpu, autocast to {amp}")
        found[amp] = losses(Path("run"))
    for low in (found["bf16"], found["fp16"]):
        assert low != found["off"] and low == pytest.approx(found["off"], rel=0.05)
    for script in ("evaluate.py", "visualize.py"):
        assert "bf16" in succeeds(script, "--run", "run", *DATA, "--limit", 1, "--amp", "bf16")


def test_a_compiler_that_does_not_work_is_named(street, fails, monkeypatch):
    before = contents(SEG)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    line = fails("train_seg.py", *FLAGS, "--compile")
    assert re.search(r": --compile: PyTorch cannot compile .+no-such-compiler.+leave it out$", line)
    assert contents("run/3_seg.1") == before, "what an earlier training left"


def test_a_bad_image_of_20_is_left_out_and_listed(street, succeeds):
    bad = read_ids(Path("shapes"), "trainval")[7]
    path = Path(f"shapes/JPEGImages/{bad}.jpg")
    cut(path)
    given = ("--run", "run", *DATA, "--split", "trainval", "--skip-bad")
    for step, place, flags in [("train_seg", SEG, EPOCH), ("sample_features", FEATURES, BACKBONE)]:
        said = succeeds(f"{step}.py", *given, *flags)
        assert "; left out 1 bad image, listed in config.json\n" in said
        assert "20 images" in facts(said)["data"]
        line = f"{path}: cannot be read as an image"
        assert config(place)["skipped"][bad].startswith(line)


def test_area_weights_make_the_loss_that_of_all_pixels_of_the_images(street, succeeds):
    flags = ("--held-out", 0, "--dropout", 0, "--epochs", 1, "--lr", 1e-12, "--batch-size", 10**6)
    succeeds(*CLS, *flags, "--area-weight", 1)
    features, labels, _, areas, mean, std, *_ = read_features(FEATURES)
    head = load_segmenter(START)[0].head.requires_grad_(False)
    assert np.array_equal(head.mean, mean) and np.array_equal(head.std, np.where(std > 0, std, 1))
    x = logits(head, torch.from_numpy(features).T[None, ..., None])[0, ..., 0]  # (C, N)
    entropies = -x.log_softmax(0)[labels.astype(int), range(len(labels))].numpy()
    assert len(set(areas)) > 1
    expected = (entropies * areas).sum() / areas.sum()
    assert log("run/2_cls")[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_mixed_rows_lie_between_two_rows_as_their_targets_do():
    torch.manual_seed(0)
    labels, weights = torch.arange(40) % 4, torch.rand(40) + 0.1
    weights[:2] = 0  # as the smallest areas to a high power
    features = weights[:, None] * one_hot(labels, 4)  # so that what is mixed alike stays equal
    for mixup in (0.0, 0.4):
        batches = [*draw_batches((features, labels, weights), torch.arange(40), 16, 4, mixup)]
        assert [len(batch[0]) for batch in batches] == [16, 16, 8]
        found, targets, weight = map(torch.cat, zip(*batches))
        torch.testing.assert_close(found, targets * weight[:, None])
        mixtures = ((targets > 0).sum(1) > 1).sum()
        assert targets.isfinite().all() and (mixtures > 10 if mixup else mixtures == 0)


def test_step_2_takes_the_areas_that_a_first_classifier_estimates(street, succeeds):
    assert not (FEATURES / "places.npy").exists(), "masks drawn in full need no estimate"
    change_masks("shapes", partial(draw_strokes, width=1, seed=0))
    succeeds("sample_features.py", "--run", "run", *DATA, *BACKBONE, "--per-class", 99)
    store = read_features(FEATURES)
    assert store.places.shape == (18, KEPT, store.features.shape[1])
    assert store.areas == pytest.approx(1 / np.bincount(store.pixels[:, 0])[store.pixels[:, 0]])

    def train() -> str:
        flags = ("--epochs", 20, "--lr", 0.02, "--hidden", 16, "--area-weight", 1)
        return facts(succeeds(*CLS, *flags))["training"]

    assert "20 epochs of 6 steps, twice, as sparse labels tell no areas" in train()
    expected = [row["loss"] for row in log("run/2_cls")]
    (FEATURES / "places.npy").unlink()
    assert "twice" not in train()
    first = load_segmenter(START)[0].head.requires_grad_(False)
    known = store.pixels[:, 0], store.labels, store.places
    estimated = estimate_areas(*known, lambda x: logits(first, x.T[None, ..., None])[0, ..., 0].T)
    np.save(FEATURES / "areas.npy", estimated)
    train()
    assert [row["loss"] for row in log("run/2_cls")] == pytest.approx(expected, rel=1e-3)


def test_trainings_from_one_start_are_averaged_and_others_refused(street, succeeds, fails):
    for name in "ab":
        flags = ("--init", START, "--finetune-backbone", "--lr", 0.01, "--seed", ord(name))
        succeeds("train_seg.py", *FLAGS, *flags, "--run", name)
    average = ("models/export.py", "--average", "a")
    assert "wrote mean.pt" in succeeds(*average, "b", "--half", "mean.pt")
    files = map(Path, ("a/3_seg/best.pt", "b/3_seg/best.pt", "mean.pt"))
    one, two, mean = (load_segmenter(file)[0] for file in files)
    assert (one.head.layers[0].weight - two.head.layers[0].weight).abs().max() > 0.01
    for first, second, found in zip(*(network.parameters() for network in (one, two, mean))):
        torch.testing.assert_close(found, (first + second) / 2, rtol=1e-3, atol=1e-6)
    assert mean.trained_on == f"{one.trained_on}; averaged with {two.trained_on}"
    assert torch.equal(mean.seen, torch.cat([one.seen, two.seen]).unique())
    succeeds("sample_features.py", "--run", "other", *DATA, *BACKBONE, "--seed", 3)
    succeeds("train_cls.py", "--run", "other", *STEPS["train_cls"])
    seed = ("--features", "run", *STEPS["train_cls"], "--seed", 1)  # else as the run's
    succeeds("train_cls.py", "--run", "seed", *seed)
    succeeds("train_seg.py", *FLAGS, "--init", START, "--stride", 3, "--run", "coarse")
    for name in ("other", "seed", "coarse"):
        line = fails(*average, name, "--half", "none.pt")
        assert f"{name}: was not trained from the same start as a" in line


def test_the_logs_tell_rates_seconds_and_both_losses(street, succeeds):
    schedule = ("--optimizer", "sgd", "--nesterov", "--decay", "step", "--milestones", 2)
    schedule += ("--lr", 0.25, "--warmup", 0, "--gamma", 0.5, "--epochs", 3)
    succeeds(*CLS, *schedule)
    rows = log("run/2_cls")
    assert [row["lr"] for row in rows] == [0.25, 0.25, 0.125]
    assert all(row["seconds"] > 0 and row["val_loss"] > 0 for row in rows)
    flags = (*schedule, "--lr", 1e-4, TUNE, "--backbone-lr", 2e-6)
    succeeds("train_seg.py", "--run", "run", *DATA, *FEW, *flags)
    rows = log(SEG)
    assert [row["backbone_lr"] for row in rows] == [None, 2e-6, 2e-6, 1e-6]
    assert [row["loss"] is None for row in rows] == [True, False, False, False]
    assert all(row["val_loss"] > 0 for row in rows)


def test_the_validation_loss_is_that_of_training_on_whole_images(train, succeeds):
    """On a square image, which a crop is the whole of, both are the same, but for dropout."""
    for path in Path("shapes").glob(f"*/{read_ids(Path('shapes'), 'val')[0]}.*"):
        picture = Image.open(path)
        side = min(picture.size)
        picture.crop((0, 0, side, side)).save(path)
    succeeds(*CLS, "--dropout", 0, "--epochs", 2)
    flags = ("--split", "val", "--limit", 1, "--batch-size", 1, "--lr", 1e-12)
    train(*flags, "--stride", 1, "--lovasz", 0.5)
    before, after = log(SEG)
    assert after["loss"] == pytest.approx(before["val_loss"], rel=1e-4)


def test_ten_heads_cost_one_sampling(street, succeeds):
    flags = ("--features", "run", "--hidden", "none", "--batch-size", 200, *EPOCH)
    cls = ("train_cls.py", "--run", "linear", *flags, "--min-steps")
    pixels = int(facts(said := succeeds(*cls, "auto"))["data"].split()[1])
    epochs = -(-round(38 * pixels ** (1 / 3)) // 2)
    assert f"  training  {epochs} epochs of 2 steps\n" in said and "are few" not in said
    said = succeeds(*cls, 15, "--epochs", 2, "--decay", "step", "--milestones", 1)
    assert "  training  8 epochs of 2 steps\n" in said, "few pixels are passed over more often"
    assert "note: 16 steps are few to learn in; --min-steps" in said
    rates = [row["lr"] for row in log("linear/2_cls")]
    assert rates[1:] == pytest.approx([1e-3] * 3 + [1e-4] * 4), "epoch 1 of 2 is epoch 4 of 8"
    init = ("--init", "linear/2_cls/dense.pt", "--lr", 1e-12)
    shutil.copytree("linear", "longer")  # whose own step 2 plays no part then
    said = succeeds("train_seg.py", "--run", "longer", *init, *DATA, *FEW, *EPOCH)
    begun, ended = log("longer/3_seg")
    assert "starts anew" not in said and ended["miou"] == pytest.approx(begun["miou"], abs=1e-3)
    # Step 1 of the first run again, with other settings: the networks hold what they need of it.
    again = ("--size", 72, "--limit", 2)
    succeeds("sample_features.py", "--run", "run", *DATA, *BACKBONE, *again)
    for run, left in {"linear": [2, 4], "longer": [3, 4]}.items():
        assert "shorter side 48" in succeeds("evaluate.py", "--run", run, *DATA, "--limit", 1)
        record = read_run(Path(run), trained_segmenter(Path(run), None)[0])
        assert [step for step, config in record["configs"].items() if config] == left


def test_a_network_is_fine_tuned_for_other_classes_in_one_command(street, succeeds, fails):
    old, classes = load_segmenter(SEG / "best.pt")[0], Path("shapes/classes.txt")
    classes.write_text("nothing\nthing\n")
    change_masks("shapes", lambda mask: np.where(mask == 255, 255, mask > 0))
    init = (*DATA, "--init", "run/3_seg/best.pt", "--lr", 1e-12, *FEW, *EPOCH)
    said = succeeds("train_seg.py", "--run", "new", *init)
    assert "the last layer of the head starts anew" in said
    new, _ = load_segmenter(Path("new/3_seg/best.pt"))
    assert list(new.classes.names) == ["nothing", "thing"]
    *kept, weight, bias = new.parameters()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(kept, old.parameters()))
    assert len(weight) == len(bias) == 2
    trained_on = load_segmenter(Path("new/3_seg/last.pt"))[0].trained_on
    assert trained_on == f"2 images of train, 1 epoch; before that {old.trained_on}"
    assert "of 2 classes" in succeeds("evaluate.py", "--run", "new", *DATA, "--limit", 2)
    classes.write_text("nothing\nrenamed\n")
    line = fails("train_seg.py", "--run", "new", *init, "--resume")
    assert "class 1 is 'renamed' there but 'thing'" in line


def test_tensorboard_gets_the_log_or_a_line_says_what_lacks(street, succeeds, fails, monkeypatch):
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name, reason="pip install tensorboard").EventAccumulator
    train = ("train_seg.py", "--run", "run", *DATA, *FEW)
    for folder, step in {"run/2_cls": CLS, "run/3_seg": train}.items():
        succeeds(*step, "--epochs", 2, "--tensorboard")
        board, rows = accumulator(f"{folder}/tensorboard").Reload(), log(folder)
        for name in {*rows[-1]} - {"epoch"}:
            found = {event.step: event.value for event in board.Scalars(name)}
            expected = {row["epoch"]: row[name] for row in rows if row[name] is not None}
            assert found == pytest.approx(expected, rel=1e-6)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    line = fails(*CLS, "--tensorboard")
    assert "tensorboard" in line and line.endswith("; pip install tensorboard")
