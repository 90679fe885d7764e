"""Charts of data, training and scores: drawn once, for a PNG of a step or a part of the write-up.

Each function draws on the `figure` (or part of a page) that it is given, or on a new one of a size
that fits, and gives it back. Matplotlib's constrained layout places what is on it. Nothing needs a
display or changes global state.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"  # Okabe and Ito's
INK, GREY = "#202124", "#6e7278"
STYLES = "-", "--", ":", "-."
NOT_DRAWN = "epoch", "seconds", "step"
SMALL = 7  # points, the least that is legible in print
LINES = 54  # bars below one another; more are in further columns
MANY = 40  # classes, from which a confusion matrix has not every name
NUMBERED = 22  # classes, from which it has no numbers
VERDICTS = {"better": COLOURS[2], "worse": COLOURS[1]}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with constrained layout, in inches."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure


def curve(
    rows: Sequence[Mapping[str, Any]], title: str, figure: FigureBase | None = None
) -> FigureBase:
    """Training curves over "epoch": losses, scores and learning rates, as far as there are any.

    Args:
        rows: one dict an epoch; values that are missing, None or not finite are left out. Keys that
            end in "loss" are losses, those that end in "lr" are rates, and others scores, 0..1.
    """
    panels: dict[str, dict[str, list]] = {"loss": {}, "score": {}, "learning rate": {}}
    for key in dict.fromkeys(key for row in rows for key in row if key not in NOT_DRAWN):
        points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
        if points := [point for point in points if math.isfinite(point[1])]:
            kind = "learning rate" if key.endswith("lr") else "score"
            panels["loss" if key.endswith("loss") else kind][key] = points
    panels = {kind: curves for kind, curves in panels.items() if curves} or {"loss": {}}
    figure = figure or new_figure(4.2 * len(panels), 3.6)
    figure.suptitle(title, parse_math=False)
    parts = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (kind, curves) in zip(parts, panels.items()):
        for index, (key, points) in enumerate(curves.items()):
            look = {"color": COLOURS[index % len(COLOURS)], "ls": STYLES[index % len(STYLES)]}
            axes.plot(*zip(*points), **look, marker="o", ms=3.5, clip_on=False, label=key)
        axes.set(xlabel="epoch", ylabel=kind)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if kind == "score":  # room below and above the curves, but none outside 0..1
            low, high = axes.get_ylim()
            axes.set_ylim(max(0, low), min(1, high))
        if kind == "learning rate":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:g}")
        if curves:  # above the axes, where no curve runs
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        _bare(axes, "both")
    return figure


def iou_bars(
    names: Sequence[str],
    ious: Sequence[float | None],
    miou: float,
    figure: FigureBase | None = None,
) -> FigureBase:
    """IoU of each class as bars, the best first, those without one (None, nan) last; their mean."""
    ious = [math.nan if iou is None else float(iou) for iou in ious]
    pairs = sorted(zip(ious, names), key=lambda pair: (math.isnan(pair[0]), -pair[0]))
    names, ious = [name for _, name in pairs], [iou for iou, _ in pairs]
    labels = ["absent" if math.isnan(iou) else f"{iou:.3f}" for iou in ious]
    figure, parts = _bars(names, np.nan_to_num(ious), labels, figure)
    figure.suptitle(f"mIoU {miou:.3f}", color=COLOURS[1], fontsize=11)
    for axes in parts:
        axes.set(xlabel="IoU", xlim=(0, 1.3), xticks=np.linspace(0, 1, 6 if len(parts) < 3 else 2))
        axes.spines["bottom"].set_bounds(0, 1)
        axes.axvline(miou, color=COLOURS[1], linestyle="--", linewidth=1.3)
    return figure


def class_counts(
    names: Sequence[str], counts: Sequence[int], figure: FigureBase | None = None
) -> FigureBase:
    """The count of each class as bars, in the order of the names."""
    figure, parts = _bars(names, counts, [f"{count:,}" for count in counts], figure)
    for axes in parts:
        axes.set(xticks=[], xlim=(0, (1.25 if len(parts) < 3 else 2) * max(1, *counts)))
        axes.spines["bottom"].set_visible(False)
    return figure


def _bars(
    names: Sequence[str], values: Sequence[float], labels: Sequence[str], figure: FigureBase | None
) -> tuple[FigureBase, list[Axes]]:
    """Bars below one another with their labels behind them, in as many columns as they need."""
    columns, lines = -(-len(names) // LINES), min(len(names), LINES)
    figure = figure or new_figure(3.4 + 3 * columns, 1.3 + (0.27 if columns == 1 else 0.16) * lines)
    parts = figure.subplots(1, columns, squeeze=False)[0]
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0}  # on the line of a mean
    size = 9 if lines < 40 else SMALL
    for column, axes in enumerate(parts):
        own = slice(column * lines, (column + 1) * lines)
        shown = [short(name) for name in names[own]]
        bars = axes.barh(range(len(shown)), values[own], 0.72, color=COLOURS[4])
        axes.bar_label(bars, labels[own], padding=3, fontsize=size, bbox=ground)
        axes.set_yticks(range(len(shown)), shown, fontsize=size, parse_math=False)
        axes.set_ylim(lines - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        _bare(axes, "x")
    return figure, list(parts)


def confusion(
    counts: np.ndarray, names: Sequence[str], figure: FigureBase | None = None
) -> FigureBase:
    """The share of each true class (row) that was predicted as each class (column).

    Args:
        counts: pixels (C, C); rows without any ground truth are grey. The picture of more than
            22 classes does not grow any more, and has no numbers.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    side = 2.2 + 0.36 * min(max(4, len(names)), NUMBERED)
    figure = figure or new_figure(side + 0.8, side)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor("#d8dbdf")
    for (row, column), share in np.ndenumerate(shares) if len(names) <= NUMBERED else ():
        if share >= 0.005:  # an empty cell reads better than a zero
            look = {"color": "white" if share > 0.55 else INK, "fontsize": min(8, 160 / len(names))}
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", **look)
    places = range(0, len(names), math.ceil(len(names) / MANY))
    labels = [short(names[place]) for place in places]
    look = {"fontsize": 8 if len(names) < 30 else SMALL, "parse_math": False}
    axes.set_xticks(places, labels, rotation=90, **look)
    axes.set_yticks(places, labels, **look)
    axes.set(xlabel="prediction", ylabel="ground truth")
    axes.tick_params(length=0)
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=25, format="{x:.0%}")
    bar.set_label("share of the ground truth", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def comparison(rows: Sequence[Mapping[str, Any]], figure: FigureBase | None = None) -> FigureBase:
    """The mIoU of each run on the left, its difference to the first on the right; with intervals.

    Args:
        rows: for each "run", its name, how it "differs" from the first, in words, "miou" and
            "difference", both also with "_low" and "_high" behind: the bounds of its interval; and
            the "verdict" on the difference.
    """
    names = [
        "\n".join([short(row["run"], 40), *textwrap.wrap(row["differs"], 40, max_lines=3)])
        for row in rows
    ]
    figure = figure or new_figure(9.4, 1.1 + 0.2 * sum(2 + name.count("\n") for name in names))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, label in zip(panels, ("miou", "difference"), ("mIoU", "minus the first")):
        for place, row in enumerate(rows):
            is_score, value = key == "miou", row[key]
            colour = INK if is_score else VERDICTS.get(row["verdict"], INK)
            bounds = [[value - row[f"{key}_low"]], [row[f"{key}_high"] - value]]
            axes.errorbar(value, place, xerr=np.maximum(bounds, 0), fmt="o", color=colour)
            text = f"{value:.3f}" if is_score else f"{value:+.3f} {row['verdict']}"
            above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axes.annotate(text, (value, place), **above, fontsize=8, color=colour)
        axes.set_xlabel(f"{label}, with 95 % interval")
        axes.locator_params(axis="x", nbins=6)
        axes.tick_params(axis="y", length=0)
        _bare(axes, "x")
    panels[0].set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    panels[0].set_ylim(len(names) - 0.5, -0.7)
    panels[1].axvline(0, color=GREY, linewidth=1, zorder=1)
    return figure


def short(text: str, length: int = 18) -> str:
    """The text, or as many of its first and last letters as fit around an ellipsis."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return text[: length - 1 - end] + "…" + text[len(text) - end :]


def _bare(axes: Axes, grid: str) -> None:
    """No frame at the top and the right, and grid lines behind all else."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#e3e5e8", linewidth=0.8)
