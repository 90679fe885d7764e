"""Flags, devices, random state, progress and how a script ends."""

import argparse
import io
import sys
from pathlib import Path

import pytest
import torch

from data import DataError
from models import RunError, flags, runtime


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (flags.natural, "0", 0),
        (flags.natural, "12", 12),
        (flags.positive, "1", 1),
        (flags.rate, "1e-3", 1e-3),
        (flags.rate, "2", 2.0),
        (flags.fraction, "0", 0.0),
        (flags.factor, "0", 0.0),
        (flags.factor, "0.00", 0.0),
        (flags.factor, "2.5", 2.5),
        (flags.fraction, "0.999", 0.999),
    ],
)
def test_flags_that_are_numbers(kind, text, value):
    found = kind(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (flags.natural, ["-1", "1.0", "", "two", "1e3", " 1", "²", "1_000"]),
        (flags.positive, ["0", "-1", "0.5", "", "none"]),
        (flags.rate, ["0", "-1e-3", "nan", "inf", "1e999", "", "fast"]),
        (flags.fraction, ["1", "-0.1", "nan", "inf", "-inf", "", "half"]),
    ],
    ids=["natural", "positive", "positive_float", "fraction"],
)
def test_flags_that_are_no_such_number_are_refused(kind, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_parser_shows_the_docstring_and_the_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # argparse wraps its help to the terminal
    parser = flags.step_parser("Step 9: the title\n\n    an example, indented")
    flags.add_data_flags(parser, split="train_aug")
    with pytest.raises(SystemExit) as ending:
        parser.parse_args(["--help"])
    assert ending.value.code == 0
    text = capsys.readouterr().out
    for part in (
        "Step 9: the title\n\n    an example, indented\n",
        "(default: train_aug)",
        "(default: auto)",
        "--run DIR",
    ):
        assert part in text


def test_parser_gives_paths_and_checked_numbers(capsys):
    parser = flags.step_parser("")
    flags.add_data_flags(parser, split="val")
    args = parser.parse_args(["--run", "runs/a", "--data", "voc", "--limit", "3"])
    assert (args.run, args.data, args.split, args.limit) == (Path("runs/a"), Path("voc"), "val", 3)
    assert args.device == "auto" and args.workers == flags.default_workers()
    for wrong in (["--limit", "0"], ["--workers", "-1"], ["--limit", "x"]):
        with pytest.raises(SystemExit) as ending:
            parser.parse_args(["--run", "runs/a", *wrong])
        assert ending.value.code == 2
        assert wrong[0] in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args([])


@pytest.mark.parametrize(
    ("cores", "threads", "gpu", "workers"),
    [(2, 2, False, 0), (16, 8, False, 8), (4, 6, False, 0), (2, 1, True, 1), (16, 16, True, 8), (64, 32, True, 8)],
)
def test_images_are_decoded_by_cores_that_have_nothing_else_to_do(cores, threads, gpu, workers, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert flags.default_workers() == workers


def raising(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RunError("runs/a: not a run"), 2, "train_cls: runs/a: not a run"),
        (DataError("voc: no such list"), 2, "train_cls: voc: no such list"),
        (
            PermissionError(13, "Permission denied", "runs/a"),
            2,
            "train_cls: runs/a: Permission denied; what was finished before is kept",
        ),
        (
            OSError(28, "No space left on device"),
            2,
            "train_cls: No space left on device; what was finished before is kept",
        ),
        (OSError("refused"), 2, "train_cls: refused; what was finished before is kept"),
        (KeyboardInterrupt(), 130, "train_cls: stopped by Ctrl-C; what was finished before is kept"),
        (KeyboardInterrupt("epoch 3 is kept"), 130, "train_cls: stopped by Ctrl-C; epoch 3 is kept"),
    ],
)
def test_a_users_mistake_is_one_line_and_an_exit_code(monkeypatch, capsys, error, code, line):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_cls.py", "--run", "x"])
    with pytest.raises(SystemExit) as ending:
        runtime.run_step(raising(error))
    assert ending.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip("\n") == line


@pytest.mark.parametrize("error", [ValueError("ours"), TypeError("ours"), RuntimeError("ours"), KeyError("ours")])
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised:
        runtime.run_step(raising(error))
    assert raised.value is error


def test_a_step_that_ends_well_says_nothing(capsys):
    runtime.run_step(lambda: None)
    assert capsys.readouterr() == ("", "")


def test_device_cpu_is_the_cpu():
    assert runtime.choose_device("cpu") == torch.device("cpu")


def test_device_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runtime.choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, False, "cuda"), (False, True, "mps"), (True, True, "cuda")]
)
def test_device_auto_prefers_cuda_then_mps(monkeypatch, cuda, mps, expected):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", lambda *size, device: asked.append(device) or torch.zeros(*size))
        runtime.choose_device("auto")
    assert asked == [expected]


@pytest.mark.parametrize("name", ["nonsense", "", "cuda:99", "cuda:x", "xla", "hpu", "privateuseone", "meta"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(RunError, match=f"^--device {name}: .*use auto or cpu"):
        runtime.choose_device(name)


def test_a_single_gpu_is_not_for_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="each process takes a GPU of its own; use cuda"):
        runtime.choose_device("cuda:0")


def test_random_state_goes_on_where_it_was_saved():
    file = io.BytesIO()
    torch.save(runtime.random_state(), file)
    expected = torch.rand(5)
    file.seek(0)
    runtime.set_random_state(torch.load(file, weights_only=True))
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize(("saved", "here"), [(2, 2), (2, 1), (0, 1), (1, 0)])
def test_random_state_of_gpus_is_put_back_where_the_same_gpus_are_here(monkeypatch, saved, here):
    put_back = []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.zeros(16, dtype=torch.uint8)] * saved)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", put_back.extend)
    state = runtime.random_state()
    expected = torch.rand(5)
    runtime.set_random_state(state)
    assert torch.equal(torch.rand(5), expected)
    assert len(put_back) == (saved if saved == here else 0)


def test_announcement_is_aligned(capsys):
    runtime.announce(2, data="voc", backbone="vgg11")
    assert capsys.readouterr().out == "[2/5] train_cls\n  data      voc\n  backbone  vgg11\n"


def test_progress_passes_the_items_on_and_is_silent_without_a_terminal(capsys):
    assert list(runtime.progress(iter("abc"), total=3, unit="item")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
