"""Charts of data, training and scores, drawn on `Figure` itself: no display, no global state.

`draw_...` draws on a figure, or on a part of a page; `plot_...` saves the same as a PNG.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import offset_copy

COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"  # Okabe and Ito's
INK, GREY, RULE, BAND = "#202124", "#6e7278", "#d0d3d7", "#f1f3f5"
PAGE = 11.69, 8.27  # inches, A4 landscape
POINTS = 72  # an inch
DPI = 120
STYLES = "-", "--", ":", "-."
GRID = {"color": "#e3e5e8", "linewidth": 0.8}
NOT_DRAWN = "epoch", "seconds", "step"
PANELS = {"loss": 3, "score": 3, "learning rate": 2}  # of training curves: their relative sizes
LARGE_SPAN = 30  # largest over smallest learning rate from which their axis is logarithmic
VERDICTS = {"better": COLOURS[2], "worse": COLOURS[1]}
Destination = str | PathLike | BinaryIO


def size_to_fit(text: str, room: float, size: float, bold: bool = False) -> float:
    """Font size in points, at most `size`, at which a line of usual text is within `room` inches.

    It is found from the number of letters, whose mean width in DejaVu Sans is about 0.56 em.
    """
    letter = 0.67 if bold else 0.59  # em
    return min(size, POINTS * room / (letter * max(1, len(text))))


def plot_curve(path: Destination, rows: Sequence[dict[str, float | None]], title: str) -> None:
    """Saves `draw_curve` with its title as PNG, the panels one below the other."""
    figure = Figure(layout="constrained")
    figure.suptitle(title, parse_math=False)
    figure.set_size_inches(6.8, 0.9 + 2.2 * draw_curve(figure, rows, stacked=True))
    _save(figure, path)


def draw_curve(
    figure: FigureBase, rows: Sequence[dict[str, float | None]], stacked: bool = False
) -> int:
    """Training curves over "epoch" in up to three panels: losses, scores, learning rates.

    Args:
        figure: to draw on.
        rows: one dict an epoch; values that are missing, None or not finite are left out. Keys that
            end in "loss" are losses, those that end in "lr" are rates, and others scores, 0..1.
        stacked: the panels are one below the other, not side by side.

    Returns:
        The number of panels; those without a value are left out, but for one.
    """
    panels = {label: {} for label in PANELS}
    for key in dict.fromkeys(key for row in rows for key in row if key not in NOT_DRAWN):
        points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
        if points := [point for point in points if math.isfinite(point[1])]:
            panels[_panel_of(key)][key] = points
    panels = {label: curves for label, curves in panels.items() if curves} or {"loss": {}}
    sizes = [PANELS[label] for label in panels]
    if stacked:
        parts = figure.subplots(len(panels), 1, sharex=True, height_ratios=sizes)
    else:
        parts = figure.subplots(1, len(panels), width_ratios=sizes)
    for axes, (label, curves) in zip(np.atleast_1d(parts), panels.items()):
        for index, (key, points) in enumerate(curves.items()):
            look = {"color": COLOURS[index % len(COLOURS)], "ls": STYLES[index % len(STYLES)]}
            axes.plot(*zip(*points), **look, marker="o", ms=3.5, clip_on=False, zorder=3, label=key)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if label == "score":  # room below and above the curves, but none outside 0..1
            low, high = axes.get_ylim()
            axes.set_ylim(max(0, low), min(1, high))
        if label == "learning rate":
            _scale_rates(axes, [rate for points in curves.values() for _, rate in points])
        axes.grid(**GRID)
        axes.spines[["top", "right"]].set_visible(False)
        if curves:  # above the axes, where no curve runs
            columns = 3 if stacked else 2  # as many as there is room for
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": columns}
            axes.legend(**place, frameon=False, fontsize=9)
        if stacked:
            axes.label_outer()
    return len(panels)


def _panel_of(key: str) -> str:
    if key.endswith("loss"):
        return "loss"
    return "learning rate" if key.endswith("lr") else "score"


def _scale_rates(axes: Axes, rates: Sequence[float]) -> None:
    """A logarithmic axis, where 0 has no place, if the rates span much; else one from 0."""
    positive = [rate for rate in rates if rate > 0]
    if positive and max(positive) > LARGE_SPAN * min(positive):
        axes.set_yscale("log", nonpositive="mask")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:g}")


def plot_confusion(path: Destination, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Saves `draw_confusion` as PNG."""
    cell = 0.36 if len(names) <= 25 else 0.22  # inches
    side = 2.2 + max(1.4, cell * len(names))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    draw_confusion(figure, matrix, names, cell)
    _save(figure, path)


def draw_confusion(
    figure: FigureBase, matrix: np.ndarray, names: Sequence[str], cell: float
) -> None:
    """The share of each true class (row) that was predicted as each class (column).

    Args:
        figure: to draw on.
        matrix: pixel counts (C, C); rows without any ground truth are hatched.
        names: the C class names.
        cell: side that a cell will have, in inches. Letters are as large as it allows; numbers that
            would not be readable are left out, and so are names that would overlap.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in np.flatnonzero(totals == 0):
        look = {"facecolor": BAND, "edgecolor": "#bbbbbb", "hatch": "////", "linewidth": 0}
        axes.axhspan(row - 0.5, row + 0.5, **look)
    if cell > 0.22:
        look = {"ha": "center", "va": "center", "fontsize": min(12, 0.29 * POINTS * cell)}
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:  # an empty cell reads better than a zero
                ink = "white" if share > 0.55 else INK
                axes.text(column, row, f"{100 * share:.0f}", color=ink, **look)
    size = min(8, max(4, 0.7 * POINTS * cell))
    shown = range(0, len(names), math.ceil(size / (POINTS * cell)))
    look = {"fontsize": size, "parse_math": False}
    axes.set_xticks(shown, [names[index] for index in shown], rotation=90, **look)
    axes.set_yticks(shown, [names[index] for index in shown], **look)
    axes.set(xlabel="prediction", ylabel="ground truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    percent = {"format": lambda share, _: f"{share:.0%}"}
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=25, **percent)
    bar.set_label("share of the ground truth", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def plot_iou_bars(
    path: Destination, names: Sequence[str], ious: Sequence[float | None], miou: float
) -> None:
    """Saves `draw_iou_bars` as PNG."""
    figure = Figure(figsize=(6.4, 1.3 + 0.27 * len(names)), layout="constrained")
    draw_iou_bars(figure, names, ious, miou)
    _save(figure, path)


def draw_iou_bars(
    figure: FigureBase,
    names: Sequence[str],
    ious: Sequence[float | None],
    miou: float,
    columns: int = 1,
    size: float = 9,
) -> None:
    """IoU of each class as bars, the best at the top, and their mean as a line.

    Args:
        figure: to draw on.
        names: of the classes.
        ious: 0..1; None is written as "absent", at the end.
        miou: their mean, 0..1.
        columns: side by side, read one after the other.
        size: of the names, in points.
    """
    pairs = sorted(zip(names, ious), key=lambda pair: math.inf if pair[1] is None else -pair[1])
    ranked = [name for name, _ in pairs], [iou for _, iou in pairs]
    for axes in _draw_bars(figure, *ranked, "{:.3f}".format, columns, size, 1.0):
        axes.set(xlabel="IoU", xticks=np.linspace(0, 1, 6))
        axes.grid(axis="x", **GRID)
        axes.tick_params(axis="x", labelsize=size)
        axes.spines["bottom"].set_bounds(0, 1)
        if not math.isnan(miou):
            axes.axvline(miou, color=COLOURS[1], linestyle="--", linewidth=1.3, zorder=3)
            look = {"ha": "center", "va": "bottom", "color": COLOURS[1], "fontsize": size + 1}
            axes.text(miou, -0.7, f"mIoU {miou:.3f}", **look)


def draw_counts(
    figure: FigureBase,
    names: Sequence[str],
    counts: Sequence[int],
    columns: int = 1,
    size: float = 9,
) -> None:
    """The count of each class as bars in the order of the names; see `draw_iou_bars`."""
    for axes in _draw_bars(figure, names, counts, "{:,}".format, columns, size, max(1, *counts)):
        axes.set(xticks=[])
        axes.spines["bottom"].set_visible(False)


def plot_comparison(
    path: Destination, names: Sequence[str], rows: Sequence[Mapping[str, float | str | None]]
) -> None:
    """Saves `draw_comparison` as PNG."""
    figure = Figure(figsize=(8.4, 1.1 + 0.42 * len(names)), layout="constrained")
    draw_comparison(figure, names, rows)
    _save(figure, path)


def draw_comparison(
    figure: FigureBase, names: Sequence[str], rows: Sequence[Mapping[str, float | str | None]]
) -> None:
    """The mIoU of each run on the left, its difference to the first on the right; with intervals.

    Args:
        figure: to draw on.
        names: of the runs.
        rows: for each run "miou" and "difference", both also with "_low" and "_high" behind: the
            bounds of its interval; and the "verdict" on the difference. None is not drawn.
    """
    panels = figure.subplots(1, 2, sharey=True)
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # keeps lines out of numbers
    for axes, key, label in zip(panels, ("miou", "difference"), ("mIoU", "minus the first")):
        for place, row in enumerate(rows):
            if row[key] is None:
                continue
            colour = VERDICTS.get(row["verdict"], INK) if key == "difference" else INK
            low, high = row[f"{key}_low"], row[f"{key}_high"]
            axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
            axes.plot(row[key], place, "o", color=colour, markersize=6)
            look = {"ha": "center", "va": "bottom", "fontsize": 8, "color": colour, "bbox": ground}
            text = f"{row[key]:.3f}" if key == "miou" else f"{row[key]:+.3f} {row['verdict']}"
            above = offset_copy(axes.transData, figure, y=4, units="points")
            axes.text(row[key], place, text, transform=above, **look)
        axes.set_xlabel(f"{label}, with 95 % interval")
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="x", **GRID)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names, parse_math=False)
    panels[0].set_ylim(len(names) - 0.5, -0.7)
    panels[1].axvline(0, color=GREY, linewidth=1, zorder=1)


def plot_minutes(
    path: Destination,
    names: Sequence[str],
    mious: Sequence[float],
    ways: Sequence[Sequence[tuple[float, float]]],
) -> None:
    """Saves `draw_minutes` as PNG."""
    figure = Figure(figsize=(8.4, 5), layout="constrained")
    draw_minutes(figure, names, mious, ways)
    _save(figure, path)


def draw_minutes(
    figure: FigureBase,
    names: Sequence[str],
    mious: Sequence[float],
    ways: Sequence[Sequence[tuple[float, float]]],
) -> None:
    """The mIoU of runs over the minutes that they took, on a logarithmic axis.

    Args:
        figure: to draw on.
        names: of the runs.
        mious: of the runs, a diamond where their ways end.
        ways: (minutes, validation mIoU) of each run while it was trained, a line; nan is not drawn.
            Of a run that has none nothing is drawn.
    """
    axes = figure.subplots()
    for index, (name, miou, way) in enumerate(zip(names, mious, ways)):
        if way:
            look = {"color": COLOURS[index % len(COLOURS)], "ls": STYLES[index % len(STYLES)]}
            axes.plot(*zip(*way), **look, linewidth=1.2, marker="o", ms=3, zorder=2)
            label = f"{name}: {miou:.3f}"
            axes.plot(way[-1][0], miou, "D", color=look["color"], ms=7, zorder=3, label=label)
    axes.set(xscale="log", xlabel="minutes of steps 1 to 3", ylabel="mIoU")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(**GRID)
    axes.spines[["top", "right"]].set_visible(False)
    if any(ways):
        axes.legend(frameon=False, fontsize=9)


def _draw_bars(
    figure: FigureBase,
    names: Sequence[str],
    values: Sequence[float | None],
    in_words: Callable[[float], str],
    columns: int,
    size: float,
    longest: float,
) -> list[Axes]:
    """The axes of each column of bars, their values written behind them; None is "absent"."""
    rows = math.ceil(len(names) / columns)
    columns = math.ceil(len(names) / rows)
    parts = list(np.atleast_1d(figure.subplots(1, columns)))
    for start, axes in zip(range(0, len(names), rows), parts):
        shown, lengths = names[start : start + rows], values[start : start + rows]
        axes.barh(range(len(shown)), [v or 0 for v in lengths], 0.72, color=COLOURS[4], zorder=2)
        behind = offset_copy(axes.transData, figure, x=0.5 * size, units="points")
        # Its white ground keeps the line of the mean out of a number.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        look = {"fontsize": size - 1, "va": "center", "bbox": ground, "zorder": 4}
        for place, value in enumerate(lengths):
            text, ink = ("absent", GREY) if value is None else (in_words(value), INK)
            axes.text(value or 0, place, text, color=ink, transform=behind, **look)
        axes.set_yticks(range(len(shown)), shown, fontsize=size, parse_math=False)
        axes.set(xlim=(0, 1.1 * longest), ylim=(rows - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    return parts


def draw_moments(
    figure: FigureBase,
    levels: Sequence[str],
    channels: Sequence[int],
    mean: np.ndarray,
    std: np.ndarray,
) -> None:
    """Mean and standard deviation of each channel of the features; each level has the same width.

    Args:
        figure: to draw on.
        levels: names of the levels.
        channels: of each level; Z is their sum.
        mean: (Z,).
        std: (Z,).
    """
    places = [level + (np.arange(n) + 0.5) / n for level, n in enumerate(channels)]
    panels = figure.subplots(2, 1, sharex=True)
    for axes, values, label in zip(panels, (mean, std), ("mean", "standard deviation")):
        for level in range(1, len(levels), 2):
            axes.axvspan(level, level + 1, color=BAND, zorder=0)
        axes.plot(np.concatenate(places), values, ".", markersize=2, color=COLOURS[0])
        axes.set(xlim=(0, len(levels)))
        axes.set_ylabel(label, fontsize=9)
        axes.grid(axis="y", **GRID)
        axes.tick_params(axis="x", length=0)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    labels = [f"{name}\n{count}" for name, count in zip(levels, channels)]
    middles, size = np.arange(len(levels)) + 0.5, min(8, 50 / len(levels))
    panels[-1].set_xticks(middles, labels, fontsize=size, parse_math=False)
    panels[-1].set_xlabel("level and its channels", fontsize=9)


def _save(figure: Figure, path: Destination) -> None:
    """Writes a figure with constrained layout as PNG, with a margin."""
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches
    figure.savefig(path, format="png", dpi=DPI)
