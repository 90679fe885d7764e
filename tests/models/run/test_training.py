"""Rates of a training by hand, its steps and its average; tests/scripts resume it."""

import math
import time

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from models.run.training import DECAYS, OPTIMIZERS, Training, build_optimizer, build_schedule

PEAK = 0.02


def rates(steps: int, epochs: int, steps_per_epoch: int = 1, decay="cosine", **how) -> list[float]:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule, found = build_schedule(optimizer, decay, epochs, steps_per_epoch, **how), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps", [1, 2, 15])
def test_rates_of_a_short_training_rise_to_the_peak_then_fall_and_are_positive(steps):
    found = rates(steps, steps)
    top = found.index(max(found))
    assert found[top] == pytest.approx(PEAK) and top <= 1
    assert found[top:] == sorted(found[top:], reverse=True)
    assert min(found) > 0 and min(rates(steps + 5, steps)) >= 0, "also beyond the last"


def test_the_decays_milestones_gamma_and_warm_up_by_hand():
    falls = {"gamma": 0.1, "milestones": (60, 80)}
    by = {decay: rates(1000, 100, 10, decay=decay, **falls) for decay in DECAYS}
    for found in by.values():
        assert found[:100] == pytest.approx([PEAK * (step + 1) / 100 for step in range(100)])
    assert by["cosine"][100 + 450] == pytest.approx(PEAK / 2)
    assert by["poly"][100 + 450] == pytest.approx(PEAK * 0.5**0.9)
    assert by["constant"][100:] == [PEAK] * 900
    thirds = [PEAK] * 500 + [PEAK / 10] * 200 + [PEAK / 100] * 200
    assert by["step"][100:] == pytest.approx(thirds)
    assert by["exponential"][500] == pytest.approx(PEAK * 0.1**40)
    found = rates(20, 4, 5, warmup=0.5, decay="exponential", gamma=0.8)
    assert found[:10] == pytest.approx([PEAK * (step + 1) / 10 for step in range(10)])
    assert found[10:] == pytest.approx([PEAK * 0.8 ** (step / 5) for step in range(10)])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_its_own_options(name):
    optimizer = build_optimizer(name, [nn.Parameter(torch.ones(2))], 0.01, 0.25, 0.7, True)
    expected = {"lr": 0.01, "weight_decay": 0.25}
    expected |= {"momentum": 0.7, "nesterov": True} if name == "sgd" else {}
    assert type(optimizer).__name__.lower() == name
    assert expected.items() <= optimizer.param_groups[0].items()


def new(ema=0.0, fp16=False) -> tuple[nn.Module, Training]:
    """A small network and its training of 5 epochs of 4 steps."""
    network = nn.Linear(3, 2)
    optimizer = build_optimizer("adamw", network.parameters(), 0.01, 0.01)
    schedule = build_schedule(optimizer, "cosine", 5, 4)
    return network, Training(network, optimizer, schedule, ema, fp16)


def step(network, training, factor=1.0) -> None:
    """One step on random data."""
    loss = network(torch.randn(5, 3)).square().mean()
    training.scaler.scale(loss * factor).backward()
    assert training.step(loss)
    assert all(parameter.grad is None for parameter in network.parameters())


def weights(network) -> torch.Tensor:
    return parameters_to_vector(network.parameters()).detach()


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_not_finite_changes_nothing(factor):
    network, training = new()
    before = weights(network)
    assert not training.step(torch.tensor(factor))
    network(torch.ones(1, 3)).sum().backward()
    network.bias.grad[1] = factor
    assert not training.step(torch.tensor(1.0))
    assert torch.equal(weights(network), before) and training.losses == []


def test_a_gradient_that_overflows_float16_is_left_to_the_scaler():
    network, training = new(fp16=True)
    before, scale = weights(network), training.scaler.get_scale()
    step(network, training, factor=math.inf)
    assert torch.equal(weights(network), before)
    assert training.scaler.get_scale() == scale / 2 and training.schedule.last_epoch == 0
    step(network, training)
    assert not torch.equal(weights(network), before) and training.schedule.last_epoch == 1


def test_the_average_follows_the_weights_and_is_what_counts():
    network, training = new(ema=0.75)
    expected = None
    for _ in range(4):
        step(network, training)
        found = weights(network)
        expected = found if expected is None else 0.75 * expected + 0.25 * found
    torch.testing.assert_close(weights(training.scored), expected)
    assert not torch.allclose(expected, found)


def test_a_resumed_epoch_takes_the_seconds_of_both_runs(monkeypatch):
    reading = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: reading[0])
    (_, training), (_, resumed) = new(), new()
    reading[0] = 110.0
    state = training.state_dict()
    reading[0] = 9000.0  # another machine, another clock
    resumed.load_state_dict(state)
    reading[0] = 9006.0
    assert resumed.end_epoch({"miou": 0.3}, 4) and not resumed.end_epoch({"miou": 0.3}, 4)
    assert [row["seconds"] for row in resumed.log] == [16.0, 0.0]
