"""Scripts in processes of their own, alone and together; their results, read and compared."""

import csv
import itertools
import json
import multiprocessing
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure

from tests.conftest import HOME, blank

LIMIT = 400  # seconds after which a process hangs
# What config.json says that decides nothing about the result.
FREE = ("resume", "workers", "save_every", "quiet", "json", "command", "seconds", "versions")
QUICK = multiprocessing.get_context("forkserver")  # a new process does not import torch again
QUICK.set_forkserver_preload(
    ["torch", "torchvision", "torch.distributed.optim", "matplotlib.figure", "tqdm"]
)


def run_apart(
    *command, places: Sequence[Path], killed_before: tuple[str, int] | None = None
) -> list[subprocess.CompletedProcess]:
    """Runs a script in processes of their own, on one thread each; what each printed.

    Args:
        command: the script and its flags.
        places: the folder in which each process runs, as on as many machines; several processes
            know of each other as if by torchrun.
        killed_before: (name, time): they are killed by `kill -9` as `stopping_before` says.
    """
    command, count, port = [*map(str, command)], str(len(places)), str(_free_port())
    known = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": "none"}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with TemporaryDirectory() as folder:
        started = []
        for rank, place in enumerate(places):
            said = [Path(folder, f"{rank} {stream}") for stream in ("output", "error")]
            environment = {**known, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            arguments = command, place, environment, said, killed_before
            started.append((QUICK.Process(target=_run, args=arguments), said))
            started[-1][0].start()
        done = []
        for process, said in started:
            process.join(LIMIT)
            process.kill()
            process.join()
            output, error = (without_gloo(path.read_text(encoding="utf-8")) for path in said)
            done.append(subprocess.CompletedProcess(command, process.exitcode, output, error))
    return done


def _run(
    command: list[str],
    place: Path,
    environment: dict[str, str],
    said: list[Path],
    killed_before: tuple[str, int] | None,
) -> None:
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

    That is when a file has been written but does not have its name yet, for the first time, the
    second and so on.
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


def torchrun(*command, place: Path) -> subprocess.CompletedProcess:
    """Runs a script in two processes as a user would."""
    flags = ("--nproc-per-node", "2", "--master-port", str(_free_port()), "--")
    start = [sys.executable, "-m", "torch.distributed.run", *flags, HOME / command[0]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}
    how = {"capture_output": True, "text": True, "timeout": LIMIT}
    done = subprocess.run([*start, *map(str, command[1:])], cwd=place, env=environment, **how)
    done.stdout = without_gloo(done.stdout)
    return done


def without_gloo(said: str) -> str:
    """What was printed, but for the lines of PyTorch 2.10's gloo."""
    return re.sub(r"(?m)^\[Gloo\].*\n", "", said)


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def contents(folder: Path) -> dict[str, Any]:
    """What the files in a folder hold, by their paths there.

    Checkpoints as values, for torch writes equal ones in more ways than one; of config.json only
    what belongs to the result; of all others the bytes. Locks and seconds are left out.
    """
    found: dict[str, Any] = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".pt":
            found[name] = torch.load(path, weights_only=True)
            if training := found[name].get("training"):
                for place in (training, *training["log"]):
                    del place["seconds"]
        elif path.suffix == ".csv":
            found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in table(path)]
        elif path.name == "config.json":
            content = config(path.parent)
            found[name] = {key: value for key, value in content.items() if key not in FREE}
        elif path.suffix != ".lock":
            found[name] = path.read_bytes()
    return found


def differences(first: Any, second: Any, at: str = "") -> list[str]:
    """The places where plain values or tensors are not the same."""
    if isinstance(first, list) and isinstance(second, list):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            place
            for key in sorted(first.keys() | second.keys(), key=str)
            for place in differences(first.get(key), second.get(key), f"{at}/{key}")
        ]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [at]
    return [] if type(first) is type(second) and first == second else [at]


def table(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


def log(folder: Path | str) -> list[dict[str, float | None]]:
    """The epochs of a training."""
    rows = table(Path(folder) / "log.csv")
    return [{name: float(value) if value else None for name, value in row.items()} for row in rows]


def losses(run_folder: Path) -> list[float]:
    """The losses of all steps of step 3."""
    return [float(row["loss"]) for row in table(run_folder / "3_seg" / "steps.csv")[1:]]


def config(folder: Path | str) -> dict[str, Any]:
    """What a step has recorded."""
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))


def metrics(run_folder: Path | str) -> dict[str, Any]:
    """The scores of step 4."""
    return json.loads((Path(run_folder) / "4_eval" / "metrics.json").read_text(encoding="utf-8"))


def facts(said: str) -> dict[str, str]:
    """What a step says about itself before it begins."""
    return dict(re.findall(r"^  (\w+) {2,}(.+)$", said, re.MULTILINE))
