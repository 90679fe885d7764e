"""The state of a training: steps, the moving average, and going on as if never interrupted."""

import math
import time

import pytest
import torch
from torch import nn

from models.checkpoint import load_checkpoint, save_checkpoint
from models.run.schedule import Optimization
from models.run.training import Training


def new(ema=0.0, fp16=False, **how) -> tuple[nn.Module, Training]:
    """A small network of two parts and its training of 5 epochs of 4 steps, from one seed."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    rates = {network[1]: 0.01, network[0]: 0.001}
    return network, Training(network, rates, 5, 4, Optimization(**how), ema, fp16)


def step(network, training, factor=1.0) -> None:
    """One step on random data; the log takes a row."""
    loss = network(torch.randn(5, 3)).square().mean()
    training.scaler.scale(loss * factor).backward()
    training.scaler.unscale_(training.optimizer)
    training.step(loss.item())
    assert all(parameter.grad is None for parameter in network.parameters())
    training.log.append({"epoch": len(training.log), "loss": loss.item()})


def weights(network) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", "AdamW"), ("sgd", "SGD")])
def test_each_part_learns_at_its_rate(optimizer, kind):
    network, training = new(optimizer=optimizer, weight_decay=0.3, decay="constant")
    assert type(training.optimizer).__name__ == kind
    assert [group["weight_decay"] for group in training.optimizer.param_groups] == [0.3, 0.3]
    step(network, training)
    step(network, training)
    assert training.schedule.get_last_lr() == [0.01, 0.001]  # warm-up is over
    assert len(training.parameters) == 4 and len(training.losses) == 2


def test_frozen_parameters_are_left_alone():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network[0].weight.requires_grad_(False)
    training = Training(network, {network: 0.1}, 5, 4, Optimization(weight_decay=0.5))
    before = network[0].weight.clone()
    step(network, training)
    assert torch.equal(network[0].weight, before) and len(training.parameters) == 3


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_gradients_that_are_not_finite_are_noticed(factor):
    network, training = new()
    network(torch.ones(1, 3)).sum().backward()
    before = [parameter.grad.clone() for parameter in network.parameters()]
    assert training.gradients_are_finite()
    assert all(torch.equal(p.grad, old) for p, old in zip(network.parameters(), before))
    network[0].bias.grad[1] = factor
    assert not training.gradients_are_finite()


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """What `time.perf_counter` reads: its one item."""
    reading = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: reading[0])
    return reading


def test_an_epoch_is_logged_with_the_mean_loss_of_its_steps_and_may_be_the_best(clock):
    _, training = new()
    clock[0] = 107.5
    assert training.end_epoch({"miou": 0.3, "val_loss": 0.5})
    training.losses += [1.0, 2.0, 3.0, 6.0]
    training.rates = [0.25, 0.5]
    clock[0] = 116.0
    assert not training.end_epoch({"miou": 0.3, "val_loss": 0.6})
    training.losses += [0.5, 0.5, 0.5, 2.5]
    clock[0] = 125.5
    assert training.end_epoch({"miou": 0.4, "val_loss": 0.7})
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
    training.end_epoch({"miou": 0.3})
    clock[0] = 110.0
    state, (_, resumed) = training.state_dict(), new()
    clock[0] = 9000.0  # another machine, another clock
    resumed.load_state_dict(state)
    assert resumed.seconds == training.log[0]["seconds"] + 3.0 == 10.0
    clock[0] = 9004.0
    resumed.end_epoch({"miou": 0.2})
    assert [row["seconds"] for row in resumed.log] == [7.0, 7.0] and resumed.seconds == 14.0


def test_a_gradient_that_overflows_float16_is_left_to_the_scaler():
    network, training = new(fp16=True)
    before, scale = weights(network), training.scaler.get_scale()
    network(torch.ones(1, 3)).sum().backward()
    network[0].bias.grad[1] = math.inf
    assert training.gradients_are_finite()
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


@pytest.mark.parametrize("how", [{"ema": 0.5, "fp16": True}, {"optimizer": "sgd"}])
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
