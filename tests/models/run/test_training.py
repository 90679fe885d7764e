"""Rates of a training, its steps and average, and going on as if never interrupted."""

import io
import math
import time

import pytest
import torch
from torch import nn

from models.checkpoint import load_checkpoint, save_checkpoint
from models.run.training import DECAYS, OPTIMIZERS, Training, build_optimizer, build_schedule

PEAK = 0.02


def start(epochs, steps_per_epoch=1, decay="cosine", **how):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    return optimizer, build_schedule(optimizer, decay, epochs, steps_per_epoch, **how)


def go(optimizer, schedule, steps) -> list[float]:
    """The rates of the next steps of the optimizer."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 15, 1000])
def test_rates_rise_to_the_peak_then_fall_and_are_never_negative(steps):
    optimizer, schedule = start(steps)
    rates = go(optimizer, schedule, steps)
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(PEAK)
    assert top <= max(1, steps // 8), "the peak comes in the first tenth"
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0, "a step of rate 0 would be wasted"
    assert optimizer.param_groups[0]["lr"] >= 0, "the rate after the last step"


def test_a_long_training_warms_up_in_equal_parts_and_ends_near_zero():
    rates = go(*start(1000), 1000)
    assert rates[:100] == pytest.approx([PEAK * (step + 1) / 100 for step in range(100)])
    assert rates[100 + 450] == pytest.approx(PEAK / 2)
    assert rates[-1] < PEAK * 1e-4


def test_the_decays_by_hand():
    rates = {decay: go(*start(100, 10, decay=decay), 1000) for decay in DECAYS}
    for decay in DECAYS:
        assert rates[decay][:100] == rates["cosine"][:100], "all warm up alike"
    assert rates["poly"][100 + 450] == pytest.approx(PEAK * 0.5**0.9)
    assert rates["poly"][-1] == pytest.approx(PEAK * (1 / 900) ** 0.9)
    assert rates["constant"][100:] == [PEAK] * 900
    assert rates["step"][100:600] == [PEAK] * 500
    assert rates["step"][600:800] == pytest.approx([PEAK / 10] * 200)
    assert rates["step"][800:] == pytest.approx([PEAK / 100] * 200)
    assert rates["exponential"][500] == pytest.approx(PEAK * 0.9**40)


def test_milestones_gamma_and_warm_up_can_be_chosen():
    how = {"decay": "step", "milestones": (2, 3), "gamma": 0.5, "warmup": 0}
    assert go(*start(4, 2, **how), 8) == pytest.approx(
        [PEAK * share for share in (1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25)]
    )
    rates = go(*start(4, 5, warmup=0.5, decay="exponential", gamma=0.8), 20)
    assert rates[:10] == pytest.approx([PEAK * (step + 1) / 10 for step in range(10)])
    assert rates[10:] == pytest.approx([PEAK * 0.8 ** (step / 5) for step in range(10)])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_down_with_its_own_options(name):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(name, [weight], 0.01, 0.25, momentum=0.7, nesterov=True)
    for _ in range(5):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    options = optimizer.param_groups[0]
    assert type(optimizer).__name__.lower() == name and options["weight_decay"] == 0.25
    assert (weight < 1).all()
    if name == "sgd":
        assert (options["momentum"], options["nesterov"]) == (0.7, True)


def test_steps_beyond_the_last_stay_at_the_end():
    optimizer, schedule = start(10)
    go(optimizer, schedule, 10)
    assert go(optimizer, schedule, 5) == pytest.approx([0] * 5, abs=1e-12)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("done", [0, 3, 11, 19])
def test_a_resumed_schedule_gives_the_same_rates(done, decay):
    expected = go(*start(10, 2, decay=decay), 20)
    optimizer, schedule = start(10, 2, decay=decay)
    go(optimizer, schedule, done)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer, schedule = start(10, 2, decay=decay)
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    assert go(optimizer, schedule, 20 - done) == expected[done:]


# The training


def new(ema=0.0, fp16=False, name="adamw", decay="cosine") -> tuple[nn.Module, Training]:
    """A small network of two parts and its training of 5 epochs of 4 steps, from one seed."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    groups = [{"params": network[1].parameters(), "lr": 0.01}]
    groups.append({"params": network[0].parameters(), "lr": 0.001})
    optimizer = build_optimizer(name, groups, 0.01, 0.01)
    return network, Training(network, optimizer, build_schedule(optimizer, decay, 5, 4), ema, fp16)


def step(network, training, factor=1.0) -> None:
    """One step on random data; the log takes a row."""
    loss = network(torch.randn(5, 3)).square().mean()
    training.scaler.scale(loss * factor).backward()
    assert training.step(loss)
    assert all(parameter.grad is None for parameter in network.parameters())
    training.log.append({"epoch": len(training.log), "loss": loss.item()})


def weights(network) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_each_part_learns_at_its_rate():
    network, training = new(decay="constant")
    step(network, training)
    step(network, training)
    assert training.schedule.get_last_lr() == [0.01, 0.001]  # warm-up is over
    assert len(training.parameters) == 4 and len(training.losses) == 2


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_not_finite_changes_nothing(factor):
    network, training = new()
    before = weights(network)
    assert not training.step(torch.tensor(factor))
    network(torch.ones(1, 3)).sum().backward()
    network[0].bias.grad[1] = factor
    assert not training.step(torch.tensor(1.0))
    assert all(map(torch.equal, weights(network), before)) and training.losses == []


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """What `time.perf_counter` reads: its one item."""
    reading = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: reading[0])
    return reading


def test_an_epoch_is_logged_with_the_mean_loss_of_its_steps_and_may_be_the_best(clock):
    _, training = new()
    clock[0] = 107.5
    assert training.end_epoch({"miou": 0.3, "val_loss": 0.5}, 4)
    training.losses += [1.0, 2.0, 3.0, 6.0]
    training.rates = [0.25, 0.5]
    clock[0] = 116.0
    assert not training.end_epoch({"miou": 0.3, "val_loss": 0.6}, 4)
    training.losses += [0.5, 0.5, 0.5, 2.5]
    clock[0] = 125.5
    assert training.end_epoch({"miou": 0.4, "val_loss": 0.7}, 4)
    names = ["epoch", "lr", "backbone_lr", "seconds", "loss", "miou", "val_loss"]
    assert [list(row) for row in training.log] == [names] * 3
    assert [list(row.values()) for row in training.log] == [
        [0, None, None, 7.5, None, 0.3, 0.5],
        [1, 0.25, 0.5, 8.5, 3.0, 0.3, 0.6],
        [2, 0.25, 0.5, 9.5, 1.0, 0.4, 0.7],
    ]


def test_seconds_are_those_of_all_runs_together(clock):
    _, training = new()
    clock[0] = 107.0
    training.end_epoch({"miou": 0.3}, 4)
    clock[0] = 110.0
    state, (_, resumed) = training.state_dict(), new()
    clock[0] = 9000.0  # another machine, another clock
    resumed.load_state_dict(state)
    assert resumed.seconds == training.log[0]["seconds"] + 3.0 == 10.0
    clock[0] = 9004.0
    resumed.end_epoch({"miou": 0.2}, 4)
    assert [row["seconds"] for row in resumed.log] == [7.0, 7.0] and resumed.seconds == 14.0


def test_a_gradient_that_overflows_float16_is_left_to_the_scaler():
    network, training = new(fp16=True)
    before, scale = weights(network), training.scaler.get_scale()
    network(torch.ones(1, 3)).sum().backward()
    network[0].bias.grad[1] = math.inf
    step(network, training, factor=math.inf)
    assert all(map(torch.equal, weights(network), before))
    assert training.scaler.get_scale() == scale / 2 and training.schedule.last_epoch == 0
    step(network, training)
    assert not torch.equal(network[0].weight, before[0]) and training.schedule.last_epoch == 1


def test_the_average_follows_the_weights_and_is_what_counts():
    network, training = new(ema=0.75)
    assert all(map(torch.equal, weights(training.scored), weights(network)))
    expected = None
    for _ in range(4):
        step(network, training)
        weight = network[0].weight.detach().clone()
        expected = weight if expected is None else 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(training.scored[0].weight.detach(), expected)
    assert not torch.allclose(training.scored[0].weight, network[0].weight)
    network, training = new()
    assert training.scored is network


@pytest.mark.parametrize("how", [{"ema": 0.5, "fp16": True}, {"name": "sgd"}])
def test_a_training_goes_on_from_its_saved_state_as_if_never_interrupted(how, tmp_path):
    network, training = new(**how)
    for _ in range(7):
        step(network, training)
    state = {"training": training.state_dict(), "weights": network.state_dict()}
    save_checkpoint(tmp_path / "last.pt", "segmenter", **state)
    seed = torch.get_rng_state()
    for _ in range(5):
        step(network, training)

    content = load_checkpoint(tmp_path / "last.pt", "segmenter")  # plain values, or this refuses
    other, resumed = new(**how)
    other.load_state_dict(content["weights"])
    resumed.load_state_dict(content["training"])
    assert resumed.log == training.log[:7] and resumed.losses == training.losses[:7]
    torch.set_rng_state(seed)
    for _ in range(5):
        step(other, resumed)
    assert resumed.log == training.log and resumed.losses == training.losses
    assert all(map(torch.equal, weights(other), weights(network)))
    assert all(map(torch.equal, weights(resumed.scored), weights(training.scored)))
    assert resumed.schedule.get_last_lr() == training.schedule.get_last_lr()
    assert resumed.scaler.state_dict() == training.scaler.state_dict()
