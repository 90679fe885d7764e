"""The write-up of a run as pages, from plain values: settings, network, data, training, results."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from data.figures import charts
from data.figures.architecture import draw_architecture
from data.figures.charts import GREY, INK, short

TITLE = "Semantic segmentation with hypercolumns"
A4 = 11.69, 8.27  # inches, landscape
SCRIPTS = {1: "sample_features", 2: "train_cls", 3: "train_seg", 4: "evaluate"}
SCORES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
SCORES |= {"mean_accuracy": "mean accuracy", "fw_iou": "fw-IoU"}
KINDS = {
    "best": "best: the highest mIoU",
    "typical": "typical: mIoU near the median",
    "worst": "worst: the lowest mIoU",
}
LINE, MOST = 150, 6  # letters of a line of small print across the page; lines of a text
MISTAKES = 18  # pairs of classes beside the confusion matrix
PICTURE = 2200  # pixels of the longer side of a picture, at most
WARNING = "#d55e00"
Config = Mapping[str, Any] | None


def report_pages(
    record: Mapping[str, Any], shown: str, pictures: Sequence[tuple[str, Image.Image]]
) -> list[Figure]:
    """The pages of the write-up, A4 landscape, to be saved with `save_pages`.

    What a step that has not been run to its end would have left is None, and the page says so.

    Args:
        record: "run": its name; "configs": {1..4: settings and results of the step}; "logs": {2, 3:
            a dict an epoch, with "epoch" and scores}; "metrics" of step 4; "confusion": (C, C)
            pixels, rows the ground truth; "moments": mean and std (Z,) of the features; "versions"
            and "command" of the step that runs now; "scores_are_old": whether step 4 has scored
            another network than the run has now; "network": see `draw_architecture`.
        shown: which pictures have been drawn, and by which network, in words.
        pictures: the kind of each ("best", "typical", "worst" or ""), and the picture.
    """
    configs, metrics = record["configs"], record["metrics"]
    architecture = _page("Architecture")
    draw_architecture(architecture.subplots(), record["network"])
    pages = [
        _summary_page(record),
        architecture,
        *_data_pages(configs[1], record["moments"]),
        _training_page(record["logs"]),
        _results_page(metrics),
    ]
    if metrics and record["confusion"] is not None:
        pages.append(_confusion_page(list(metrics["per_class"]), record["confusion"]))
    pages += [_pictures_page(shown, pictures[i : i + 2]) for i in range(0, len(pictures), 2)]
    pages.append(_origins_page(configs, record["command"], record["versions"]))
    for number, page in enumerate(pages, start=1):
        words = f"{short(record['run'], 90)} · page {number} of {len(pages)}"
        page.supxlabel(words, x=0.98, ha="right", fontsize=8, color=GREY, parse_math=False)
    return pages


def save_pages(file: BinaryIO, pages: Sequence[Figure]) -> None:
    """Writes the pages as PDF."""
    with PdfPages(file, metadata={"Title": TITLE, "CreationDate": None}) as document:
        for page in pages:
            document.savefig(page)


def choose(mious: Mapping[str, float | None]) -> dict[str, list[str]]:
    """The pictures worth showing, by kind: "best", "typical" (around the median) and "worst".

    There are two of each kind from six scores on. Of no kind, "", are a picture that alone has a
    score, and the first six where none has.

    Args:
        mious: of each picture, by its name; None where it has no ground truth.
    """
    scored = [name for name, miou in mious.items() if miou is not None]
    ranked = sorted(scored, key=lambda name: -mious[name])
    if len(ranked) < 2:
        return {"": ranked or list(mious)[:6]}
    each = 2 if len(ranked) >= 6 else 1
    middle = (len(ranked) - each) // 2
    found = {"best": ranked[:each], "typical": ranked[middle : middle + each]}
    found |= {"worst": ranked[-each:]}
    return found if len(ranked) > 2 else {"best": ranked[:1], "worst": ranked[1:]}


def _summary_page(record: Mapping[str, Any]) -> Figure:
    page, configs, metrics = _page(TITLE), record["configs"], record["metrics"]
    top, *rows = page.subplots(5, 1, height_ratios=[1.1, 1, 1, 1, 1])
    _text(top, short(record["run"], 90), [])
    for column, (key, label) in enumerate(SCORES.items()):
        value = f"{metrics[key]:.3f}" if metrics else "–"
        top.text(column / 4, 0.4, value, fontsize=24, transform=top.transAxes)
        top.text(column / 4, 0.15, label, fontsize=9, color=GREY, transform=top.transAxes)
    if record["scores_are_old"]:
        warning = "These scores are of an earlier network: run evaluate.py again."
        top.set_title(warning, loc="right", fontsize=11, weight="bold", color=WARNING)
    for axes, (step, script) in zip(rows, SCRIPTS.items()):
        config = configs[step]
        if config is None:
            _text(axes, f"{step}  {script}", [_not_run(step)])
            continue
        flags = "  ".join(_flag(*pair) for pair in config["changed"].items())
        lines = [short(_fact(step, config, metrics), LINE)]
        lines += _wrapped(flags or "(all flags have their defaults)", 4)
        took = f"{timedelta(seconds=round(config['seconds']))} (h:mm:ss)"
        _text(axes, f"{step}  {script}", lines, took)
    return page


def _fact(step: int, config: Mapping[str, Any], metrics: Config) -> str:
    """What a step that has finished did, in a line."""
    if step == 1:
        spec, channels = config["hypercolumn"], config["channels"]
        return (
            f"{config['rows']:,} pixels of {len(config['classes'])} classes from "
            f"{config['images']:,} images of {config['split']}; "
            f"{spec['backbone']}, {len(channels)} levels, Z = {sum(channels)}"
        )
    if step == 2:
        fact = f"{_epochs(config['epochs'])} on {config['rows']:,} pixels"
        accuracy = config["scores"]["val_accuracy"]
        if accuracy is not None:
            fact += f"; accuracy on {config['held_out_rows']:,} held-out pixels {accuracy:.3f}"
        return fact
    if step == 3:
        fact = (
            f"{_epochs(config['epochs'])} on images of {config['split']}; "
            f"best epoch {config['best_epoch']}, validation mIoU {config['val_miou']:.3f}"
        )
        if config["val_images_trained_on"]:
            fact += f"; {config['val_images_trained_on']} validation images are also trained on"
        return fact
    return (
        f"mIoU {metrics['miou']:.3f} over {metrics['classes_in_mean']} classes, "
        f"{metrics['images']:,} images; {metrics['checkpoint'] or metrics['predictions']}"
    )


def _data_pages(config: Config, moments: tuple[np.ndarray, np.ndarray] | None) -> list[Figure]:
    data, features = _page("Data and sampling"), _page("Features")
    if config is None or moments is None:
        _text(data.subplots(), _not_run(1), [])
        return [data]
    counts, channels, spec = config["rows_per_class"], config["channels"], config["hypercolumn"]
    part = charts.class_counts(config["classes"], counts, data.subfigures(1, 1))
    part.suptitle(f"Sampled pixels of each class: {sum(counts):,} in all", fontsize=11)
    levels, part = [*spec["taps"], *spec["context"]], features.subfigures(1, 1)
    mean, std = moments
    charts.moments(levels, channels, mean, std, part)
    part.suptitle(f"The {sum(channels):,} channels of the sampled pixels", fontsize=11)
    return [data, features]


def _training_page(logs: Mapping[int, Sequence[Mapping[str, Any]] | None]) -> Figure:
    page = _page("Training")
    for part, step in zip(page.subfigures(2, 1), (2, 3)):
        rows = logs[step]
        if rows is None:
            _text(part.subplots(), _not_run(step), [])
        else:
            epochs = _epochs(sum(row["epoch"] > 0 for row in rows))
            charts.curve(rows, f"{SCRIPTS[step]}: {epochs}", part)
    return page


def _results_page(metrics: Config) -> Figure:
    page = _page("Results")
    if metrics is None:
        _text(page.subplots(), _not_run(4), [])
        return page
    scored = metrics["checkpoint"] or metrics["predictions"]
    upper, lower = page.subfigures(2, 1, height_ratios=[1, 7])
    lines = _wrapped(f"{metrics['protocol']}. Scored: {scored}", 4)
    _text(upper.subplots(), "Protocol", lines)
    per_class = metrics["per_class"]
    charts.iou_bars(list(per_class), list(per_class.values()), metrics["miou"], lower)
    return page


def _confusion_page(names: Sequence[str], confusion: np.ndarray) -> Figure:
    page = _page("Confusion matrix")
    left, right = page.subfigures(1, 2, width_ratios=[0.7, 0.3])
    charts.confusion(confusion, names, left)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    lines = ["Share of the pixels of the first class", "that were predicted as the second.", ""]
    for place in np.argsort(-shares, axis=None, kind="stable")[:MISTAKES]:
        truth, guess = np.unravel_index(place, shares.shape)
        if shares[truth, guess] > 0:
            pair = f"{short(names[truth], 16)} → {short(names[guess], 16)}"
            lines += [f"{shares[truth, guess]:4.0%}  {pair}"]
    _text(right.subplots(), "Most frequent mistakes", lines)
    return page


def _pictures_page(shown: str, pictures: Sequence[tuple[str, Image.Image]]) -> Figure:
    page = _page("Predictions")
    note, *rows = page.subplots(3, 1, height_ratios=[0.04, 1, 1])
    _text(note, "", [short(shown, LINE)])
    for axes in rows:
        axes.axis("off")
        axes.set_anchor("NW")
    for axes, (kind, picture) in zip(rows, pictures):
        pixels = picture.convert("RGB")
        pixels.thumbnail((PICTURE, PICTURE), Image.LANCZOS)
        axes.imshow(pixels, interpolation="none")
        axes.set_title(KINDS.get(kind, kind), loc="left", fontsize=10, weight="bold")
    return page


def _origins_page(
    configs: Mapping[int, Config], command: str, versions: Mapping[str, str]
) -> Figure:
    page = _page("Commands and versions")
    steps = {script: configs[step] for step, script in SCRIPTS.items()}
    steps["visualize"] = {"command": command, "versions": versions}
    for axes, (script, config) in zip(page.subplots(5, 1), steps.items()):
        if config is None:
            _text(axes, script, [f"{script}.py has not been run to its end"])
            continue
        words = " ".join(map(shlex.quote, shlex.split(config["command"])))
        found = "  ".join(f"{name} {version}" for name, version in config["versions"].items())
        _text(axes, script, [*_wrapped(words, MOST, " \\"), short(found, LINE)])
    return page


def _flag(name: str, value: Any) -> str:
    """A flag as one would type it, on one line."""
    values = value if isinstance(value, list) else [value]
    return name if value is True else f"{name}\xa0{','.join(map(str, values))}"


def _wrapped(text: str, most: int, end: str = "") -> list[str]:
    """The text on at most `most` lines across the page; `end` joins a line to the next."""
    lines = textwrap.wrap(text, LINE - len(end), break_on_hyphens=False)
    lines = [line.replace("\xa0", " ") for line in lines]
    lines = [line + end for line in lines[:-1]] + lines[-1:]
    return lines if len(lines) <= most else [*lines[: most - 1], "… and so on"]


def _not_run(step: int) -> str:
    return f"{SCRIPTS[step]}.py has not been run to its end, so there is nothing to show here."


def _epochs(number: int) -> str:
    return f"{number} epoch" + "s" * (number != 1)


def _page(title: str) -> Figure:
    """An empty page with a title, laid out by matplotlib."""
    page = Figure(figsize=A4, layout="constrained")
    page.get_layout_engine().set(w_pad=0.25, h_pad=0.15)
    page.suptitle(title, x=0.02, ha="left", fontsize=18, weight="bold", color=INK)
    return page


def _text(axes: Axes, heading: str, lines: Sequence[str], right: str = "") -> None:
    """Small print below a heading, which may have a few words at its right end."""
    axes.axis("off")
    axes.set_title(heading, loc="left", fontsize=11, weight="bold", parse_math=False)
    axes.set_title(right, loc="right", fontsize=9, color=GREY)
    look = {"family": "monospace", "fontsize": 8, "color": GREY, "parse_math": False}
    text = axes.text(0, 1, "\n".join(lines), va="top", transform=axes.transAxes, **look)
    text.set_in_layout(False)
