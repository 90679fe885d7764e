"""The learning rate: its warm-up, its decays, and the same rates after a resume."""

import io

import pytest
import torch

from models.run.schedule import warm_up_and_decay

PEAK = 0.02


def start(steps, decay="cosine"):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    return optimizer, warm_up_and_decay(optimizer, steps, decay)


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


def test_the_other_decays():
    poly, none = (go(*start(1000, decay), 1000) for decay in ("poly", "none"))
    assert poly[:100] == none[:100] == go(*start(1000), 100), "all warm up alike"
    assert poly[100 + 450] == pytest.approx(PEAK * 0.5**0.9)
    assert poly[-1] == pytest.approx(PEAK * (1 / 900) ** 0.9)
    assert none[100:] == [PEAK] * 900


def test_steps_beyond_the_last_stay_at_the_end():
    optimizer, schedule = start(10)
    go(optimizer, schedule, 10)
    assert go(optimizer, schedule, 5) == pytest.approx([0] * 5, abs=1e-12)


@pytest.mark.parametrize("done", [0, 3, 11, 19])
def test_a_resumed_schedule_gives_the_same_rates(done):
    expected = go(*start(20), 20)
    optimizer, schedule = start(20)
    go(optimizer, schedule, done)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer, schedule = start(20)
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    assert go(optimizer, schedule, 20 - done) == expected[done:]
