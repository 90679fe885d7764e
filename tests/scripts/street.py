"""Scripts in processes of their own, alone and several together, and what they leave: to be compared, or killed."""

import csv
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

HOME = Path(__file__).parent.parent
LIMIT = 180  # seconds after which a process hangs
BACKBONE = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48")
# What config.json says that decides nothing about the result; the commit may change while the tests run.
FREE = ("resume", "workers", "save_every", "command", "versions")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as torchrun sets it: bits depend on the number of threads
QUICK = multiprocessing.get_context("forkserver")  # a new process does not import torch again
QUICK.set_forkserver_preload(["torch", "torchvision", "torch.distributed.optim", "matplotlib.figure", "tqdm"])


class Walk:
    """A script that runs in a process of its own, on one thread. Leaving it as a context manager kills it.

    Args:
        arguments: the script and its flags.
        cwd: where it runs.
        environment: what is different there.
    """

    def __init__(self, *arguments, cwd: Path = HOME, **environment: str):
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name) / name for name in ("out", "err")]
        self.arguments = list(map(str, arguments))
        self._process = QUICK.Process(target=_walk, args=(self.arguments, cwd, environment, self._said))
        self._process.start()

    def __enter__(self) -> "Walk":
        return self

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait_for(self, happened: Callable[[], Any]) -> None:
        """Returns as soon as something has happened, which it must while the script runs."""
        deadline = time.monotonic() + LIMIT
        while not happened():
            assert self._process.is_alive() and time.monotonic() < deadline, self.end()
            time.sleep(0.001)

    def end(self) -> subprocess.CompletedProcess:
        """Waits for the end of the script; what it said, and its exit code (None: it hung)."""
        self._process.join(LIMIT)
        output, error = (path.read_text(encoding="utf-8") for path in self._said)
        return subprocess.CompletedProcess(self.arguments, self._process.exitcode, output, error)


def _walk(arguments: list[str], cwd: Path, environment: dict[str, str], said: list[Path]) -> None:
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    os.chdir(cwd)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; a shell's background ignores it
    multiprocessing.set_start_method(None, force=True)  # the platform's own again, for the script's workers
    torch.set_num_threads(1)
    sys.argv = [str(HOME / arguments[0]), *arguments[1:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


def walk(*arguments, cwd: Path = HOME) -> subprocess.CompletedProcess:
    """Runs a script to its end, in a process of its own."""
    with Walk(*arguments, cwd=cwd) as alone:
        return alone.end()


def walk_in_pair(*arguments, places: tuple[Path, Path]) -> list[subprocess.CompletedProcess]:
    """Runs a script in two processes that work together, with what torchrun tells them but without it; by rank.

    Each has a place of its own, as on two machines.
    """
    meet = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    walks = [Walk(*arguments, cwd=place, RANK=str(rank), **meet) for rank, place in enumerate(places)]
    with walks[0], walks[1]:
        return [one.end() for one in walks]


def torchrun(*arguments, cwd: Path = HOME) -> subprocess.Popen:
    """Starts a script in two processes as a user would."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", _free_port()]
    return subprocess.Popen(
        list(map(str, [*command, "--", HOME / arguments[0], *arguments[1:]])),
        cwd=cwd,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(HOME)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """What a process said, and its exit code; one that hangs is killed, and fails the test."""
    try:
        output, error = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@pytest.fixture(scope="module")
def fitted(drawn, tmp_path_factory) -> Path:
    """A folder with the data set `shapes` and a `run` after steps 1 and 2; not to be changed: see `place`."""
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "shapes").symlink_to(drawn)
    for step in (
        ("sample_features.py", "--data", "shapes", "--run", "run", *BACKBONE, "--workers", 0, "--batch-size", 4),
        ("train_cls.py", "--run", "run", "--epochs", 5, "--hidden", 16),
    ):
        done = walk(*step, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def one_thread():
    """Scripts in this process compute as those in processes of their own: bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, Any]:
    """What the files in a folder hold, by their paths there: bytes, but for what legitimately differs in its bytes.

    That is last.pt, for torch writes equal values in more ways than one, and config.json, which also tells how the
    result came about.
    """
    found = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.name == "last.pt":
            content = torch.load(path, weights_only=True)
        elif path.name == "config.json":
            content = json.loads(path.read_text(encoding="utf-8"))
            content = {key: value for key, value in content.items() if key not in FREE}
        else:
            content = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = content
    return found


def differences(first: Any, second: Any, at: str = "") -> list[str]:
    """The places where plain values or tensors are not the same."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted(first.keys() | second.keys(), key=str)
        return [place for key in keys for place in differences(first.get(key), second.get(key), f"{at}/{key}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [place for pair in enumerate(zip(first, second)) for place in differences(*pair[1], f"{at}/{pair[0]}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [at]
    return [] if type(first) is type(second) and first == second else [at]


def losses(run: Path) -> list[float]:
    """The losses of all steps of step 3."""
    with open(run / "3_seg" / "steps.csv") as file:
        return [float(row["loss"]) for row in list(csv.DictReader(file))[1:]]
