"""How a script ends, and which device it takes."""

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError
from torch.utils.data import DataLoader, Dataset

from data import UserError
from models.run import distributed, runtime
from tests.conftest import HOME

COMPILE = "--compile: PyTorch cannot compile this network (backend='print' raised:)"


def ending(main: Callable[[], None], capsys) -> tuple[int, str]:
    """Exit code and what is printed on standard error."""
    argv = mock.patch.object(sys, "argv", ["/somewhere/train_cls.py", "--run", "x"])
    with argv, pytest.raises(SystemExit) as stop:
        runtime.run_script(main)
    out, error = capsys.readouterr()
    assert out == ""
    return stop.value.code, error


SECOND = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": "1"}  # of two processes
ENDS = [  # what was raised, the exit code, how the line begins
    (UserError("runs/a: not a run"), 2, "runs/a: not a run\n"),
    (PermissionError(13, "Permission denied", "runs/a"), 2, "runs/a: Permission denied\n"),
    (OSError(28, "No space left on device"), 2, "No space left on device\n"),
    (OSError("Caught OSError\nTraceback\nOSError: [Errno 24] Too many"), 2, "OSError: [Errno 24]"),
    (KeyboardInterrupt(), 130, "stopped by Ctrl-C\n"),
    (dist.DistNetworkError("gone\nmore"), 1, "lost another process of this run (gone)\n"),
    (BackendCompilerFailed(print, TypeError("a"), None), 2, f"{COMPILE}; leave it out\n"),
    (InductorError(TypeError("a"), None), 2, "--compile: PyTorch cannot compile this network"),
    (NotImplementedError("'aten::a' is not"), 2, "the device lacks an operation ('aten::a' is not"),
    (RuntimeError("unsupported autocast device_type"), 2, "--amp: not possible here (unsup"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory (DefaultCPUAll"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "out of memory (CUDA out of"),
    (MemoryError(), 2, "out of memory (no more is known); lower --size"),
    (RuntimeError("DataLoader timed out after 300 seconds"), 2, "a worker process was lost (DataL"),
]


@pytest.mark.parametrize("error, code, words", ENDS)
def test_a_script_ends_with_one_line_and_an_exit_code(error, code, words, capsys):
    for rank, environment in {"": {}, "rank 1: ": SECOND}.items():
        with mock.patch.dict(os.environ, environment):
            found, line = ending(mock.Mock(side_effect=error), capsys)
        assert found == code and line.startswith(f"train_cls: {rank}{words}"), line
        assert line.count("\n") == 1


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(RuntimeError, match="ours"):
        runtime.run_script(mock.Mock(side_effect=RuntimeError("ours")))


class Bad(Dataset):
    def __getitem__(self, index):
        raise UserError("a.png: cannot be read")


def test_a_users_mistake_in_a_worker_process_is_the_same_line(capsys):
    code, error = ending(lambda: list(DataLoader(Bad(), sampler=[0], num_workers=1)), capsys)
    assert (code, error) == (2, "train_cls: a.png: cannot be read\n")


def test_a_console_may_lack_letters(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    runtime.run_script(lambda: print("a 猫", flush=True))
    assert console.buffer.getvalue().rstrip() == b"a ?"


def test_a_notebook_goes_on_after_a_quiet_script(capsys, monkeypatch):
    handler, limit, within = signal.getsignal(signal.SIGTERM), Image.MAX_IMAGE_PIXELS, []

    def main() -> None:
        distributed.fall_silent()
        runtime.print_header(2, data="voc")
        within.append(Image.MAX_IMAGE_PIXELS)

    for most in (2_000_000, None):  # pixels that memory has room for; where it is not known
        monkeypatch.setattr(runtime, "most_pixels", lambda most=most: most)
        runtime.run_script(main)
    assert within == [1_000_000, limit] and limit == Image.MAX_IMAGE_PIXELS
    print("the next cell")
    assert capsys.readouterr().out == "the next cell\n"
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("cuda, mps, expected", [(0, 0, "cpu"), (0, 1, "mps"), (1, 1, "cuda")])
def test_device_auto_prefers_cuda_then_mps_and_must_be_there(cuda, mps, expected, monkeypatch):
    for name in ("nonsense", "", "cuda:x", "xla"):
        with pytest.raises(UserError, match=f"^--device {name}: not available here; use auto or"):
            runtime.choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", mock.Mock(side_effect=RuntimeError))
    with pytest.raises(UserError, match=f"^--device {expected}: not available"):
        runtime.choose_device("auto")


WITH_WORKERS = """
from models.run import runtime
def main():
    loader = runtime.image_loader(list(range(8)), range(8), 2)
    items = iter(loader)
    held.extend([items, next(items)])
    print("ready", flush=True)
    input()
held = []
runtime.run_script(main)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no groups of processes here")
@pytest.mark.parametrize("is_stopped", [False, True])
def test_workers_end_with_the_script_by_themselves_or_by_a_schedulers_sigterm(is_stopped):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", WITH_WORKERS]
    with subprocess.Popen(command, cwd=HOME, start_new_session=True, **pipes) as script:
        assert script.stdout.readline() == b"ready\n"
        if is_stopped:
            os.killpg(script.pid, signal.SIGTERM)
        error = script.communicate(b"\n", timeout=60)[1]
    expected = (143, b"-c: stopped by SIGTERM\n") if is_stopped else (0, b"")
    assert (script.returncode, error) == expected
    with pytest.raises(ProcessLookupError):
        os.killpg(script.pid, 0)


@pytest.mark.skipif(not runtime.SHARED.is_dir(), reason="workers share no folder here")
def test_workers_share_no_more_memory_than_there_is(capsys, monkeypatch):
    free = mock.Mock(free=2 * runtime.SHARED_PER_WORKER - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert runtime.image_loader(Bad(), range(9), 3).num_workers == 1
    assert "note: 1 of 3 workers, as /dev/shm is nearly full" in capsys.readouterr().out
