"""What a run has left, for the write-up as plain values: settings, logs, scores, the network."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from data import UserError
from losses.metrics import (
    ConfusionMatrix,
    class_rows,
    image_rows,
    load_image_scores,
    save_image_scores,
)
from models.hypercolumn import level_names
from models.run import chain, folder
from models.run.training import GAMMAS, MILESTONES
from models.segmenter import Segmenter

# Flags that have no effect without a value of another: --optimizer, --decay, --finetune-backbone.
NEEDS: dict[str, str | bool]
NEEDS = {"--momentum": "sgd", "--nesterov": "sgd", "--milestones": "step"}
NEEDS |= {"--backbone-lr": True, "--frozen-stages": True}


def save_scores(
    place: Path,
    matrix: ConfusionMatrix,
    counts: np.ndarray,
    ids: Sequence[str],
    names: Sequence[str],
    facts: Mapping[str, Any],
) -> None:
    """Writes all that step 4 keeps of a score; `counts` are the (N, C, 3) pixels of each image."""
    ious = matrix.iou().tolist()
    metrics: dict[str, Any] = {**matrix.scores(), "classes_in_mean": matrix.classes_in_mean()}
    metrics |= {"images": len(ids), "per_class": dict(zip(names, ious)), **facts}
    folder.save_json(place / "metrics.json", metrics)
    of_classes = class_rows(names, matrix.class_counts())
    folder.save_csv(place / "per_class.csv", folder.plain(of_classes))
    of_images = image_rows(names, ids, counts)
    folder.save_csv(place / "per_image.csv", folder.plain(of_images))
    pixels = [{"ground truth": n, **dict(zip(names, row))} for n, row in zip(names, matrix.counts)]
    folder.save_csv(place / "confusion.csv", pixels)
    with open(place / folder.PER_IMAGE, "wb") as file:
        save_image_scores(file, names, ids, counts)
    folder.save_chart(place / "iou.png", "iou_bars", names, ious, matrix.miou())
    folder.save_chart(place / "confusion.png", "confusion", matrix.counts, names)


def read_run(run: Path, segmenter: Segmenter) -> dict[str, Any]:
    """What the finished steps of a run have recorded, and the network that is used now.

    Returns:
        "run": the folder; "configs": {1 to 4: config.json, None where the step has not finished};
        "settings": {1 to 4: see `settings`}, of those that have; "logs": {2, 3: rows of log.csv, or
        None}; "metrics": 4_eval/metrics.json, or None; "confusion": (C, C) int64 pixels, rows the
        ground truth, or None; "images": see `losses.metrics.image_rows`, or None; "scores_are_old":
        whether step 4 has scored another network than the run has now; "network": see
        `network_facts`; "versions": of the software.

    Raises:
        UserError: a file of a finished step is missing or damaged.
    """
    done = {step: chain.is_finished(run, step) for step in (1, 2, 3, 4)}
    four = folder.step_folder(run, 4)
    logs = {step: folder.step_folder(run, step) / "log.csv" for step in (2, 3)}
    confusion, images = four / "confusion.csv", four / folder.PER_IMAGE
    configs = {step: chain.finished(run, step) if done[step] else None for step in done}
    return {
        "run": str(run),
        "configs": configs,
        "settings": {step: settings(config) for step, config in configs.items() if config},
        "logs": {step: read(read_log, logs[step]) if done[step] else None for step in logs},
        "metrics": read(read_json, four / "metrics.json") if done[4] else None,
        "confusion": read(read_confusion, confusion) if done[4] else None,
        "images": image_rows(*load_image_scores(images)) if done[4] else None,
        "scores_are_old": done[4] and chain.scored_another_network(run),
        "network": network_facts(segmenter),
        "versions": folder.versions(),
    }


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a step, defaults too, that had an effect on its result, from its config.json."""
    given = dict(config["settings"])
    if extractor := config.get("hypercolumn"):  # of step 1, where a default means several
        given |= {"--taps": extractor["taps"], "--weights": config["weights"]}
    decay = given.get("--decay")
    if decay in GAMMAS and given["--gamma"] is None:
        given["--gamma"] = GAMMAS[decay]
    if decay == "step" and not given["--milestones"]:
        given["--milestones"] = [share * config["epochs"] for share in MILESTONES]
    on = given.get("--optimizer"), decay, given.get("--finetune-backbone")
    return {
        flag: value
        for flag, value in given.items()
        if value is not None and (flag not in NEEDS or NEEDS[flag] in on)
    }


def read(reader: Callable[[Path], Any], path: Path) -> Any:
    """What the reader finds in a file of the run; a UserError if it is damaged."""
    try:
        return reader(path)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run its step again") from None


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a header."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_log(path: Path) -> list[dict[str, float | None]]:
    """The rows, one at least."""
    first, *others = read_table(path)
    return [
        {name: float(value) if value else None for name, value in row.items()}
        for row in (first, *others)
    ]


def read_confusion(path: Path) -> np.ndarray:
    with open(path, encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return np.array([row[1:] for row in rows]).astype(np.int64)


def network_facts(segmenter: Segmenter) -> dict[str, Any]:
    """What `data.figures.architecture.draw_architecture` shows, read off the modules."""
    hypercolumn, head, size = segmenter.hypercolumn, segmenter.head, segmenter.size
    boxes = [("standardise", "(x − mean) / std")]
    for layer in head.layers:
        title = f"1×1 convolution {layer.in_channels} → {layer.out_channels}"
        boxes.append((title, f"{_parameters(layer):,} parameters"))
    boxes.append(("class map", "the most probable class, at the size of the photo"))
    state = "fine-tuned" if segmenter.origin else "frozen"
    names = level_names(hypercolumn.taps, hypercolumn.context)
    return {
        "backbone": f"{hypercolumn.backbone}, {state}, {_parameters(hypercolumn):,} parameters",
        "classifier": f"classifier, {_parameters(head):,} parameters",
        "size": size,
        "levels": list(zip(names, hypercolumn.level_shapes(size, size))),
        "head": boxes,
    }


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
