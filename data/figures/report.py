"""The write-up of a run as pages, from plain values: settings, network, data, training, results."""

import math
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from PIL import Image

from data.figures import plots
from data.figures.plots import GREY, INK, POINTS, RULE

TITLE = "Semantic segmentation with hypercolumns"
SCRIPTS = {1: "sample_features", 2: "train_cls", 3: "train_seg", 4: "evaluate"}
SCORES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
SCORES |= {"mean_accuracy": "mean accuracy", "fw_iou": "fw-IoU"}
KINDS = {
    "best": "best: the highest mIoU",
    "typical": "typical: mIoU near the median",
    "worst": "worst: the lowest mIoU",
}
# Places are inches from the left and from the top. TOP and BOTTOM are of what is below a title.
WIDTH, HEIGHT = plots.PAGE
LEFT, RIGHT, TOP, BOTTOM = 0.55, WIDTH - 0.55, 1.25, 7.65
LINE = 140  # letters of small print across the page, also in monospace
NAME = 16  # letters of the name of a class
FLAG_LINES, PROTOCOL_LINES, COMMAND_LINES = 3, 6, 6  # at most
WARNING = "#d55e00"
MISTAKES = 18  # pairs of classes beside the confusion matrix
PICTURE = 2200  # pixels of the longer side of a picture, at most
DIGITS = 6  # of a place as a share of the page
Config = Mapping[str, Any] | None


def report_pages(
    record: Mapping[str, Any],
    architecture: Figure,
    shown: str,
    pictures: Sequence[tuple[str, Image.Image]],
) -> list[Figure]:
    """The pages of the write-up, A4 landscape, to be saved with `save_pages`.

    What a step that has not been run to its end would have left is None, and the page says so.

    Args:
        record: "run": its name; "configs": {1..4: settings and results of the step}; "logs": {2, 3:
            a dict an epoch, with "epoch" and scores}; "metrics" of step 4; "confusion": (C, C)
            pixels, rows the ground truth; "moments": mean and std (Z,) of the features; "versions"
            and "command" of the step that runs now; "scores_are_old": whether step 4 has scored
            another network than the run has now.
        architecture: a drawing, A4 landscape, that leaves room for a title and a page number; it
            becomes one of the pages.
        shown: which pictures have been drawn, and by which network, in words.
        pictures: the kind of each ("best", "typical", "worst" or ""), and the picture.
    """
    run, configs, metrics = record["run"], record["configs"], record["metrics"]
    pages = [
        _summary_page(run, configs, metrics, record["scores_are_old"]),
        _page("Architecture", architecture),
        _data_page(configs[1], record["moments"]),
        _training_page(record["logs"]),
        _results_page(metrics),
    ]
    if metrics and record["confusion"] is not None:
        pages.append(_confusion_page(list(metrics["per_class"]), record["confusion"]))
    for start in range(0, len(pictures), 2):
        pages.append(_pictures_page(shown, pictures[start : start + 2]))
    pages.append(_origins_page(configs, record["command"], record["versions"]))
    for number, page in enumerate(pages, start=1):
        _write(page, LEFT, HEIGHT - 0.35, shorten(f"{TITLE} · {run}", LINE - 20), color=GREY)
        _write(page, RIGHT, HEIGHT - 0.35, f"{number} / {len(pages)}", color=GREY, ha="right")
        _settle(page)
    return pages


def save_pages(file: BinaryIO, pages: Sequence[Figure]) -> None:
    """Writes the pages as PDF; equal pages give equal bytes, whenever they are written."""
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
    if len(ranked) == 2:
        return {"best": ranked[:1], "worst": ranked[1:]}
    each = 2 if len(ranked) >= 6 else 1
    middle = (len(ranked) - each) // 2
    typical = ranked[middle : middle + each]
    return {"best": ranked[:each], "typical": typical, "worst": ranked[-each:]}


def shorten(text: str, length: int) -> str:
    """The text, or as many of its first and last letters as fit around an ellipsis."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return text[: length - 1 - end] + "…" + text[len(text) - end :]


def _summary_page(
    run: str, configs: Mapping[int, Config], metrics: Config, scores_are_old: bool
) -> Figure:
    page = _page(TITLE)
    if scores_are_old:
        warning = "These scores are of an earlier network: run evaluate.py again."
        _write(page, LEFT, TOP + 0.22, warning, size=14, weight="bold", color=WARNING)
    _write(page, LEFT, TOP, shorten(run, LINE - 40), size=11, color=GREY)
    for column, (key, label) in enumerate(SCORES.items()):
        x = LEFT + column * (RIGHT - LEFT) / len(SCORES)
        _write(page, x, TOP + 0.6, f"{metrics[key]:.3f}" if metrics else "–", size=22)
        _write(page, x, TOP + 0.82, label, color=GREY)
    for step, script in SCRIPTS.items():
        y, config = TOP + 0.1 + 1.2 * step, configs[step]
        _write(page, LEFT, y, f"{step}  {script}", size=11, weight="bold")
        if config is None:
            _write(page, LEFT, y + 0.25, _not_run(step), color=GREY)
            continue
        duration = timedelta(seconds=round(config["seconds"]))
        _write(page, RIGHT, y, f"{duration} (h:mm:ss)", color=GREY, ha="right")
        _write(page, LEFT, y + 0.25, shorten(_fact(step, config, metrics), LINE))
        flags = "  ".join(_flag(*pair) for pair in config["changed"].items())
        lines = _wrapped(flags or "(all flags have their defaults)", FLAG_LINES)
        _write_lines(page, y + 0.46, lines, family="monospace", color=GREY)
    note = "Flags are listed where they were given another value than their default."
    _write(page, LEFT, BOTTOM, note, color=GREY)
    return page


def _fact(step: int, config: Mapping[str, Any], metrics: Config) -> str:
    """What a step that has finished did, in a line."""
    if step == 1:
        return (
            f"{config['rows']:,} pixels of {len(config['classes'])} classes from "
            f"{config['images']:,} images of {config['split']}; "
            f"{config['hypercolumn']['backbone']}, {len(config['channels'])} levels, "
            f"Z = {sum(config['channels'])}"
        )
    if step == 2:
        fact = f"{_epochs(config['epochs'])} on {config['rows']:,} pixels"
        if config["val_accuracy"] is not None:
            held_out = f"{config['held_out_rows']:,} held-out pixels"
            fact += f"; accuracy on {held_out} {config['val_accuracy']:.3f}"
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


def _flag(name: str, value: Any) -> str:
    """A flag as one would type it."""
    if value is True:
        return name
    values = value if isinstance(value, list) else [value]
    return _unbroken(f"{name} {','.join(map(str, values))}")


def _data_page(config: Config, moments: tuple[np.ndarray, np.ndarray] | None) -> Figure:
    page = _page("Data and sampling")
    if config is None or moments is None:
        _write(page, LEFT, TOP, _not_run(1), color=GREY)
        return page
    counts, channels, spec = config["rows_per_class"], config["channels"], config["hypercolumn"]
    heading = {"size": 11, "weight": "bold"}
    _write(page, LEFT, TOP, f"Sampled pixels of each class: {sum(counts):,} in all", **heading)
    _write(page, 7.0, TOP, f"Features: Z = {sum(channels):,} channels", **heading)
    room = BOTTOM - TOP - 0.15
    _charts(page, LEFT, BOTTOM - room, RIGHT, BOTTOM)
    left, right = page.subfigures(1, 2, width_ratios=[0.58, 0.42], wspace=0.03)
    columns, size, height = _bar_layout(len(counts), 3, room)
    if height < room:  # the bars of a few classes stay at the top
        left = left.subfigures(2, 1, height_ratios=[height, room - height])[0]
    names = [shorten(name, NAME) for name in config["classes"]]
    plots.draw_counts(left, names, counts, columns, size)
    levels = [f"tap {tap}" for tap in spec["taps"]]
    levels += [f"{side}×{side}" if side.isdigit() else side for side in spec["context"]]
    plots.draw_moments(right, levels, channels, *moments)
    return page


def _bar_layout(classes: int, most: int, room: float) -> tuple[int, float, float]:
    """Columns of bars (at most `most`), points of the names, and inches needed of the `room`."""
    columns = min(most, math.ceil(classes / 32))
    rows = math.ceil(classes / columns)
    axis = 0.6  # inches beside the bars
    pitch = min(0.3, (room - axis) / rows)
    return columns, min(9, 0.75 * POINTS * pitch), pitch * rows + axis


def _training_page(logs: Mapping[int, Sequence[Mapping[str, float | None]] | None]) -> Figure:
    page = _page("Training")
    _charts(page, LEFT, TOP - 0.2, RIGHT, BOTTOM)
    for part, step in zip(page.subfigures(2, 1, hspace=0.1), (2, 3)):
        rows, look = logs[step], {"x": 0, "ha": "left", "fontsize": 11}
        if rows is None:
            part.suptitle(_not_run(step), color=GREY, **look)
            continue
        epochs = _epochs(sum(row["epoch"] > 0 for row in rows))
        part.suptitle(f"{SCRIPTS[step]}: {epochs}", weight="bold", **look)
        plots.draw_curve(part, rows)
    return page


def _results_page(metrics: Config) -> Figure:
    page = _page("Results")
    if metrics is None:
        _write(page, LEFT, TOP, _not_run(4), color=GREY)
        return page
    scored = metrics["checkpoint"] or metrics["predictions"]
    protocol = f"Protocol: {metrics['protocol']}. Scored: {scored}"
    y = _write_lines(page, TOP, _wrapped(protocol, PROTOCOL_LINES), color=GREY)
    names, ious = list(metrics["per_class"]), list(metrics["per_class"].values())
    columns, size, height = _bar_layout(len(names), 4, BOTTOM - y)
    _charts(page, LEFT, y, RIGHT, y + height)
    names = [shorten(name, NAME) for name in names]
    plots.draw_iou_bars(page, names, ious, metrics["miou"], columns, size)
    return page


def _confusion_page(names: Sequence[str], confusion: np.ndarray) -> Figure:
    page = _page("Confusion matrix")
    names, side = [shorten(name, NAME) for name in names], BOTTOM - TOP
    _charts(page, LEFT, TOP - 0.1, LEFT + side + 1, BOTTOM)
    plots.draw_confusion(page, confusion, names, cell=(side - 1.4) / len(names))
    left, y = LEFT + side + 1.3, TOP + 0.1
    _write(page, left, y, "Most frequent mistakes", size=11, weight="bold")
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    for place in np.argsort(-shares, axis=None, kind="stable")[:MISTAKES]:
        truth, guess = np.unravel_index(place, shares.shape)
        if shares[truth, guess] > 0:
            y += 0.25
            _write(page, left, y, f"{names[truth]} → {names[guess]}")
            _write(page, RIGHT, y, f"{shares[truth, guess]:.0%}", ha="right")
    _write(page, left, y + 0.4, "Share of the pixels of the first class", color=GREY)
    _write(page, left, y + 0.58, "that were predicted as the second.", color=GREY)
    return page


def _pictures_page(shown: str, pictures: Sequence[tuple[str, Image.Image]]) -> Figure:
    page = _page("Predictions")
    _write(page, LEFT, TOP - 0.1, shorten(shown, LINE), color=GREY)
    _charts(page, LEFT, TOP, RIGHT, BOTTOM)
    upper_and_lower = page.subplots(2, 1)
    for axes in upper_and_lower:
        axes.set_axis_off()
        axes.set_anchor("NW")
    for axes, (kind, picture) in zip(upper_and_lower, pictures):
        pixels = picture.convert("RGB")
        pixels.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
        axes.imshow(pixels, interpolation="none")
        axes.set_title(KINDS.get(kind, kind), loc="left", fontsize=10, weight="bold")
    return page


def _origins_page(
    configs: Mapping[int, Config], command: str, versions: Mapping[str, str]
) -> Figure:
    page, y, monospace = _page("Commands and versions"), TOP, {"family": "monospace"}
    steps = {script: configs[step] for step, script in SCRIPTS.items()}
    steps["visualize"] = {"command": command, "versions": versions}
    for script, config in steps.items():
        if config is None:
            y = _write_lines(page, y, [f"{script}.py has not been run to its end"], color=GREY)
        else:
            words = map(shlex.quote, shlex.split(config["command"]))
            lines = _wrapped(" ".join(map(_unbroken, words)), COMMAND_LINES, end=" \\")
            y = _write_lines(page, y, lines, **monospace)
        y += 0.08
    for script, config in steps.items():
        if config is not None:
            found = [f"{name} {version}" for name, version in config["versions"].items()]
            line = "  ".join([f"{script:15}", *(f"{text:21}" for text in found)]).rstrip()
            y = _write_lines(page, y + 0.07, [shorten(line, LINE)], **monospace)
    return page


def _wrapped(text: str, most: int, end: str = "") -> list[str]:
    """The text on at most `most` lines across the page; `end` joins a line to the next."""
    lines = textwrap.wrap(text, LINE - len(end), break_on_hyphens=False)
    lines = [line.replace("\xa0", " ") for line in lines]
    lines = [line + end for line in lines[:-1]] + lines[-1:]
    return lines if len(lines) <= most else [*lines[: most - 1], "… and so on"]


def _unbroken(text: str) -> str:
    """The text with no-break spaces: `_wrapped` keeps it on a line."""
    return text.replace(" ", "\xa0")


def _not_run(step: int) -> str:
    return f"{SCRIPTS[step]}.py has not been run to its end, so there is nothing to show here."


def _epochs(number: int) -> str:
    return f"{number} epoch" + "s" * (number != 1)


def _page(title: str, figure: Figure | None = None) -> Figure:
    """A blank page, or the figure that is there already, with a title and a thin line below it."""
    page = figure or Figure(figsize=plots.PAGE)
    _write(page, LEFT, 0.75, title, size=19, weight="bold")
    ends = LEFT / WIDTH, RIGHT / WIDTH
    page.add_artist(Line2D(ends, [1 - 0.95 / HEIGHT] * 2, color=RULE, linewidth=0.8))
    return page


def _write(page: Figure, x: float, y: float, text: str, size: float = 8.5, **look: Any) -> None:
    """A line of text with its baseline at y."""
    look = {"color": INK, "parse_math": False, **look}
    page.text(x / WIDTH, 1 - y / HEIGHT, text, fontsize=size, **look)


def _write_lines(page: Figure, y: float, lines: Sequence[str], **look: Any) -> float:
    """Lines of small print, the first baseline at y; the y of the line after the last."""
    for line in lines:
        _write(page, LEFT, y, line, **look)
        y += 0.18
    return y


def _charts(page: Figure, left: float, top: float, right: float, bottom: float) -> None:
    """Keeps all axes, with what belongs to them, between these places."""
    rect = left / WIDTH, 1 - bottom / HEIGHT, (right - left) / WIDTH, (bottom - top) / HEIGHT
    page.set_layout_engine(ConstrainedLayoutEngine(rect=rect, wspace=0.04, hspace=0.04))


def _settle(page: Figure) -> None:
    """Does the layout now, and rounds it: the last digits that the solver finds vary."""
    if page.get_layout_engine() is None:
        return
    for _ in range(2):  # the number beside a bar needs more room once the bar is shorter
        page.get_layout_engine().execute(page)
    page.set_layout_engine("none")
    for part in page.findobj(SubFigure):
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(DIGITS))
    for axes in page.axes:
        axes.set_position(Bbox(axes.get_position(original=True).get_points().round(DIGITS)))
