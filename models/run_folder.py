"""The run folder: what each step writes where, when a step counts as finished, and what goes on from what."""

import csv
import io
import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy
import torch
import torchvision

from models import RunError, processes
from models.checkpoint import FORMAT, load_segmenter
from models.files import atomic_file
from models.segmenter import Segmenter

# number: (script, folder in the run)
STEPS = {
    1: ("sample_features", "1_features"),
    2: ("train_cls", "2_cls"),
    3: ("train_seg", "3_seg"),
    4: ("evaluate", "4_eval"),
    5: ("visualize", "5_overlays"),
}
PROBE = "probe"  # a file that is written and removed, to see that it can be
PROGRESS = "progress.json"  # how far an unfinished step has come; see models.progress


class Settings(dict):
    """A part of a `config.json`; names the file when it is asked for a setting that is not there."""

    def __init__(self, path: Path, values: dict[str, Any]):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise RunError(f"{self.path}: does not say {name!r}; run that step again")


def step_folder(run: Path, step: int) -> Path:
    """The folder of a step."""
    return run / STEPS[step][1]


def prepare(run: Path, step: int, folder: Path | None = None) -> Path:
    """The step's folder, made, once it has been seen that files can be written there; nothing in it is touched.

    Args:
        folder: another one than the step's own in the run; so in `begin` and `finish`.

    Raises:
        OSError: they cannot.
    """
    folder = folder or step_folder(run, step)
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / PROBE):
            pass
        (folder / PROBE).unlink()
    return folder


def begin(run: Path, step: int, folder: Path | None = None) -> Path:
    """The step's folder, made and marked unfinished; call it just before the first file in it is replaced."""
    folder = folder or step_folder(run, step)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", PROGRESS):  # what is half replaced is neither finished nor to be gone on with
        (folder / name).unlink(missing_ok=True)
    for litter in folder.rglob(".*.part"):  # of a process that was killed while it wrote
        litter.unlink(missing_ok=True)
    return folder


def check_settings(saved: dict[str, Any], given: dict[str, Any], source: Path) -> None:
    """Refuses to resume with other settings.

    Raises:
        RunError: naming the first that differs, or that an earlier version did not know.
    """
    for name, value in given.items():
        if name not in saved:
            raise RunError(f"--resume: {source} does not say {name}, which an earlier version did not have; start over")
        if saved[name] != value:
            raise RunError(f"--resume: {source} was made with {name} {saved[name]}, not {value}; keep to that")


def settings(flags: dict[str, Any], free: Collection[str], **more: Any) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on from, as plain values.

    Args:
        flags: all flags of the script, by their name in Python.
        free: those that may change.
        more: what else matters.
    """
    kept = {f"--{name}".replace("_", "-"): value for name, value in flags.items() if name not in free}
    return json.loads(json.dumps({**kept, **more}, default=str))


def finish(
    run: Path, step: int, settings: dict[str, Any], wrote: str, then: Sequence[Any] = (), folder: Path | None = None
) -> None:
    """Marks a step finished: writes `config.json` with its settings and origins, then says what to do next.

    Args:
        wrote: what is in the folder now, in words.
        then: script and flags of the next command, if there is one.
    """
    folder = folder or step_folder(run, step)
    content = {"format": FORMAT, "step": STEPS[step][0], **settings, **origins(step)}
    save_json(folder / "config.json", content)
    print(f"wrote {folder}: {wrote}")
    if then:
        print(f"next: python {shlex.join(map(str, then))}")


def origins(step: int) -> dict[str, Any]:
    """Where the results of the step that runs come from: "command", as it was typed, and "versions" of the software."""
    return {
        "command": shlex.join(["python", f"{STEPS[step][0]}.py", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
            "commit": _commit(),
        },
    }


def finished(run: Path, step: int) -> dict[str, Any]:
    """The settings of a step that has finished (its `config.json` is written last).

    Raises:
        RunError: it has not, or its settings cannot be read or are from a newer version.
    """
    script, path = STEPS[step][0], step_folder(run, step) / "config.json"
    again = shlex.join(["python", f"{script}.py", "--run", str(run)])
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_hook=partial(Settings, path))
        newer = config["format"] > FORMAT
    except FileNotFoundError:
        raise RunError(f"{path.parent}: step {step} has not finished there; run it first: {again}") from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: cannot be read; run step {step} again: {again}") from None
    if newer:
        raise RunError(f"{path}: written by a newer version (format {config['format']}, this one reads {FORMAT})")
    return config


def trained_segmenter(run: Path, checkpoint: Path | None) -> tuple[Segmenter, Path]:
    """The network to use, on the CPU, and its file: `checkpoint`, else step 3's best, else step 2's.

    Raises:
        RunError: none of them is there, it cannot be read, or an earlier step has been run again since.
    """
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
    """Refuses to go on from `source` when step 1 of the run has since been made with another extractor or size.

    Raises:
        RunError: naming both.
    """
    folder = step_folder(run, 1)
    if not (folder / "config.json").is_file():
        return
    config = finished(run, 1)
    spec = segmenter.hypercolumn.spec()
    ours = _extractor({**spec, "fingerprint": segmenter.origin or spec["fingerprint"]}, segmenter.size)
    theirs = _extractor(config["hypercolumn"], config["size"])
    if ours != theirs:
        raise RunError(
            f"{source}: made with {ours}, but {folder} with {theirs}; run the later steps again, or use another --run"
        )


def check_start(run: Path, content: dict[str, Any], source: Path) -> None:
    """Refuses a checkpoint of step 3 that was trained from another head than step 2 has left since.

    Args:
        content: of the checkpoint in `source`; its "start" is the `fingerprint` of the head that it started from.

    Raises:
        RunError: it was.
    """
    folder = step_folder(run, 2)
    if (folder / "config.json").is_file() and content.get("start") != finished(run, 2)["head"]:
        raise RunError(
            f"{source}: trained from another head than {folder} holds now; run train_seg.py again, without --resume"
        )


def check_classes(trained: Sequence[str], given: Sequence[str], source: Path, data: Path) -> None:
    """Refuses a data set whose classes are not those that the network was trained on.

    Raises:
        RunError: naming the first difference.
    """
    if list(trained) == list(given):
        return
    pairs = zip_longest(trained, given, fillvalue="none")
    index, (ours, theirs) = next((index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1])
    raise RunError(
        f"{data}: class {index} is {theirs!r} there but {ours!r} in {source}; use the data it was trained on"
    )


def save_skipped(folder: Path, skipped: dict[str, str]) -> str:
    """Saves `skipped.txt`, a line `ID: why` for each image that was left out; the number in words for the last line."""
    path = folder / "skipped.txt"
    if not skipped:
        path.unlink(missing_ok=True)
        return ""
    with atomic_file(path) as file:
        file.write("".join(f"{image_id}: {why}\n" for image_id, why in skipped.items()).encode())
    return f"; skipped {len(skipped)} bad images, listed in {path}"


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Saves plain values as indented JSON; paths become strings, and nan, which JSON does not have, null."""
    content = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in content.items()}
    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=2, default=str, allow_nan=False) + "\n").encode())


def save_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Saves rows that share their keys as CSV with a header."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def _extractor(spec: dict[str, Any], size: int) -> str:
    taps, context = (",".join(map(str, spec.get(name, []))) or "none" for name in ("taps", "context"))
    context += f", {dilated} poolings dilated" if (dilated := spec.get("dilated")) else ""
    return f"{spec['backbone']} (taps {taps}, context {context}, weights {spec['fingerprint']}, size {size})"


def _commit() -> str | None:
    """The git commit of this program, with a '+' where files have changed since; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return found.stdout.strip() or None
