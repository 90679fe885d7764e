"""The run folder: what each step leaves where, when a step has finished, what goes on from what."""

import csv
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
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torchvision
from filelock import FileLock, Timeout

from data.files import atomic_file
from models import RunError
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
FORMAT = 2  # of config.json: raised when it says something that later steps need
CONFIG = "config.json"  # written last: a step without it has not finished


def step_folder(run: Path, step: int) -> Path:
    """The folder of a step."""
    return run / STEPS[step][1]


def scores_folder(place: Path) -> Path:
    """Where scores are: `place` itself if `evaluate.py --out` has filled it, else that of a run."""
    return place if (place / PER_IMAGE).is_file() else step_folder(place, 4)


def step_title(step: int) -> str:
    """What a step calls itself, like "[1/5] sample_features"."""
    return f"[{step}/{len(STEPS)}] {STEPS[step][0]}"


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Makes a step's folder and keeps other runs out of it, until the block ends.

    The lock is the system's, so that of a killed process is gone with it.

    Raises:
        RunError: another process has the folder.
        OSError: no file can be written there.
    """
    if not distributed.is_main():
        yield
        return
    if is_borrowed(folder):
        raise RunError(
            f"{folder}: is a link to {folder.resolve()}, which would be replaced; use another "
            "--run, or remove the link"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), blocking=False)
    holder = folder.with_name(f".{folder.name}.holder")
    try:
        lock.acquire()
    except Timeout:
        who = holder.read_text("utf-8") if holder.is_file() else "another process"
        raise RunError(f"{folder}: {who} is writing there; wait, or use another --run") from None
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}", "utf-8")
        (folder / ".probe.part").touch()  # a folder that cannot be written is known at once
        (folder / ".probe.part").unlink()
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def borrow(run: Path, other: Path, before: int) -> None:
    """Links the steps of another run before step `before` into this one.

    Raises:
        RunError: the last of them has not finished there, or this run has steps of its own.
    """
    finished(other, before - 1)
    links = {step_folder(run, step): step_folder(other, step) for step in range(1, before)}
    for ours in links:
        if ours.exists() and not is_borrowed(ours):
            raise RunError(f"--from {other}: {ours} is a step of this run's own; use another --run")
    run.mkdir(parents=True, exist_ok=True)
    for ours, theirs in links.items():
        if is_borrowed(ours):
            ours.unlink()
        if theirs.exists():
            ours.symlink_to(os.path.relpath(theirs.resolve(), run.resolve()), True)


def is_borrowed(folder: Path) -> bool:
    """Whether a step's folder is a link to that of another run, as `borrow` makes them."""
    return folder.is_symlink() and folder.resolve().name == folder.name


def mark_unfinished(folder: Path) -> None:
    """Takes config.json and the litter of killed processes out, before files are replaced."""
    (folder / CONFIG).unlink(missing_ok=True)
    for litter in folder.rglob(".*.part"):
        litter.unlink(missing_ok=True)


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
            if distributed.is_main():
                shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, OSError) and str(error.filename or "").startswith(str(new)):
                error.filename = str(place) + str(error.filename)[len(str(new)) :]
            raise


def save_config(place: Path, step: int, config: Mapping[str, Any]) -> None:
    """Writes config.json, which marks a step as finished."""
    head = {"format": FORMAT, "step": STEPS[step][0]}
    save_json(place / CONFIG, {**head, **config, "command": command(step), "versions": versions()})


def keep_aside(folder: Path) -> Path | None:
    """Renames a folder that holds files to the first free NAME.1, NAME.2, ..; gives that name."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(aside)


def finish(
    run: Path | None,
    step: int,
    config: dict[str, Any],
    wrote: str,
    then: Sequence[Any] = (),
    folder: Path | None = None,
    scores: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Marks a step as finished by writing config.json, and prints what to do next.

    Args:
        config: settings and results, plain values; from "started", a time, come "seconds".
        wrote: what is in the folder now, in words.
        then: script and flags of the next command.
        folder: another one than the step's own in the run, which is then not needed.
        scores: what the step has found, for --json.
    """
    folder, scores = folder or step_folder(run, step), config.get("scores", scores)
    config = {"format": FORMAT, "step": STEPS[step][0], **config}
    if "started" in config:
        config["seconds"] = round(time.time() - config.pop("started"), 1)
    save_json(folder / CONFIG, config | {"command": command(step), "versions": versions()})
    print(f"wrote {folder}: {wrote}")
    if then:
        recipe = (config.get("recipe") or "").partition(":")[0]
        then = [*then, "--recipe", recipe] if recipe else then
        print(f"next: python {shlex.join(map(str, then))}")
    if config.get("json"):
        print_json(step, folder, scores, config["seconds"])


def print_json(step: int, wrote: Path | None, scores: Mapping[str, float], seconds: float) -> None:
    """Prints a step's result for programs, in a line; a score that is not defined is null."""
    scores = {k: None if math.isnan(value) else value for k, value in scores.items()}
    place = wrote and str(wrote)
    line = {"step": STEPS[step][0], "wrote": place, "scores": scores, "seconds": round(seconds, 1)}
    print(json.dumps(line, default=_plain), file=sys.__stdout__, flush=True)


def command(step: int) -> str:
    """The command that runs now, as it was typed, but for other flags of torchrun."""
    processes = distributed.world_size()
    several = ["torchrun", "--nproc-per-node", str(processes), "--"]
    start = several if processes > 1 else ["python"]
    return shlex.join([*start, f"{STEPS[step][0]}.py", *sys.argv[1:]])


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


def finished(run: Path, step: int) -> dict[str, Any]:
    """The config.json of a step that has finished; of step 4 `run` may be any `scores_folder`.

    Raises:
        RunError: it has not, or the file cannot be read or is from another version.
    """
    place = scores_folder(run) if step == 4 else step_folder(run, step)
    where = ["--run", "RUN", "--out", str(run)] if place == run else ["--run", str(run)]
    path, again = place / CONFIG, shlex.join(["python", f"{STEPS[step][0]}.py", *where])
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        age = "a newer" if config["format"] > FORMAT else "an earlier"
        if not isinstance(config.get("classes", []), list):
            raise ValueError("classes")
    except FileNotFoundError:
        raise RunError(
            f"{path.parent}: step {step} has not finished there; run it first: {again}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: cannot be read; run step {step} again: {again}") from None
    if config["format"] != FORMAT:
        raise RunError(
            f"{path}: written by {age} version (format {config['format']}, this one reads "
            f"{FORMAT}); run step {step} again: {again}"
        )
    return config


def is_finished(run: Path, step: int) -> bool:
    """Whether a step has left a config.json."""
    return (step_folder(run, step) / CONFIG).is_file()


def trained_segmenter(run: Path | None, checkpoint: Path | None) -> tuple[Segmenter, Path]:
    """The network to use, on the CPU, and its file: `checkpoint`, else step 3's or 2's.

    Without a run either it is the one that comes with the project.

    Raises:
        RunError: none of them is there or can be read, or an earlier step has been run again since.
    """
    if not run:
        checkpoint = checkpoint or Path("voc")
    if checkpoint:
        return load_segmenter(checkpoint)[0], checkpoint
    source = step_folder(run, 3) / "best.pt"
    is_fine_tuned = source.is_file()
    if not is_fine_tuned:
        finished(run, 2)
        source = step_folder(run, 2) / "dense.pt"
    segmenter, content = load_segmenter(source)
    check_features(run, segmenter, source)
    if is_fine_tuned:
        check_start(run, content, source)
    return segmenter, source


def check_features(run: Path, segmenter: Segmenter, source: Path) -> None:
    """Refuses `source` if step 1 has since been run with another extractor or input size.

    Raises:
        RunError: names both.
    """
    if not is_finished(run, 1):
        return
    config, spec = finished(run, 1), segmenter.hypercolumn.spec()
    spec["fingerprint"] = segmenter.origin or spec["fingerprint"]
    ours = _extractor_in_words(spec, segmenter.size)
    theirs = _extractor_in_words(config["hypercolumn"], config["size"])
    if ours != theirs:
        raise RunError(
            f"{source}: made with {ours}, but {step_folder(run, 1)} with {theirs}; "
            "run the later steps again, or use another --run"
        )


def check_start(run: Path, content: dict[str, Any], source: Path) -> None:
    """Refuses a checkpoint of step 3 if step 2 has been run again since.

    Args:
        content: of the checkpoint; "start" is the fingerprint of the head that it started from,
            None for a network of another run.

    Raises:
        RunError: it has.
    """
    if is_finished(run, 2) and content["start"] not in (None, finished(run, 2)["head"]):
        raise RunError(
            f"{source}: trained from another head than {step_folder(run, 2)} holds now; "
            "run train_seg.py again, without --resume"
        )


def check_classes(trained: Sequence[str], given: Sequence[str], source: Path, data: Path) -> None:
    """Refuses a data set with other classes than the network was trained on.

    Raises:
        RunError: names the first difference.
    """
    for index, (ours, theirs) in enumerate(zip_longest(trained, given, fillvalue="none")):
        if ours != theirs:
            raise RunError(
                f"{data}: class {index} is {theirs!r} there but {ours!r} in {source}; "
                "use the data it was trained on"
            )


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
    return fingerprint(trained_segmenter(run, chosen)[0]) != config["network"]


def way_of(config: dict[str, Any]) -> list[tuple[float, float]]:
    """What the network that step 4 has scored took to be made, and how good it was on the way.

    Args:
        config: the config.json of step 4.

    Returns:
        (minutes, validation mIoU) after each epoch of step 3, from 0; of a head of step 2
        (minutes, nan) alone; empty where it is not known, as for predictions of other programs and
        networks that started from another run's by --init.
    """
    run, source = Path(config.get("run") or ""), Path(config["checkpoint"] or "")
    steps = {step_folder(run, 2) / "dense.pt": (1, 2), step_folder(run, 3) / "best.pt": (1, 2, 3)}
    if source not in steps or not all(is_finished(run, step) for step in steps[source]):
        return []
    minutes = sum(finished(run, step)["seconds"] for step in (1, 2)) / 60
    if 3 not in steps[source]:
        return [(minutes, math.nan)]
    if finished(run, 3)["init"]:
        return []
    way = []
    for row in _read_log(run, 3):
        minutes += row["seconds"] / 60
        way.append((minutes, row["miou"]))
    return way


def check_settings(saved: dict[str, Any], given: dict[str, Any], source: Path) -> None:
    """Refuses to resume with other settings.

    Raises:
        RunError: names the first that differs.
    """
    for name, value in given.items():
        if saved.get(name) != value:
            raise RunError(
                f"--resume: {source} was made with {name} {saved.get(name)}, not {value}; "
                "keep to that"
            )


def check_unfinished(run: Path, training: dict[str, Any], epochs: int) -> None:
    """Says how to train on where a finished training is to be resumed for more epochs.

    Raises:
        RunError: it is.
    """
    planned = training["settings"]["--epochs"]
    if epochs > planned and len(training["log"]) > planned:
        best = step_folder(run, 3) / "best.pt"
        raise RunError(
            f"--resume: {best.parent} has finished its {count(planned, 'epoch')}, and its rate has "
            f"decayed; to train on, start from its network: the same command with another --run "
            f"and --init {best}, without --resume"
        )


def _read_log(run: Path, step: int) -> list[dict[str, float | None]]:
    with open(step_folder(run, step) / "log.csv", encoding="utf-8", newline="") as file:
        return [
            {name: float(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def count(number: int, noun: str) -> str:
    """Like "1 epoch" or "2 epochs"."""
    return f"{number} {noun}" + "s" * (number != 1)


def save_skipped(folder: Path, skipped: dict[str, str]) -> str:
    """Saves skipped.txt, a line `ID: why` for each image left out; their number in words."""
    path = folder / "skipped.txt"
    if not skipped:
        path.unlink(missing_ok=True)
        return ""
    with atomic_file(path) as file:
        file.write("".join(f"{key}: {why}\n" for key, why in skipped.items()).encode())
    return f"; skipped {count(len(skipped), 'bad image')}, listed in {path}"


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Saves plain values as indented JSON; paths become strings, nan becomes null."""
    content = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in content.items()
    }
    with atomic_file(path) as file:
        text = json.dumps(content, indent=2, default=_plain, allow_nan=False)
        file.write((text + "\n").encode())


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's numbers, and anything else by its name."""
    return value.item() if isinstance(value, np.generic) else str(value)


def save_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Saves rows that share their keys as CSV with a header."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def _extractor_in_words(spec: dict[str, Any], size: int) -> str:
    taps, context = (",".join(map(str, spec[name])) or "none" for name in ("taps", "context"))
    context += f", {spec['dilated']} strides dilated" if spec["dilated"] else ""
    return (
        f"{spec['backbone']} (taps {taps}, context {context}, weights {spec['fingerprint']}, "
        f"size {size})"
    )
