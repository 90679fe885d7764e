"""Scripts in processes of their own, alone and together; their results, read and compared."""

import itertools
import multiprocessing
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure

from models.run.folder import read_json
from models.run.folder import read_table as table
from models.run.record import read_log
from tests.conftest import HOME, blank

LIMIT = 400  # seconds after which a process hangs
# What files say that decides nothing about the result.
FREE = ("resume", "workers", "save_every", "quiet", "json", "command", "seconds", "versions")
QUICK = multiprocessing.get_context("forkserver")  # a new process does not import torch again
QUICK.set_forkserver_preload(
    ["torch", "torchvision", "torch.distributed.optim", "matplotlib.figure", "tqdm"]
)


def run_apart(
    *command, places: Sequence[Path], killed_before: tuple[str, int] | None = None
) -> list[subprocess.CompletedProcess]:
    """Runs a script with its flags in a process in each place, on one thread; what each printed.

    They know of each other as if by torchrun, as on as many machines. `killed_before` a renaming:
    by `kill -9`, see `stopping_before`.
    """
    command, count, port = [*map(str, command)], str(len(places)), str(_free_port())
    known = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": "none"}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with TemporaryDirectory() as folder:
        started, done = [], []
        for rank, place in enumerate(places):
            said = [Path(folder, f"{rank} {stream}") for stream in ("output", "error")]
            environment = {**known, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            arguments = command, place, environment, said, killed_before
            started.append((QUICK.Process(target=_run, args=arguments), said))
            started[-1][0].start()
        for process, said in started:
            process.join(LIMIT)
            process.kill()
            process.join()
            output, error = (without_gloo(path.read_text(encoding="utf-8")) for path in said)
            done.append(subprocess.CompletedProcess(command, process.exitcode, output, error))
    return done


def _run(command, place, environment, said, killed_before) -> None:
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    os.chdir(place)
    os.environ.update(environment)
    if killed_before:
        os.replace = stopping_before(*killed_before, signal.SIGKILL)
    Figure.savefig = blank
    multiprocessing.set_start_method(None, force=True)  # the platform's, for the script's workers
    torch.set_num_threads(1)
    sys.argv = [str(HOME / command[0]), *command[1:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


def stopping_before(name: str, time: int, number: int) -> Callable[[Any, Any], None]:
    """For `os.replace`: sends a signal to this process and its workers in place of a renaming.

    Then a file has been written, for the first time, the second and so on, but has no name yet.
    """
    real, times = os.replace, itertools.count(1)

    def replace(source, target):
        if Path(target).name == name and next(times) == time:
            for worker in multiprocessing.active_children():
                subprocess.run(["kill", f"-{number}", str(worker.pid)])  # not by its parent
                worker.join(0.2)
            signal.raise_signal(number)
        real(source, target)

    return replace


def torchrun(*command, places: Sequence[Path]) -> list[subprocess.CompletedProcess]:
    """Runs a script in two processes as a user would, both in the first place."""
    flags = ("--nproc-per-node", "2", "--master-port", str(_free_port()), "--")
    words = [sys.executable, "-m", "torch.distributed.run", *flags, HOME / command[0], *command[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}
    how = {"capture_output": True, "text": True, "timeout": LIMIT, "cwd": places[0]}
    done = subprocess.run([*map(str, words)], env=environment, **how)
    done.stdout = without_gloo(done.stdout)
    return [done]


def without_gloo(said: str) -> str:
    return re.sub(r"(?m)^.*peer ranks.*\n", "", said)  # as PyTorch 2.10 prints, over one another


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def contents(folder: Path | str) -> dict[str, Any]:
    """What the files in a folder hold, by their paths there, but for locks and what is `FREE`.

    Checkpoints and tables by their values, for torch writes equal ones in more ways than one.
    """
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".lock"]
    read = {path: READERS.get(path.suffix, Path.read_bytes)(path) for path in files}
    return {path.relative_to(folder).as_posix(): _plain(value) for path, value in read.items()}


def _plain(value: Any) -> Any:
    """To be compared by ==, with a hash in place of many numbers."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if name not in FREE}
    if isinstance(value, list):
        return [*map(_plain, value)]
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, _plain(value.numpy().tobytes())
    return sha256(value).hexdigest() if isinstance(value, bytes) else repr(value)


READERS = {".pt": partial(torch.load, weights_only=True), ".csv": table, ".json": read_json}


def log(folder: Path | str) -> list[dict[str, float | None]]:
    return read_log(Path(folder) / "log.csv")


def losses(run_folder: Path) -> list[float]:
    """The losses of all steps of step 3."""
    return [float(row["loss"]) for row in table(run_folder / "3_seg" / "steps.csv")[1:]]


def config(folder: Path | str) -> dict[str, Any]:
    return read_json(Path(folder) / "config.json")


def metrics(run_folder: Path | str) -> dict[str, Any]:
    return read_json(Path(run_folder) / "4_eval" / "metrics.json")


def facts(said: str) -> dict[str, str]:
    """What a step says about itself before it begins."""
    return dict(re.findall(r"^  (\w+) {2,}(.+)$", said, re.MULTILINE))
