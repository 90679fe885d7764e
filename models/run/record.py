"""What a run has left, for the write-up as plain values: settings, logs, scores, the network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from losses.metrics import ConfusionMatrix, class_rows, image_rows, load_image_scores
from models.hypercolumn import level_names
from models.run import chain, folder
from models.run.folder import read, read_json, read_table
from models.segmenter import Segmenter


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
    pixels = [{"ground truth": n, **dict(zip(names, row))} for n, row in zip(names, matrix.counts)]
    folder.save_csv(place / "per_class.csv", class_rows(names, matrix.class_counts()))
    folder.save_csv(place / "per_image.csv", image_rows(names, ids, counts))
    folder.save_csv(place / "confusion.csv", pixels)
    np.savez_compressed(place / folder.PER_IMAGE, names=names, ids=ids, counts=counts)
    folder.save_chart(place / "iou.png", "iou_bars", names, ious, matrix.miou())
    folder.save_chart(place / "confusion.png", "confusion", matrix.counts, names)


def read_run(run: Path, segmenter: Segmenter) -> dict[str, Any]:
    """What the finished steps of a run have recorded, and the network that is used now.

    Returns:
        "run": the folder; "configs": {1 to 4: config.json, or None}, of steps that have made this
        network, and of step 4; "logs": {2, 3: rows of log.csv}; "metrics": 4_eval/metrics.json, or
        None; "confusion": (C, C) int64 pixels, rows the ground truth, or None; "images": see
        `losses.metrics.image_rows`, or None; "scores_are_old": whether step 4 has scored another
        network than the run has now; "network": see `network_facts`; "versions": of the software
        of the last of the steps.

    Raises:
        UserError: a file of a finished step is missing or damaged.
    """
    configs: dict[int, dict[str, Any] | None] = dict.fromkeys((1, 2, 3, 4))
    place = run
    for step in (4, 3, 2, 1):
        if not chain.is_finished(place, step):
            continue
        config = chain.finished(place, step)
        if step == 4 or config["settings"] == segmenter.history.get(folder.STEPS[step][0]):
            configs[step] = config
            place = Path(config.get("features") or run)  # step 1's run, if step 2 names one
    logs = {step: folder.step_folder(run, step) / "log.csv" for step in (2, 3) if configs[step]}
    record: dict[str, Any] = dict.fromkeys(("metrics", "confusion", "images"))
    record["scores_are_old"] = False
    if configs[4]:
        scores = folder.step_folder(run, 4)
        record["metrics"] = read(read_json, scores / "metrics.json")
        record["confusion"] = read(read_confusion, scores / "confusion.csv")
        record["images"] = image_rows(*load_image_scores(scores / folder.PER_IMAGE))
        record["scores_are_old"] = configs[4]["made_from"] != segmenter.identity()
    last = [config for config in configs.values() if config][-1:]
    return record | {
        "run": str(run),
        "configs": configs,
        "logs": {step: read(read_log, path) for step, path in logs.items() if path.is_file()},
        "network": network_facts(segmenter),
        "versions": last[0]["versions"] if last else folder.versions(),
    }


def read_log(path: Path) -> list[dict[str, float | None]]:
    """The rows, one at least."""
    first, *others = read_table(path)
    return [
        {name: float(value) if value else None for name, value in row.items()}
        for row in (first, *others)
    ]


def read_confusion(path: Path) -> np.ndarray:
    """(C, C) int64."""
    first, *others = ([*row.values()][1:] for row in read_table(path))
    return np.array([first, *others]).astype(np.int64)


def network_facts(segmenter: Segmenter) -> dict[str, Any]:
    """What `data.figures.architecture.draw_architecture` shows, read off the modules."""
    hypercolumn, head, size = segmenter.hypercolumn, segmenter.head, segmenter.size

    def parameters(module: nn.Module) -> str:
        return f"{sum(parameter.numel() for parameter in module.parameters()):,} parameters"

    layers = [
        f"1×1 convolution {layer.in_channels} → {layer.out_channels}\n{parameters(layer)}"
        for layer in head.layers
    ]
    standardise = "standardise\n(x − mean) / std"
    decide = "class map\nthe most probable class, at the size of the photo"
    names = level_names(hypercolumn.taps, hypercolumn.context)
    state = "fine-tuned" if segmenter.origin else "frozen"
    return {
        "backbone": f"{hypercolumn.backbone}, {state}, {parameters(hypercolumn)}",
        "classifier": f"classifier, {parameters(head)}",
        "size": size,
        "levels": list(zip(names, hypercolumn.level_shapes(size, size))),
        "head": [standardise, *layers, decide],
    }
