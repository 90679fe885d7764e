"""What a run has left, as plain values for the write-up: settings, logs, scores, the network."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from models.hypercolumn import level_names
from models.run import chain, folder
from models.segmenter import Segmenter


def read_run(run: Path, segmenter: Segmenter) -> dict[str, Any]:
    """What the finished steps of a run have recorded, and the network that is used now.

    Returns:
        "run": the folder; "configs": {1 to 4: config.json, None where the step has not finished};
        "logs": {2, 3: rows of log.csv, or None}; "metrics": 4_eval/metrics.json, or None;
        "confusion": (C, C) int64 pixels, rows the ground truth, or None; "moments": (mean, std) of
        the features, (Z,) float32 each, or None; "scores_are_old": whether step 4 has scored
        another network than the run has now; "network": see `network_facts`; "versions": of the
        software.
    """
    done = {step: chain.is_finished(run, step) for step in (1, 2, 3, 4)}
    one, four = folder.step_folder(run, 1), folder.step_folder(run, 4)
    return {
        "run": str(run),
        "configs": {step: chain.finished(run, step) if done[step] else None for step in done},
        "logs": {step: read_log(run, step) if done[step] else None for step in (2, 3)},
        "metrics": json.loads((four / "metrics.json").read_text("utf-8")) if done[4] else None,
        "confusion": read_confusion(four / "confusion.csv") if done[4] else None,
        "moments": (np.load(one / "mean.npy"), np.load(one / "std.npy")) if done[1] else None,
        "scores_are_old": done[4] and chain.scored_another_network(run),
        "network": network_facts(segmenter),
        "versions": folder.versions(),
    }


def read_log(run: Path, step: int) -> list[dict[str, float | None]]:
    with open(folder.step_folder(run, step) / "log.csv", encoding="utf-8", newline="") as file:
        return [
            {name: float(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def read_confusion(path: Path) -> np.ndarray:
    with open(path, encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return np.array([row[1:] for row in rows]).astype(np.int64)


def network_facts(segmenter: Segmenter) -> dict[str, Any]:
    """What `data.figures.architecture.draw_architecture` shows, read off the modules."""
    hypercolumn, head, size = segmenter.hypercolumn, segmenter.head, segmenter.size
    boxes = [("standardise", "(x − mean) / std of the sampled features")]
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
