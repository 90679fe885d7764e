"""The run folder: what each step leaves where, whole or not at all, and what it says at its end."""

import csv
import io
import itertools
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
import torchvision

from data import UserError
from data.files import atomic_file
from models.run import distributed

# number: (script, folder in the run)
STEPS = {
    1: ("sample_features", "1_features"),
    2: ("train_cls", "2_cls"),
    3: ("train_seg", "3_seg"),
    4: ("evaluate", "4_eval"),
    5: ("visualize", "5_overlays"),
}
PER_IMAGE = "per_image.npz"  # the scores of step 4, image by image
CONFIG = "config.json"  # without it, a step has not finished
CONFIG_FORMAT = 6  # of config.json: raised when it says something that later steps need


def step_folder(run: Path, step: int) -> Path:
    """The folder of a step."""
    return run / STEPS[step][1]


@contextmanager
def claim(place: Path) -> Iterator[None]:
    """Keeps other processes out of a step's folder until the block ends; rank 0 does it for all.

    The lock is the system's, so that of a killed process is gone with it.

    Raises:
        UserError: another process has the folder, it is a file, or nothing can be written there.
    """
    if not distributed.is_main():
        yield
        return
    from filelock import FileLock, Timeout  # reading a run does without it

    if place.exists() and not place.is_dir():
        raise UserError(f"{place}: is a file, but a folder is to be written there; move it away")
    lock = FileLock(place.with_name(f".{place.name}.lock"), blocking=False)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        claimed = lock.acquire()
    except Timeout:
        raise UserError(
            f"{place}: another process is writing there; wait, or use another --run"
        ) from None
    except (OSError, NotImplementedError) as error:  # a colleague's run; a disk without locks
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{place}: cannot be written ({reason}); name a folder of your own, with --run or --out"
        ) from None
    with claimed:
        yield


def check_free(place: Path, step: int) -> None:
    """Refuses a folder with files that no earlier run of the step wrote: a new folder replaces all.

    Raises:
        UserError: names one that no config.json of the step lists.
    """
    try:
        config = read_json(place / CONFIG)
    except (OSError, ValueError, TypeError):  # none, or damaged
        config = {}
    own = config.get("files", ()) if config.get("step") == STEPS[step][0] else ()
    for path in sorted(place.rglob("*")):
        is_part = path.name.startswith(".") and path.suffix == ".part"  # of a killed process
        is_known = is_part or path.name == ".DS_Store"
        if path.is_file() and not is_known and path.relative_to(place).as_posix() not in own:
            raise UserError(f"{path}: would be replaced; move it away, or name another folder")


@contextmanager
def new_folder(place: Path, step: int | None = None) -> Iterator[Path]:
    """A new, empty folder that takes the place of `place` when the block ends well.

    All processes get its path; rank 0 makes it, and moves it when all have left the block. Until
    then, and where the block raises, what was at `place` stays as it is. Nothing in the new folder
    may be open or mapped at the end: Windows does not move that.

    Args:
        step: which writes there; None: what is there is checked elsewhere.

    Raises:
        UserError: see `claim` and `check_free`; or what was at `place` cannot be moved, as where
            Windows has a file of it open. The new folder then stays, too.
    """
    place = place.resolve() if place.is_symlink() else place  # a link to a larger disk stays one
    new, old = (place.with_name(f".{place.name}.{word}") for word in ("new", "old"))
    with claim(place):
        if distributed.is_main():
            if step:
                check_free(place, step)
            if old.exists() and not place.exists():  # killed between the two moves
                old.rename(place)
            for left in (new, old):  # by a killed process
                shutil.rmtree(left, ignore_errors=True)
            new.mkdir()
        distributed.barrier()
        try:
            yield new
        except BaseException as error:
            if distributed.world_size() == 1:  # else others may still write there
                shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, OSError):  # without a name: while writing to an open file
                path = str(error.filename or new)
                error.filename = path.replace(str(new), str(place), 1)
            raise
        distributed.barrier()
        if distributed.is_main():
            try:
                if place.exists():
                    place.rename(old)
                new.rename(place)
            except OSError as error:
                raise UserError(
                    f"{place}: cannot be replaced ({error.strerror}); is a file of it open? The "
                    f"new result is in {new}: move it there by hand"
                ) from None
            shutil.rmtree(old, ignore_errors=True)


def keep_aside(place: Path) -> Path | None:
    """Renames a folder that holds files to the first free NAME.1, NAME.2, ..; gives that name."""
    if not place.is_dir() or not any(place.iterdir()):
        return None
    names = (place.with_name(f"{place.name}.{number}") for number in itertools.count(1))
    return place.rename(next(name for name in names if not name.exists()))


def save_config(place: Path, step: int, flags: Mapping[str, Any], **results: Any) -> dict[str, Any]:
    """Writes config.json, which marks a step as finished: flags, results, where from, all "files".

    Args:
        flags: of the step, plain values, with "settings", those that decide the result; from
            "started", a time, come "seconds"; "command", where it is not that of the step.
        results: "id" stands for the result, "made_from" for that of the step before which it was
            made from, see `models.run.chain.step_network`; "scores" are for --json.

    Returns:
        What was written.
    """
    config = {"format": CONFIG_FORMAT, "step": STEPS[step][0], **flags, **results}
    files = [p.relative_to(place).as_posix() for p in place.rglob("[!.]*") if p.is_file()]
    config["files"] = sorted([*files, CONFIG])
    config["seconds"] = round(time.perf_counter() - config.pop("started"), 1)
    processes = distributed.world_size()
    start = ["torchrun", "--nproc-per-node", processes, "--"] if processes > 1 else ["python"]
    config.setdefault("command", shell_line([*start, f"{STEPS[step][0]}.py", *sys.argv[1:]]))
    config["versions"] = versions()
    save_json(place / CONFIG, config)
    return config


def finish(
    place: Path, step: int, config: Mapping[str, Any], wrote: str, then: Sequence[Any] = ()
) -> None:
    """Says what is in a step's folder now, and which command comes next.

    Args:
        config: as saved; its recipe goes on to the next command.
        then: script and flags of the next command.
    """
    if skipped := config.get("skipped"):
        wrote += f"; left out {count(len(skipped), 'bad image')}, listed in {CONFIG}"
    print(f"wrote {place}: {wrote}")
    if then:
        recipe = ["--recipe", config["recipe"]] if config.get("recipe") else []
        print(f"next: python {shell_line([*then, *recipe])}")
    if config.get("json"):  # for programs; a score that is not defined is null
        line = {"step": STEPS[step][0], "wrote": place}
        line |= {name: config[name] for name in ("scores", "seconds")}
        print(json.dumps(plain(line)), file=sys.__stdout__, flush=True)


def shell_line(words: Sequence[Any]) -> str:
    """Words as a line for the user's shell; paths with slashes, which Windows understands, too."""
    texts = [word.as_posix() if isinstance(word, PurePath) else str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def versions() -> dict[str, str | None]:
    """Versions of the software, and the git commit of this program ('+': changed since)."""
    describe = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    commit = None
    with suppress(OSError):  # no git here
        found = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True)
        commit = found.stdout.strip() or None
    software = {module.__name__: module.__version__ for module in (torch, torchvision, np)}
    return {"python": platform.python_version(), **software, "commit": commit}


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Saves plain values as indented JSON, see `plain`."""
    with atomic_file(path) as file:
        file.write((json.dumps(plain(content), indent=2) + "\n").encode())


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Saves rows that share their keys as CSV with a header; what is nan or None is empty."""
    text, rows = io.StringIO(), plain(rows)
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def plain(value: Any) -> Any:
    """A value as it is after JSON: numpy's numbers are numbers, paths text, tuples lists, nan None.

    Raises:
        TypeError: a key is no text.
    """
    text = json.dumps(value, default=lambda odd: odd.item() if hasattr(odd, "item") else str(odd))
    return json.loads(text, parse_constant=lambda name: None)


def read(reader: Callable[[Path], Any], path: Path, advice: str = "run its step again") -> Any:
    """What the reader finds in a file of the run; a UserError if it is damaged."""
    try:
        return reader(path)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {advice}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A dict of `save_json`."""
    return dict(json.loads(path.read_text("utf-8")))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a header."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save_chart(path: Path, kind: str, *facts: Any) -> None:
    """Draws the facts by the function `kind` of `data.figures.charts`, and saves it as PNG.

    Where matplotlib is not installed there is no chart: no step needs one.
    """
    try:
        from data.figures import charts  # takes a second to import
    except ModuleNotFoundError:
        return
    with atomic_file(path) as file:
        getattr(charts, kind)(*facts).savefig(file, format="png")


def count(number: int, noun: str) -> str:
    """Like "1 epoch" or "2 epochs"."""
    return f"{number} {noun}" + "s" * (number != 1)
