"""Devices, precision, what a script prints, and how it ends."""

import io
import os
import signal
import sys

import pytest
import torch
import torch.distributed as dist
from torch._inductor.exc import InductorError
from torch.utils.data import DataLoader

from data import DataError
from models import RunError
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.run import runtime
from models.segmenter import Segmenter


@pytest.fixture(autouse=True)
def system(monkeypatch):
    """A script's name; what a script changes about its process is put back."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_cls.py", "--run", "x"])
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ending(main, capsys) -> tuple[int, str]:
    """Exit code and what is printed on standard error."""
    with pytest.raises(SystemExit) as stop:
        runtime.run_script(main)
    out, error = capsys.readouterr()
    assert out == ""
    return stop.value.code, error


def raising(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RunError("runs/a: not a run"), 2, "runs/a: not a run"),
        (DataError("voc: no such list"), 2, "voc: no such list"),
        (PermissionError(13, "Permission denied", "runs/a"), 2, "runs/a: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (OSError("refused"), 2, "refused"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (KeyboardInterrupt("epoch 3 is kept"), 130, "stopped by Ctrl-C; epoch 3 is kept"),
        (runtime.Terminated("epoch 3 is kept"), 143, "stopped by SIGTERM; epoch 3 is kept"),
        (
            dist.DistNetworkError("peer is gone\nmore"),
            1,
            "lost another process of this run (peer is gone)",
        ),
    ],
)
def test_a_script_ends_with_one_line_and_an_exit_code(capsys, error, code, line):
    assert ending(raising(error), capsys) == (code, f"train_cls: {line}\n")


def test_sigterm_ends_a_script_with_143(capsys):
    def main():
        os.kill(os.getpid(), signal.SIGTERM)

    assert ending(main, capsys) == (143, "train_cls: stopped by SIGTERM\n")


class Bad(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError("a.png: cannot be read")


def test_a_users_mistake_in_a_worker_process_is_the_same_line(capsys):
    code, error = ending(lambda: list(DataLoader(Bad(), num_workers=1)), capsys)
    assert (code, error) == (2, "train_cls: a.png: cannot be read\n")


@pytest.mark.parametrize("error", [ValueError("ours"), RuntimeError("ours"), KeyError("ours")])
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised:
        runtime.run_script(raising(error))
    assert raised.value is error


def test_a_network_that_cannot_be_compiled_is_one_line(capsys):
    code, error = ending(raising(InductorError(TypeError("no order\n"), None)), capsys)
    words = "PyTorch cannot compile this network (TypeError: no order); leave it out"
    assert (code, error) == (2, f"train_cls: --compile: {words}\n")


def test_a_line_of_one_process_of_several_names_its_rank(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        runtime.end("no such list", 2)
    assert capsys.readouterr().err == "train_cls: rank 1: no such list\n"


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, "cpu"), (True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")],
)
def test_device_auto_prefers_cuda_then_mps(monkeypatch, cuda, mps, expected):
    asked, empty = [], torch.empty

    def note(*size, device):
        asked.append(device)
        return empty(*size)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", note)
    runtime.choose_device("auto")
    assert asked == [expected]


@pytest.mark.parametrize("name", ["nonsense", "", "cuda:99", "cuda:x", "xla", "meta"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(RunError, match=f"^--device {name}: not available here; use auto or cpu$"):
        runtime.choose_device(name)


def test_what_several_processes_cannot_do_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="each process takes a GPU of its own; use cuda$"):
        runtime.choose_device("cuda:0")
    with pytest.raises(RunError, match="start it with python, not with torchrun$"):
        runtime.choose_device("cpu", single=True)


@pytest.fixture
def segmenter() -> Segmenter:
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1])
    head = DenseClassifier(hypercolumn.channels, torch.zeros(64), torch.ones(64), 2, (4, 4))
    return Segmenter(hypercolumn, head, 32, 2, ["a", "b"], [[0, 0, 0], [255, 0, 0]])


def test_a_segmenter_is_prepared_with_its_precision(segmenter):
    for amp, dtype in (("off", None), ("bf16", torch.bfloat16)):
        runtime.prepare(segmenter, torch.device("cpu"), amp, False)
        assert segmenter.amp == dtype
    with pytest.raises(RunError, match="^--amp bf16: not available on meta; leave --amp out$"):
        runtime.prepare(segmenter, torch.device("meta"), "bf16", False)


def test_compiling_is_tried_first_and_a_failure_is_one_line(segmenter, monkeypatch):
    def broken(function, **options):
        raise RuntimeError("no C++ compiler. Set CXX\nand more lines")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        RunError, match=r"^--compile: no working compiler here \(no C\+\+ .*; leave"
    ):
        runtime.prepare(segmenter, torch.device("cpu"), "off", True)


def test_the_device_in_words(monkeypatch):
    assert runtime.describe(torch.device("cpu")) == "cpu, exact float32"
    monkeypatch.setenv("WORLD_SIZE", "4")
    words = "cuda, 4 processes, autocast to bf16, compiled"
    assert runtime.describe(torch.device("cuda:1"), "bf16", True) == words


def test_the_header_is_aligned_and_leaves_out_what_is_none(capsys):
    runtime.print_header("[2/5] train_cls", data="voc", recipe=None, backbone="vgg11")
    expected = "[2/5] train_cls\n  data      voc\n  backbone  vgg11\n"
    assert capsys.readouterr().out == expected


def test_a_quiet_script_prints_nothing_from_its_header_on(monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    runtime.print_header("[2/5] train_cls", quiet=True, data="voc")
    print("wrote all of it")
    assert printed.getvalue() == ""


def test_a_bar_passes_the_items_on_and_shows_nothing_off_a_terminal(capsys):
    assert list(runtime.bar(iter("abc"), total=3, unit="item")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
