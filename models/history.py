"""What the finished steps of a run have recorded, read back as plain values: for a write-up."""

import csv
import json
import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from models import RunError
from models.hypercolumn import level_names
from models.run_folder import STEPS, finished, origins, step_folder

RECORDED = (1, 2, 3, 4)
NO_FLAGS = {  # in a config.json, but no setting; or said elsewhere
    "format", "step", "run", "resume", "command", "versions", "hypercolumn", "channels", "classes", "colours",
    "rows_per_class", "quiet", "strict",
}  # fmt: skip


def read_history(run: Path) -> dict[str, Any]:
    """All that the steps 1 to 4 of a run have recorded, and the origins of step 5, which runs now.

    A step that has not been run to its end is None wherever its results would be. In the dicts "of each step" the keys
    are the scripts' names ("sample_features", ..) in their order.

    Returns:
        "run": the folder, as a string.
        "facts": {what: a line of text}, the run in short.
        "settings": of each step 1 to 4, {flag or result: its value as text}, without flags that are off.
        "sampling": of step 1, {"names" of the C classes, "counts" of sampled pixels of each, "levels" and "channels" of
            the hypercolumn, "mean" and "std" (Z,) float32 of the features}.
        "logs": of steps 2 and 3, [{"epoch" and scores: float, None where there is none}].
        "metrics": of step 4, {"miou", "pixel_accuracy", "mean_accuracy", "fw_iou": 0..1, "per_class": {name: IoU or
            None}, "images", "classes_in_mean", "protocol", "scored": the file or folder}.
        "confusion": of step 4, (C, C) int64 pixels, rows the ground truth; None also where an earlier version scored.
        "commands": of each step 1 to 5, [word]; none where an earlier version ran.
        "versions": of each step 1 to 5, {software: version}.

    Raises:
        RunError: a file of a finished step is missing or damaged.
    """
    configs = {
        step: finished(run, step) if (step_folder(run, step) / "config.json").is_file() else None for step in RECORDED
    }
    sampling = _sampling(run, configs[1]) if configs[1] else None
    logs = {STEPS[step][0]: _log(run, step) if configs[step] else None for step in (2, 3)}
    metrics = _metrics(run) if configs[4] else None
    now = origins(5)
    return {
        "run": str(run),
        "facts": _facts(run, configs, sampling, metrics),
        "settings": {STEPS[step][0]: config and _settings(config) for step, config in configs.items()},
        "sampling": sampling,
        "logs": logs,
        "metrics": metrics,
        "confusion": _confusion(run, list(metrics["per_class"])) if metrics else None,
        "commands": {STEPS[step][0]: config and _command(run, step, config) for step, config in configs.items()}
        | {STEPS[5][0]: shlex.split(now["command"])},
        "versions": {STEPS[step][0]: config and _versions(run, step, config) for step, config in configs.items()}
        | {STEPS[5][0]: {name: str(version) for name, version in now["versions"].items()}},
    }


def _facts(run: Path, configs: dict[int, Any], sampling: dict | None, metrics: dict | None) -> dict[str, str]:
    """The run in short: a line for each step."""
    facts = {f"step {step}": f"{STEPS[step][0]}.py has not been run to its end" for step in RECORDED}
    if configs[1]:
        with _readable(run, 1, "config.json"):
            config, spec = configs[1], configs[1]["hypercolumn"]
            facts["step 1"] = (
                f"{config['rows']:,} pixels of {len(sampling['names'])} classes from {config['images']:,} images of "
                f"{config['split']}; {spec['backbone']}, {len(sampling['levels'])} levels, "
                f"Z = {sum(sampling['channels'])}"
            )
    if configs[2]:
        with _readable(run, 2, "config.json"):
            config = configs[2]
            facts["step 2"] = f"{_epochs(config)} on {config['rows']:,} pixels, hidden width {config['hidden']}"
            if config["val_accuracy"] is not None:
                facts["step 2"] += (
                    f"; accuracy on {config['held_out_rows']:,} held-out pixels {config['val_accuracy']:.3f}"
                )
    if configs[3]:
        with _readable(run, 3, "config.json"):
            config = configs[3]
            facts["step 3"] = (
                f"{_epochs(config)} on whole images of {config['split']}; "
                f"best epoch {config['best_epoch']}, validation mIoU {config['val_miou']:.3f}"
            )
    if metrics:
        facts["step 4"] = (
            f"mIoU {metrics['miou']:.3f} over {metrics['classes_in_mean']} classes, {metrics['images']:,} images"
        )
    return facts


def _epochs(config: dict[str, Any]) -> str:
    return f"{config['epochs']} epoch" + "s" * (config["epochs"] != 1)


def _settings(config: dict[str, Any]) -> dict[str, str]:
    return {
        name.replace("_", "-"): _views(*value) if name == "tta" else _in_words(value)
        for name, value in config.items()
        if name not in NO_FLAGS and value is not None and value is not False and value != []
    }


def _views(scales: list[float], flip: bool) -> str:
    """As `--tta` takes them."""
    return ",".join(["flip"] * flip + [f"{scale:g}" for scale in scales])


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_in_words, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _command(run: Path, step: int, config: dict[str, Any]) -> list[str]:
    with _readable(run, step, "config.json"):
        return shlex.split(config.get("command", ""))


def _versions(run: Path, step: int, config: dict[str, Any]) -> dict[str, str]:
    with _readable(run, step, "config.json"):
        return {name: str(version) for name, version in config["versions"].items()}


def _sampling(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    with _readable(run, 1, "config.json"):
        names, counts, channels = config["classes"], config["rows_per_class"], config["channels"]
        spec = config["hypercolumn"]
        levels = level_names(spec["taps"], spec.get("context", []))
        if not len(names) == len(counts) > 0 or not len(levels) == len(channels) > 0:
            raise ValueError("lists that do not belong together")
        sampling = {"names": list(map(str, names)), "counts": list(map(int, counts))}
        sampling |= {"levels": levels, "channels": list(map(int, channels))}
    for name in ("mean", "std"):
        with _readable(run, 1, f"{name}.npy") as path:
            sampling[name] = np.load(path, allow_pickle=False)
            if sampling[name].shape != (sum(channels),) or not np.isfinite(sampling[name]).all():
                raise ValueError("not the moments of these channels")
    return sampling


def _log(run: Path, step: int) -> list[dict[str, float | None]]:
    with _readable(run, step, "log.csv") as path, open(path, encoding="utf-8", newline="") as file:
        rows = [
            {name: float(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file, strict=True)
        ]
        if not rows or not all(math.isfinite(row["epoch"]) for row in rows):
            raise ValueError("no epoch")
        return rows


def _metrics(run: Path) -> dict[str, Any]:
    with _readable(run, 4, "metrics.json") as path:
        found = json.loads(path.read_text(encoding="utf-8"))
        metrics = {name: float(found[name]) for name in ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou")}
        metrics |= {name: int(found[name]) for name in ("images", "classes_in_mean")}
        scored = found["checkpoint"] or found["predictions"]  # of a network, or of files that any program made
        metrics |= {"protocol": str(found["protocol"]), "scored": str(scored)}
        metrics["per_class"] = {name: None if iou is None else float(iou) for name, iou in found["per_class"].items()}
        ious = [iou for iou in metrics["per_class"].values() if iou is not None]
        if not ious or not all(0 <= score <= 1 for score in [metrics["miou"], metrics["pixel_accuracy"], *ious]):
            raise ValueError("not scores from 0 to 1")
        return metrics


def _confusion(run: Path, names: list[str]) -> np.ndarray | None:
    if not (step_folder(run, 4) / "confusion.csv").is_file():  # which older versions did not write
        return None
    with _readable(run, 4, "confusion.csv") as path, open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
        if header[1:] != names or [row[0] for row in rows] != names:
            raise ValueError("other classes than in metrics.json")
        counts = np.array([[int(count) for count in row[1:]] for row in rows], dtype=np.int64)
        if counts.shape != (len(names), len(names)) or (counts < 0).any():
            raise ValueError("no square of pixel counts")
        return counts


@contextmanager
def _readable(run: Path, step: int, name: str) -> Iterator[Path]:
    """The path of a file of a step; whatever is wrong with what it holds becomes one clear error."""
    script, path = STEPS[step][0], step_folder(run, step) / name
    again = f"run step {step} again: {shlex.join(['python', f'{script}.py', '--run', str(run)])}"
    try:
        yield path
    except (RunError, PermissionError):
        raise
    except FileNotFoundError:
        raise RunError(f"{path}: no such file, though step {step} has finished; {again}") from None
    except Exception:  # damaged files fail in many ways; all mean the same to the user
        raise RunError(f"{path}: cannot be read; {again}") from None
