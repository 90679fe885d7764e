"""What the tests share: a drawn data set, one run after all five steps, the scripts in process."""

import contextlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import hypothesis
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from data.shapes import make_shapes

# On the CPU, where results are equal bit for bit, also where there is a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

hypothesis.settings.register_profile("any speed", deadline=None)  # machines are shared
hypothesis.settings.load_profile("any speed")

HOME = Path(__file__).parent.parent
DATA = ("--data", "shapes", "--workers", "0")
BACKBONE = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48")
STEPS = {  # the five steps as `walked` takes them: the flags of each script
    "sample_features": (*DATA, *BACKBONE, "--per-class", "5"),
    "train_cls": ("--epochs", "20", "--hidden", "16", "--dropout", "0.2"),
    "train_seg": (*DATA, "--epochs", "2", "--batch-size", "4"),
    "evaluate": (*DATA, "--save-predictions"),
    "visualize": (*DATA, "--limit", "2"),
}


class Walked(NamedTuple):
    """A folder with a data set `shapes` and a `run` after all five steps."""

    place: Path
    said: dict[str, str]  # by script, what it printed


def change_masks(data: Path | str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replaces each mask (H, W) uint8 of a data set by what `change` makes of its values."""
    for path in Path(data, "SegmentationClass").glob("*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(change(values).astype(np.uint8)).save(path)


def change_head(file: Path | str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replaces the last weights of a saved network by what `change` makes of them."""
    content = torch.load(file, weights_only=True)
    *_, last = (name for name in content["state"] if re.match("head.+weight", name))
    content["state"][last] = change(content["state"][last])
    torch.save(content, file)


def cut(path: Path, tenths: int = 5) -> None:
    """Leaves so much of a file, from its beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenths // 10])


@contextlib.contextmanager
def full_disk(room: float) -> Iterator[None]:
    """No file may be longer than so many bytes."""
    import resource  # which Windows lacks

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


DRAW = Figure.savefig  # before it is replaced by `blank`


def blank(figure: Figure, file, **how) -> None:
    """Instead of a chart as PNG: on tiny data to draw it takes longer than all else."""
    if how["format"] == "png":
        Image.new("RGB", (8, 8)).save(file, "PNG")
    else:
        DRAW(figure, file, **how)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """24 small pictures (18 train, 3 val, 3 test); not to be changed: see `shapes`."""
    return make_shapes(tmp_path_factory.mktemp("drawn") / "shapes", images=24, size=64, seed=0)


@pytest.fixture
def shapes(drawn, tmp_path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(drawn, tmp_path / "shapes"))


@pytest.fixture(scope="session")
def in_process() -> Callable[..., subprocess.CompletedProcess]:
    """Runs a script in this process, seconds faster than in one of its own, with `blank` charts."""
    torch.set_num_threads(1)  # as the last bits of a result depend on their number

    def run(name, *arguments) -> subprocess.CompletedProcess:
        output, error, code = io.StringIO(), io.StringIO(), 0
        command = [str(HOME / name), *map(str, arguments)]
        with (
            mock.patch.object(sys, "argv", command),
            mock.patch.object(Figure, "savefig", blank),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(error),
        ):
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as stop:
                code = stop.code or 0
        return subprocess.CompletedProcess(command, code, output.getvalue(), error.getvalue())

    return run


@pytest.fixture(scope="session")
def succeeds(in_process) -> Callable[..., str]:
    """Runs a script, which must end well and without a word on standard error; what it printed."""

    def run(name, *arguments) -> str:
        done = in_process(name, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def fails(in_process) -> Callable[..., str]:
    """Runs a script, which must end with exit code 2 and one line on standard error; the line."""

    def run(name, *arguments) -> str:
        done = in_process(name, *arguments)
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 1, done.stderr
        assert lines[0].startswith(f"{Path(name).stem}: "), done.stderr
        return lines[0]

    return run


@pytest.fixture(scope="session")
def walked(drawn, succeeds, tmp_path_factory) -> Walked:
    """A folder after all five steps; not to be changed: see `street`."""
    place = tmp_path_factory.mktemp("walked")
    shutil.copytree(drawn, place / "shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run = {name: ("--run", "run", *flags) for name, flags in STEPS.items()}
        said = {name: succeeds(f"{name}.py", *flags) for name, flags in run.items()}
    return Walked(place, said)


@pytest.fixture
def street(walked, tmp_path, monkeypatch) -> Path:
    """A copy of that folder that a test may change; scripts run there, on `shapes` and `run`."""
    place = Path(shutil.copytree(walked.place, tmp_path / "street"))
    monkeypatch.chdir(place)
    return place
