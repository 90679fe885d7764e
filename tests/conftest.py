"""What the tests share: a tiny data set, the scripts as subprocesses, and the places of real data."""

import contextlib
import io
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from data.shapes import make_shapes

HOME = Path(__file__).parent.parent
Script = Callable[..., subprocess.CompletedProcess]


class Bomb:
    """Creates a file when unpickled: stands for any code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A data set of 24 small pictures (18 train, 3 val, 3 test); not to be changed: see `shapes`."""
    return make_shapes(tmp_path_factory.mktemp("drawn") / "shapes", images=24, size=64, seed=0)


@pytest.fixture
def shapes(drawn, tmp_path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(drawn, tmp_path / "shapes"))


@pytest.fixture(scope="session")
def script() -> Script:
    """Runs a script of the project as a user would: `script("evaluate.py", "--run", run)`, output captured as text."""

    def run(*arguments, cwd=HOME, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(HOME)}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, **options)

    return run


@pytest.fixture(scope="session")
def in_process() -> Script:
    """Like `script`, but in this process: seconds faster, for what does not need a process of its own."""

    def run(name, *arguments) -> subprocess.CompletedProcess:
        output, error, code = io.StringIO(), io.StringIO(), 0
        with mock.patch.object(sys, "argv", [str(HOME / name), *map(str, arguments)]):
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
                try:
                    runpy.run_path(str(HOME / name), run_name="__main__")
                except SystemExit as stop:
                    code = stop.code or 0
        return subprocess.CompletedProcess([name, *arguments], code, output.getvalue(), error.getvalue())

    return run


@pytest.fixture(scope="session")
def in_turn(in_process) -> Callable[..., None]:
    """Runs steps, a tuple of arguments each, one after the other; each must end well."""

    def run(*steps: tuple) -> None:
        for step in steps:
            done = in_process(*step)
            assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """Real data in VOC layout."""
    return _from_environment("VOC_ROOT")


@pytest.fixture(scope="session")
def squeezenet_weights() -> Path:
    """ImageNet weights of SqueezeNet 1.1 (features)."""
    return _from_environment("HYPERCOLUMN_WEIGHTS")


def _from_environment(name: str) -> Path:
    if not os.environ.get(name):
        pytest.skip(f"{name} is not set: it names real data for this test")
    return Path(os.environ[name])
