"""The learning rate: its warm-up, its decays, and the same rates after a resume."""

import io

import pytest
import torch

from models.run.schedule import DECAYS, OPTIMIZERS, Optimization

PEAK = 0.02


def start(epochs, steps_per_epoch=1, **how):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    return optimizer, Optimization(**how).build_schedule(optimizer, epochs, steps_per_epoch)


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
    how = Optimization(name, weight_decay=0.25, momentum=0.7, nesterov=True)
    optimizer = how.build_optimizer([weight], lr=0.01)
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
