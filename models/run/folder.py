"""The run folder: what each step leaves where, when it has finished, and what it was made from."""

import csv
import hashlib
import io
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
import torchvision

from data import UserError
from data.files import atomic_file
from models.backbones import fingerprint
from models.run import distributed
from models.segmenter import Segmenter, load_segmenter

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
FORMAT = 3  # of config.json: raised when it says something that later steps need


def step_folder(run: Path, step: int) -> Path:
    """The folder of a step."""
    return run / STEPS[step][1]


def scores_folder(place: Path) -> Path:
    """Where scores are: `place` itself if `evaluate.py --out` has filled it, else that of a run."""
    return place if (place / PER_IMAGE).is_file() else step_folder(place, 4)


def step_title(step: int) -> str:
    """What a step calls itself, like "[1/5] sample_features"."""
    return f"[{step}/{len(STEPS)}] {STEPS[step][0]}"


# Writing: whole or not at all.


@contextmanager
def claim(place: Path) -> Iterator[None]:
    """Keeps other processes out of a step's folder until the block ends; rank 0 does it for all.

    The lock is the system's, so that of a killed process is gone with it.

    Raises:
        UserError: another process has the folder, or it is a file.
    """
    if not distributed.is_main():
        yield
        return
    from filelock import FileLock, Timeout  # reading a run does without it

    if place.exists() and not place.is_dir():
        raise UserError(f"{place}: is a file, but a folder is to be written there; move it away")
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{place}: another process is writing there; wait, or use another --run"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A new, empty folder that takes the place of `place` when the block ends well.

    All processes get its path; rank 0 makes it, and moves it when all have left the block. Until
    then, and where the block raises, what was at `place` stays as it is. Nothing in the new folder
    may be open or mapped at the end: Windows does not move that.
    """
    new, old = (place.with_name(f".{place.name}.{word}") for word in ("new", "old"))
    with claim(place):
        if distributed.is_main():
            for left in (new, old):  # by a killed process
                shutil.rmtree(left, ignore_errors=True)
            new.mkdir()
        distributed.barrier()
        try:
            yield new
            distributed.barrier()
            if distributed.is_main():
                if place.exists():
                    place.rename(old)
                new.rename(place)
                shutil.rmtree(old, ignore_errors=True)
        except BaseException as error:
            if distributed.world_size() == 1:  # else others may still write there
                shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, OSError):  # without a name: while writing to an open file
                path = str(error.filename or new)
                error.filename = path.replace(str(new), str(place), 1)
            raise


def keep_aside(place: Path) -> Path | None:
    """Renames a folder that holds files to the first free NAME.1, NAME.2, ..; gives that name."""
    if not place.is_dir() or not any(place.iterdir()):
        return None
    number = 1
    while (aside := place.with_name(f"{place.name}.{number}")).exists():
        number += 1
    return place.rename(aside)


def save_config(place: Path, step: int, flags: Mapping[str, Any], **results: Any) -> dict[str, Any]:
    """Writes config.json, which marks a step as finished: flags, results, and where from.

    Args:
        flags: of the step, plain values; from "started", a time, come "seconds".
        results: "id" stands for the result, "made_from" for that of the step before which it was
            made from, see `check_chain`; "scores" are for --json.

    Returns:
        What was written.
    """
    config = {"format": FORMAT, "step": STEPS[step][0], **flags, **results}
    config.pop("settings", None)  # which are the flags once more
    config["seconds"] = round(time.time() - config.pop("started"), 1)
    config |= {"command": command(step), "versions": versions()}
    save_json(place / CONFIG, config)
    return config


def finish(
    run: Path | None,
    step: int,
    config: Mapping[str, Any],
    wrote: str,
    then: Sequence[Any] = (),
    place: Path | None = None,
) -> None:
    """Says what is in a step's folder now, and which command comes next.

    Args:
        config: as saved; of it "recipe" goes on to the next command, and "json", "scores" and
            "seconds" make the line for programs.
        then: script and flags of the next command.
        place: another folder than the step's own.
    """
    place = place or step_folder(run, step)
    print(f"wrote {place}: {wrote}")
    if then:
        recipe = (config.get("recipe") or "").partition(":")[0]
        print(f"next: python {shell_line([*then, '--recipe', recipe] if recipe else then)}")
    if config.get("json"):
        print_json(step, place, config["scores"], config["seconds"])


def print_json(step: int, wrote: Path | None, scores: Mapping[str, float], seconds: float) -> None:
    """Prints a step's result for programs, in a line; a score that is not defined is null."""
    place = wrote and str(wrote)
    line = {"step": STEPS[step][0], "wrote": place, "scores": scores, "seconds": round(seconds, 1)}
    print(json.dumps(without_nan(line), default=_plain), file=sys.__stdout__, flush=True)


def shell_line(words: Sequence[Any]) -> str:
    """Words as a line for the user's shell; paths with slashes, which Windows understands, too."""
    texts = [word.as_posix() if isinstance(word, PurePath) else str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def command(step: int) -> str:
    """The command that runs now, as it was typed, but for other flags of torchrun."""
    processes = distributed.world_size()
    several = ["torchrun", "--nproc-per-node", processes, "--"]
    start = several if processes > 1 else ["python"]
    return shell_line([*start, f"{STEPS[step][0]}.py", *sys.argv[1:]])


def versions() -> dict[str, str | None]:
    """Versions of the software, and the git commit of this program ('+': changed since)."""
    describe = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True)
        commit = found.stdout.strip() or None
    except OSError:  # no git here
        commit = None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "commit": commit,
    }


def save_skipped(place: Path, skipped: Mapping[str, str]) -> str:
    """Saves skipped.txt, a line `ID: why` for each image left out; their number in words."""
    if not skipped:
        return ""
    with atomic_file(place / "skipped.txt") as file:
        file.write("".join(f"{key}: {why}\n" for key, why in skipped.items()).encode())
    return f"; left out {count(len(skipped), 'bad image')}, listed in skipped.txt"


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Saves plain values as indented JSON; paths become strings, nan becomes null."""
    with atomic_file(path) as file:
        text = json.dumps(without_nan(content), indent=2, default=_plain, allow_nan=False)
        file.write((text + "\n").encode())


def without_nan(value: Any) -> Any:
    """The value, in it None for each nan, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's numbers, and anything else by its name."""
    return value.item() if isinstance(value, np.generic) else str(value)


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Saves rows that share their keys as CSV with a header."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


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


# Reading: has it finished, and does this fit that?


def finished(run: Path, step: int) -> dict[str, Any]:
    """The config.json of a step that has finished; of step 4 `run` may be any `scores_folder`.

    Raises:
        UserError: it has not, or the file cannot be read or is from another version.
    """
    place = scores_folder(run) if step == 4 else step_folder(run, step)
    where = ["--run", "RUN", "--out", run] if place == run else ["--run", run]
    path, again = place / CONFIG, shell_line(["python", f"{STEPS[step][0]}.py", *where])
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        age = "a newer" if config["format"] > FORMAT else "an earlier"
        if not isinstance(config.get("classes", []), list):
            raise ValueError("classes")
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: step {step} has not finished there; run it first: {again}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: cannot be read; run step {step} again: {again}") from None
    if config["format"] != FORMAT:
        raise UserError(
            f"{path}: written by {age} version (format {config['format']}, this one reads "
            f"{FORMAT}); run step {step} again: {again}"
        )
    return config


def is_finished(run: Path, step: int) -> bool:
    """Whether a step has left a config.json."""
    return (step_folder(run, step) / CONFIG).is_file()


def extractor_id(spec: Mapping[str, Any], size: int) -> str:
    """What stands for the result of step 1: the extractor and the size of what it sees."""
    return hashlib.sha256(json.dumps([spec, size], sort_keys=True).encode()).hexdigest()[:16]


def check_chain(run: Path, step: int, made_from: str | None, source: Path) -> None:
    """Refuses what was made from something else than the steps before it hold now.

    Args:
        step: that has made `source`.
        made_from: "id" of the step before, see `save_config`; None: of no step of this run.

    Raises:
        UserError: names the first link that does not hold, and which step to run again.
    """
    while step > 1 and made_from and is_finished(run, step - 1):
        before = finished(run, step - 1)
        if before["id"] != made_from:
            raise UserError(
                f"{source}: made from something else than {step_folder(run, step - 1)} holds now; "
                f"run {STEPS[step][0]}.py again, or use another --run"
            )
        step, made_from = step - 1, before.get("made_from")
        source = step_folder(run, step)


def trained_segmenter(run: Path | None, checkpoint: Path | None) -> tuple[Segmenter, Path]:
    """The network to use, on the CPU, and its file: `checkpoint`, else step 3's or 2's of a run.

    A checkpoint may be a run's folder, too. Without either it is the network in the box.

    Raises:
        UserError: none of them is there or can be read, or an earlier step was run again since.
    """
    checkpoint = checkpoint or (None if run else Path("voc"))
    if checkpoint and any(step_folder(checkpoint, step).is_dir() for step in (2, 3)):
        run, checkpoint = checkpoint, None
    if checkpoint:
        return load_segmenter(checkpoint)[0], checkpoint
    step, source = 3, step_folder(run, 3) / "best.pt"
    if not source.is_file():
        finished(run, 2)
        step, source = 2, step_folder(run, 2) / "dense.pt"
    segmenter, content = load_segmenter(source)
    check_chain(run, step, content["made_from"], source)
    return segmenter, source


def scored_another_network(run: Path) -> bool:
    """Whether the network that step 4 has scored is not the run's any more.

    Args:
        run: or a folder of `evaluate.py --out`; whether its checkpoint has changed since.
    """
    config = finished(run, 4)
    if not config["checkpoint"]:  # predictions that any program made
        return False
    is_best = config["scored_best"] and scores_folder(run) != run
    chosen = None if is_best else Path(config["checkpoint"])
    if chosen and not chosen.is_file():
        return False  # nothing is there to compare with
    return fingerprint(trained_segmenter(run, chosen)[0]) != config["made_from"]


def check_classes(trained: Sequence[str], given: Sequence[str], source: Path, data: Path) -> None:
    """Refuses a data set with other classes than the network was trained on.

    Raises:
        UserError: names the first difference.
    """
    for index, (ours, theirs) in enumerate(zip_longest(trained, given, fillvalue="none")):
        if ours != theirs:
            raise UserError(
                f"{data}: class {index} is {theirs!r} there but {ours!r} in {source}; "
                "use the data it was trained on"
            )


def images_of(step_1: Mapping[str, Any]) -> list[str]:
    """The flags of step 1 that step 3 should be given, too: which images."""
    changed, flags = step_1["changed"], ("--split", "--limit", "--skip-bad")
    pairs = [(name, changed[name]) for name in flags if name in changed]
    return [str(word) for pair in pairs for word in pair if word is not True]


def count(number: int, noun: str) -> str:
    """Like "1 epoch" or "2 epochs"."""
    return f"{number} {noun}" + "s" * (number != 1)
