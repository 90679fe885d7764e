"""What ends a run before its end: Ctrl-C and SIGTERM, once and twice, and a loss or a gradient that is not finite."""

import math
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from data.voc import read_ids
from losses import loss
from losses.score import ConfusionMatrix
from models.checkpoint import load_segmenter
from models.interruption import Interrupted, Stop
from models.schedule import warm_up_and_decay
from models.training import Training
from tests import street
from tests.street import Walk, contents, differences, losses, walk

fitted, one_thread = street.fitted, street.one_thread

TRAIN = ("train_seg.py", "--data", "shapes", "--run", "run", "--epochs", 2, "--batch-size", 2, "--val-limit", 2)
TRAIN += ("--save-every", 1)


@pytest.fixture
def place(fitted, tmp_path, monkeypatch) -> Path:
    """A copy of the folder after steps 1 and 2, from where the scripts run."""
    monkeypatch.chdir(shutil.copytree(fitted, tmp_path / "place", symlinks=True))
    return Path.cwd()


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory) -> Path:
    """A folder after a training that nothing has stopped; not to be changed."""
    place = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("whole") / "place", symlinks=True))
    done = walk(*TRAIN, "--workers", 0, cwd=place)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def as_in_a_terminal():
    """Python's own way with Ctrl-C, which a shell's background ignores, and the system's with SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fails(number: int, frame) -> None:
    """Handles a signal."""
    raise Interrupted(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_is_noted_and_a_second_one_stops_at_once(number, as_in_a_terminal, capsys):
    signal.signal(signal.SIGTERM, fails)
    before = signal.getsignal(number)
    with Stop() as stop:
        assert not stop.asked()
        signal.raise_signal(number)
        assert stop.asked() and stop.number == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == "\nstopping as soon as all is saved; once more stops at once\n"
    ending = stop.now("nothing is lost")
    assert isinstance(ending, Interrupted) and (ending.number, str(ending)) == (number, "nothing is lost")


def test_the_handlers_are_back_afterwards_even_after_an_error(as_in_a_terminal):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), Stop():
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_was_ignored_stays_ignored(as_in_a_terminal):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert not stop.asked()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_beside_the_main_thread_it_leaves_the_signals_alone(as_in_a_terminal):
    def enter() -> bool:
        with Stop() as stop:
            return stop.asked() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler

    with ThreadPoolExecutor(1) as thread:
        assert not thread.submit(enter).result()


@pytest.mark.parametrize(
    "number, code, name, workers", [(signal.SIGINT, 130, "Ctrl-C", 2), (signal.SIGTERM, 143, "SIGTERM", 0)]
)
def test_a_signal_ends_the_training_with_one_line_and_a_resumed_one_as_if_nothing_had_been(
    number, code, name, workers, place, whole
):
    last = place / "run" / "3_seg" / "last.pt"
    flags = (*TRAIN, "--workers", workers)
    with Walk(*flags, cwd=place) as training:
        training.wait_for(last.exists)
        begun = last.stat().st_mtime_ns
        training.wait_for(lambda: last.stat().st_mtime_ns != begun)
        training.send(number)
        done = training.end()
    steps = len(torch.load(last, weights_only=True)["training"]["losses"])
    assert done.returncode == code and 0 < steps < 18
    assert done.stderr == (
        "\nstopping as soon as all is saved; once more stops at once\n"
        f"\ntrain_seg: stopped by {name}; {steps} steps are in run/3_seg/last.pt; go on with the same command and "
        "--resume\n"
    )
    assert not (last.parent / "config.json").exists()
    resumed = walk(*flags, "--resume", cwd=place)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(rf"\n  start +run/3_seg/last.pt, after {steps} steps\n", resumed.stdout)
    assert differences(*(contents(folder / "run" / "3_seg") for folder in (place, whole))) == []


def test_a_signal_before_the_first_result_says_that_there_is_none(place, in_process, one_thread, as_in_a_terminal):
    update = ConfusionMatrix.update
    with mock.patch.object(ConfusionMatrix, "update", autospec=True) as spy:
        spy.side_effect = lambda *arguments: (update(*arguments), signal.raise_signal(signal.SIGINT))
        done = in_process(*TRAIN, "--workers", 0, "--val-limit", 1)
    assert done.returncode == 130
    assert done.stderr.endswith("\ntrain_seg: stopped by Ctrl-C; the training had not begun\n")
    assert contents(place / "run" / "3_seg") == {}


def not_finite_at(*steps: int):
    """The loss becomes nan at these steps."""
    calls = iter(range(1, 100))
    nan = torch.tensor(math.nan)
    real = loss.divisor
    return mock.patch("losses.batch.divisor", side_effect=lambda *of: nan if next(calls) in steps else real(*of))


def ids_of(step: int, images: int) -> str:
    """The images of a step of the first epoch, in words."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1)).tolist()
    return ", ".join(read_ids(Path("shapes"), "train")[index] for index in order[2 * step - 2 : 2 * step])


def test_a_loss_that_is_not_finite_ends_the_training_or_is_left_out(place, in_process, one_thread):
    flags = (*TRAIN, "--workers", 0, "--limit", 8, "--epochs", 1)
    with not_finite_at(3):
        done = in_process(*flags)
    what = f"step 3: the loss or a gradient is not finite, at images {ids_of(3, 8)}; "
    assert done.returncode == 2 and done.stderr == (
        f"train_seg: {what}run/3_seg/last.pt is still good: start over with a smaller --lr, or go on with --resume and "
        "--skip-nonfinite 1 or more\n"
    )
    with not_finite_at(1, 2):  # steps 3 and 4
        done = in_process(*flags, "--resume", "--skip-nonfinite", 1)
    assert done.returncode == 2 and f"step 4: the loss or a gradient is not finite, at images {ids_of(4, 8)}; " in (
        done.stderr
    )
    assert "--skip-nonfinite 2 or more" in done.stderr and f"\n  {what}left out, 1 of at most 1\n" in done.stdout
    resumed = in_process(*flags, "--resume", "--skip-nonfinite", 1)
    assert resumed.returncode == 0 and "after 3 steps" in resumed.stdout, resumed.stderr
    assert [math.isnan(value) for value in losses(place / "run")] == [False, False, True, False]
    weights = load_segmenter(place / "run" / "3_seg" / "last.pt")[0].state_dict().values()
    assert all(value.isfinite().all() for value in weights)


class Root(nn.Module):
    """Its loss is finite at any weight, but the gradient is not where the weight is 0."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight, 1.0]))

    def forward(self, factor: float) -> torch.Tensor:
        return factor * self.weight.abs().sqrt().sum()


def trained(weight: float, factor: float, scaled: bool = False) -> tuple[Root, Training, float]:
    """A network after one step, its training and the loss of the step."""
    network = Root(weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    scaler = GradScaler("cpu", enabled=scaled)
    training = Training({}, network, optimizer, warm_up_and_decay(optimizer, 9), scaler)
    return network, training, training.step(network, [(factor / 2,), (factor / 2,)])


@pytest.mark.parametrize(
    "weight, factor", [(0, 1), (1, math.nan), (1, math.inf)], ids=["gradient", "loss", "infinite loss"]
)
def test_a_step_that_is_not_finite_moves_nothing(weight, factor):
    network, training, value = trained(weight, factor)
    assert math.isnan(value) and training.skipped() == len(training.losses) == 1
    assert network.weight.tolist() == [weight, 1]
    assert training.schedule.last_epoch == 0 and not training.optimizer.state


def test_a_step_that_is_finite_moves_the_weights():
    network, training, value = trained(4, 1)
    assert training.losses == [value] == [3] and training.skipped() == 0
    assert network.weight[0] < 4 and training.schedule.last_epoch == 1


def test_a_gradient_that_overflows_in_float16_is_left_to_the_scaler():
    network, training, value = trained(0, 1, scaled=True)
    assert training.losses == [value] == [1] and training.skipped() == 0
    assert network.weight.tolist() == [0, 1] and training.schedule.last_epoch == 0
    assert training.scaler.get_scale() == 2**15
