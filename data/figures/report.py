"""The write-up of a run as pages, from plain values: settings, network, data, training, results."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from data.figures import charts
from data.figures.architecture import draw_architecture
from data.figures.charts import COLOURS, GREY, INK, short
from models.run.runtime import as_typed

TITLE = "Semantic segmentation with hypercolumns"
A4 = 11.69, 8.27  # inches, landscape
SCRIPTS = {1: "sample_features", 2: "train_cls", 3: "train_seg", 4: "evaluate"}
FACTS = {  # of config.json and metrics.json, as far as they are there
    1: ("split", "images", "rows"),
    2: ("epochs", "rows", "held_out_rows", "val_accuracy"),
    3: ("split", "epochs", "best_epoch", "val_miou", "val_images_trained_on"),
    4: ("checkpoint", "predictions", "protocol"),
}
SCORES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
SCORES |= {"mean_accuracy": "mean accuracy", "fw_iou": "fw-IoU"}
LINE = 150  # letters of a line of small print across the page
PICTURE = 2200  # pixels of the longer side of a picture, at most


def report_pages(
    record: Mapping[str, Any], shown: str, pictures: Sequence[tuple[str, Image.Image]]
) -> list[Figure]:
    """The pages of the write-up, A4 landscape, to be saved with `save_pages`.

    What a step has not left, since it was not run to its end, is None, and has no page.

    Args:
        record: "run": its name; "configs": {1..4: settings and results of the step}; "logs": {2, 3:
            a dict an epoch, with "epoch" and scores}; "metrics" of step 4; "confusion": (C, C)
            pixels, rows the ground truth; "moments": mean and std (Z,) of the features;
            "versions" of the software; "scores_are_old": whether step 4 has scored another network
            than the run has now; "network": see `draw_architecture`.
        shown: which pictures have been drawn, in words.
        pictures: what each is an example of, and the picture.
    """
    configs, metrics = record["configs"], record["metrics"]
    pages = [_summary_page(record), _page("Architecture")]
    draw_architecture(pages[-1].subplots(), record["network"])
    if config := configs[1]:
        counts, spec = config["rows_per_class"], config["hypercolumn"]
        pages += [_page(f"Sampled pixels: {sum(counts):,} in all"), _page("Features")]
        charts.class_counts(config["classes"], counts, pages[-2].subfigures())
        (mean, std), levels = record["moments"], [*spec["taps"], *spec["context"]]
        charts.moments(levels, config["channels"], mean, std, pages[-1].subfigures())
    if logs := {step: rows for step, rows in record["logs"].items() if rows}:
        pages.append(_page("Training"))
        parts = pages[-1].subfigures(len(logs), 1, squeeze=False)[:, 0]
        for part, (step, rows) in zip(parts, logs.items()):
            charts.curve(rows, SCRIPTS[step], part)
    if metrics:
        names, ious = zip(*metrics["per_class"].items())
        pages += [_page("Results"), _page("Confusion matrix")]
        charts.iou_bars(names, ious, metrics["miou"], pages[-2].subfigures())
        charts.confusion(record["confusion"], names, pages[-1].subfigures())
    pages += [_pictures_page(shown, pictures[i : i + 2]) for i in range(0, len(pictures), 2)]
    for number, page in enumerate(pages, start=1):
        words = f"{short(record['run'], 90)} · page {number} of {len(pages)}"
        page.supxlabel(words, x=0.98, ha="right", fontsize=8, color=GREY, parse_math=False)
    return pages


def save_pages(path: Path, pages: Sequence[Figure]) -> None:
    """Writes the pages as PDF."""
    with PdfPages(path, metadata={"Title": TITLE, "CreationDate": None}) as document:
        for page in pages:
            document.savefig(page)


def choose(mious: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """The pictures worth showing: what each is an example of, and its name.

    Two of the best, around the median and of the worst; all, the best first, where fewer than six
    have a score; none where none has.

    Args:
        mious: of each picture, by its name; None where nothing in it is scored.
    """
    scored = [name for name, miou in mious.items() if miou is not None]
    ranked = sorted(scored, key=lambda name: -mious[name])
    if len(ranked) < 6:
        return [("by mIoU", name) for name in ranked]
    middle = len(ranked) // 2 - 1
    kinds = {
        "best: the highest mIoU": ranked[:2],
        "typical: mIoU near the median": ranked[middle : middle + 2],
        "worst: the lowest mIoU": ranked[-2:],
    }
    return [(kind, name) for kind, names in kinds.items() for name in names]


def _summary_page(record: Mapping[str, Any]) -> Figure:
    page, metrics = _page(TITLE), record["metrics"]
    top, *rows, last = page.subplots(6, 1, height_ratios=[1.1, 1, 1, 1, 1, 0.3])
    _text(top, short(record["run"], 90), [])
    for column, (key, label) in enumerate(SCORES.items()):
        value = f"{metrics[key]:.3f}" if metrics else "–"
        top.text(column / 4, 0.4, value, fontsize=24, transform=top.transAxes)
        top.text(column / 4, 0.15, label, fontsize=9, color=GREY, transform=top.transAxes)
    if record["scores_are_old"]:
        warning = "These scores are of an earlier network: run evaluate.py again."
        top.set_title(warning, loc="right", fontsize=11, weight="bold", color=COLOURS[1])
    for axes, (step, script) in zip(rows, SCRIPTS.items()):
        config = record["configs"][step]
        if config is None:
            _text(axes, f"{step}  {script}.py", ["has not been run to its end"])
            continue
        took = f"{timedelta(seconds=round(config['seconds']))} (h:mm:ss)"
        known = {**config, **config["scores"], **((metrics or {}) if step == 4 else {})}
        facts = ", ".join(_fact(name, known[name]) for name in FACTS[step] if known.get(name))
        lines = [*_wrapped(facts, 3), *_wrapped(as_typed(config["changed"]), 5)]
        _text(axes, f"{step}  {script}.py", lines, took)
    versions = (f"{name} {version}" for name, version in record["versions"].items())
    _text(last, "versions", ["  ".join(versions)])
    return page


def _fact(name: str, value: Any) -> str:
    form = ".3f" if isinstance(value, float) else "," if isinstance(value, int) else ""
    return f"{name.replace('_', ' ')}: {value:{form}}"


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
        axes.set_title(kind, loc="left", fontsize=10, weight="bold")
    return page


def _wrapped(text: str, most: int) -> list[str]:
    """The text on at most `most` lines across the page."""
    return textwrap.wrap(text, LINE, break_on_hyphens=False, max_lines=most, placeholder=" …")


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
