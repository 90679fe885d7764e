"""The state of a training: saved as plain values, taken up again as if nothing had come between."""

import pytest
import torch
from torch.amp import GradScaler

from models import RunError
from models.checkpoint import load_checkpoint, save_checkpoint
from models.schedule import warm_up_and_cosine
from models.training import Training, check_settings

SETTINGS = {"--lr": 0.01, "--pixels": None, "--amp": "off", "images": 4}


def new(enabled=True) -> tuple[torch.nn.Module, Training]:
    """A small network and its training, from one seed."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    scaler = GradScaler("cpu", init_scale=8.0, growth_interval=3, enabled=enabled)
    return network, Training(dict(SETTINGS), optimizer, warm_up_and_cosine(optimizer, 20), scaler)


def step(network, training) -> None:
    """One step on random data; the log takes a row."""
    training.optimizer.zero_grad()
    loss = network(torch.randn(5, 3)).square().sum()
    training.scaler.scale(loss).backward()
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.schedule.step()
    training.log.append({"epoch": len(training.log), "loss": loss.item()})


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
    assert resumed.log == training.log[:7]
    assert resumed.schedule.last_epoch == 7
    assert resumed.scaler.get_scale() == (8.0 * 2**2 if scaled else 1.0), "doubled after 3 good steps, twice"
    for _ in range(5):
        step(other, resumed)
    assert resumed.log == training.log and len(resumed.log) == 12
    assert all(map(torch.equal, other.parameters(), network.parameters()))
    assert resumed.schedule.get_last_lr() == training.schedule.get_last_lr()
    assert resumed.scaler.state_dict() == training.scaler.state_dict()


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
        ({**SETTINGS, "--pixels": 512}, "last.pt was trained with --pixels 512, not None; keep to that"),
        ({**SETTINGS, "--amp": "bf16", "images": 5}, "last.pt was trained with --amp bf16, not off; keep to that"),
        ({**SETTINGS, "images": 5}, "last.pt was trained with images 5, not 4; keep to that"),
        ({}, "last.pt does not say --lr, which an earlier version did not have; start over"),
    ],
)
def test_the_first_setting_that_differs_is_named(saved, message, tmp_path):
    with pytest.raises(RunError) as caught:
        check_settings(saved, SETTINGS, tmp_path / "last.pt")
    assert str(caught.value) == f"--resume: {tmp_path}/{message}"
