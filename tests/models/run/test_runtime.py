"""How a script ends, and which device it takes."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils.data import DataLoader, Dataset

from data import UserError
from models.run import runtime

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
COMPILE = "--compile: PyTorch cannot compile this network (backend='print' raised:)"


@pytest.fixture(autouse=True)
def system(monkeypatch):
    """A script's name."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_cls.py", "--run", "x"])


def two_processes(monkeypatch) -> None:
    """This one is the second of two."""
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)


def ending(main: Callable[[], None], capsys) -> tuple[int, str]:
    """Exit code and what is printed on standard error."""
    with pytest.raises(SystemExit) as stop:
        runtime.run_script(main)
    out, error = capsys.readouterr()
    assert out == ""
    return stop.value.code, error


def raising(error: BaseException) -> Callable[[], None]:
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UserError("runs/a: not a run"), 2, "runs/a: not a run"),
        (PermissionError(13, "Permission denied", "runs/a"), 2, "runs/a: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (OSError("refused"), 2, "refused"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (dist.DistNetworkError("gone\nmore"), 1, "lost another process of this run (gone)"),
        (BackendCompilerFailed(print, TypeError("a"), None), 2, f"{COMPILE}; leave it out"),
    ],
)
def test_a_script_ends_with_one_line_and_an_exit_code(error, code, line, capsys, monkeypatch):
    assert ending(raising(error), capsys) == (code, f"train_cls: {line}\n")
    two_processes(monkeypatch)
    assert ending(raising(error), capsys) == (code, f"train_cls: rank 1: {line}\n")


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(RuntimeError, match="ours"):
        runtime.run_script(raising(RuntimeError("ours")))


@needs_fork
def test_a_ctrl_c_in_the_callback_of_a_fork_is_not_lost(capsys):
    presses = [signal.SIGINT]
    os.register_at_fork(before=lambda: presses and signal.raise_signal(presses.pop()))

    def main():
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(30)

    assert ending(main, capsys) == (130, "train_cls: stopped by Ctrl-C\n")
    assert not presses and sys.unraisablehook is not runtime._raise_again


class Bad(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("a.png: cannot be read")


def test_a_users_mistake_in_a_worker_process_is_the_same_line(capsys):
    code, error = ending(lambda: list(DataLoader(Bad(), num_workers=1)), capsys)
    assert (code, error) == (2, "train_cls: a.png: cannot be read\n")


def test_a_notebook_goes_on_after_a_quiet_script(capsys):
    handler = signal.getsignal(signal.SIGTERM)
    runtime.run_script(lambda: runtime.print_header("[2/5] train_cls", True, data="voc"))
    print("the next cell")
    assert capsys.readouterr().out == "the next cell\n"
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(
    "cuda, mps, expected",
    [(False, False, "cpu"), (True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")],
)
def test_device_auto_prefers_cuda_then_mps(cuda, mps, expected, monkeypatch):
    def absent(*size, device):
        raise RuntimeError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", absent)
    with pytest.raises(UserError, match=f"^--device {expected}: not available"):
        runtime.choose_device("auto")


def test_a_device_that_is_not_here_and_one_gpu_for_several_processes_are_refused(monkeypatch):
    for name in ("nonsense", "", "cuda:x", "xla"):
        with pytest.raises(UserError, match=f"^--device {name}: not available here; use auto or"):
            runtime.choose_device(name)
    two_processes(monkeypatch)
    with pytest.raises(UserError, match="each process takes a GPU of its own; use cuda$"):
        runtime.choose_device("cuda:0")


def survive(signals) -> None:
    """A worker that counts the SIGTERMs that it outlives."""
    runtime.ignore_first_sigterm(0)
    while True:
        signal.raise_signal(signal.SIGTERM)
        signals.value += 1


@needs_fork
def test_a_worker_outlives_the_first_sigterm_and_not_the_second():
    """A second one comes from its main process, which would else wait for it for ever."""
    context = multiprocessing.get_context("fork")
    outlived = context.Value("i", 0)
    worker = context.Process(target=survive, args=(outlived,))
    worker.start()
    worker.join()
    assert (outlived.value, worker.exitcode) == (1, -signal.SIGTERM)
