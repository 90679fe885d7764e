"""The state of a training: saved as plain values, taken up again as if nothing had come between."""

import math

import pytest
import torch
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import RunError
from models.checkpoint import load_checkpoint, save_checkpoint
from models.run_folder import check_settings
from models.schedule import warm_up_and_decay
from models.training import Training

SETTINGS = {"--lr": 0.01, "--pixels": None, "--amp": "off", "images": 4}


def new(enabled=True) -> tuple[torch.nn.Module, Training]:
    """A small network and its training, from one seed."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    scaler = GradScaler("cpu", init_scale=8.0, growth_interval=3, enabled=enabled)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    return network, Training(dict(SETTINGS), network, optimizer, warm_up_and_decay(optimizer, 20), scaler, average)


class Loss(torch.nn.Module):
    """What rows (n, 3) add to the loss of a batch of 7, as `Training.step` wants it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, rows, factor=1.0):
        return self.network(rows).square().sum() * factor / 7


def step(network, training) -> None:
    """One step on random data; the log takes a row."""
    loss = training.step(Loss(network), [(torch.randn(5, 3),)])
    training.log.append({"epoch": len(training.log), "loss": loss})


def test_a_step_in_parts_is_the_step_of_the_whole():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    (whole, training), (parts, other) = new(), new()
    loss = training.step(Loss(whole), [(rows,)])
    assert other.step(Loss(parts), [(rows[:4],), (rows[4:5],), (rows[5:],)]) == pytest.approx(loss, rel=1e-6)
    assert loss == pytest.approx(new()[0](rows).square().sum().item() / 7)
    for found, expected, before in zip(parts.parameters(), whole.parameters(), new()[0].parameters()):
        torch.testing.assert_close(found, expected)
        assert not torch.equal(found, before)
    assert training.losses == [loss] and training.schedule.last_epoch == 1


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_all_but_the_list_of_losses_as_it_was(factor):
    network, training = new(enabled=False)
    training.step(Loss(network), [(torch.randn(5, 3),)])
    before = [parameter.clone() for parameter in network.parameters()]
    assert math.isnan(training.step(Loss(network), [(torch.randn(5, 3),), (torch.randn(2, 3), factor)]))
    assert all(map(torch.equal, network.parameters(), before))
    assert training.skipped() == 1 and len(training.losses) == 2 and training.schedule.last_epoch == 1


def test_a_gradient_that_is_not_finite_counts_as_much_as_the_loss():
    network, training = new(enabled=False)
    before = [parameter.clone() for parameter in network.parameters()]
    network.weight.register_hook(lambda gradient: gradient * math.inf)
    assert math.isnan(training.step(Loss(network), [(torch.ones(1, 3),)]))
    assert all(map(torch.equal, network.parameters(), before)) and training.skipped() == 1


def test_a_gradient_that_overflows_float16_is_the_scalers_to_see_to():
    network, training = new(enabled=True)
    before = [parameter.clone() for parameter in network.parameters()]
    overflow = network.weight.register_hook(lambda gradient: gradient * math.inf)
    assert math.isfinite(training.step(Loss(network), [(torch.ones(1, 3),)]))
    assert all(map(torch.equal, network.parameters(), before))
    assert training.scaler.get_scale() == 4.0 and training.skipped() == 0 and training.schedule.last_epoch == 0
    overflow.remove()
    training.step(Loss(network), [(torch.ones(1, 3),)])
    assert not torch.equal(network.weight, before[0]) and training.schedule.last_epoch == 1


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "unscaled"])
def test_a_training_goes_on_from_its_saved_state_as_if_uninterrupted(scaled, tmp_path):
    network, training = new(scaled)
    for _ in range(7):
        step(network, training)
    save_checkpoint(tmp_path / "last.pt", "segmenter", training=training.state(), weights=network.state_dict())
    for _ in range(5):
        step(network, training)

    content = load_checkpoint(tmp_path / "last.pt", "segmenter")  # plain values only, or this refuses
    other, resumed = new(scaled)
    torch.manual_seed(1)
    other.load_state_dict(content["weights"])
    resumed.go_on_from(content["training"])
    assert resumed.log == training.log[:7] and resumed.losses == training.losses[:7]
    assert resumed.schedule.last_epoch == 7
    assert resumed.scaler.get_scale() == (8.0 * 2**2 if scaled else 1.0), "doubled after 3 good steps, twice"
    for _ in range(5):
        step(other, resumed)
    assert resumed.log == training.log and len(resumed.log) == 12
    assert all(map(torch.equal, other.parameters(), network.parameters()))
    assert all(map(torch.equal, resumed.best().parameters(), training.best().parameters()))
    assert resumed.schedule.get_last_lr() == training.schedule.get_last_lr()
    assert resumed.scaler.state_dict() == training.scaler.state_dict()


def test_the_average_follows_the_weights_and_is_what_counts():
    network, training = new(enabled=False)
    expected = None
    for _ in range(4):
        step(network, training)
        weight = network.weight.detach().clone()
        expected = weight if expected is None else 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(training.best().weight, expected)
    assert not torch.allclose(training.best().weight, network.weight)
    training.average = None
    assert training.best() is network


def test_each_part_of_the_state_is_needed():
    network, training = new()
    step(network, training)
    state = training.state()
    assert state["settings"] == SETTINGS
    for part in set(state) - {"settings"}:
        with pytest.raises(KeyError, match=part):
            new()[1].go_on_from({key: value for key, value in state.items() if key != part})


def test_the_same_settings_may_be_resumed(tmp_path):
    check_settings(dict(SETTINGS), dict(SETTINGS), tmp_path / "last.pt")
    check_settings({**SETTINGS, "--of-another-version": 1}, dict(SETTINGS), tmp_path / "last.pt")


@pytest.mark.parametrize(
    "saved, message",
    [
        ({**SETTINGS, "--pixels": 512}, "last.pt was made with --pixels 512, not None; keep to that"),
        ({**SETTINGS, "--amp": "bf16", "images": 5}, "last.pt was made with --amp bf16, not off; keep to that"),
        ({**SETTINGS, "images": 5}, "last.pt was made with images 5, not 4; keep to that"),
        ({}, "last.pt does not say --lr, which an earlier version did not have; start over"),
    ],
)
def test_the_first_setting_that_differs_is_named(saved, message, tmp_path):
    with pytest.raises(RunError) as caught:
        check_settings(saved, SETTINGS, tmp_path / "last.pt")
    assert str(caught.value) == f"--resume: {tmp_path}/{message}"
