"""Charts of training and scores, as PNG. Drawn on `Figure` directly, so no display and no global pyplot state."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito's, colour-blind safe
BAR = "#4a97c9"
STYLES = ("-", "--", ":", "-.")
NOT_DRAWN = ("epoch", "lr", "seconds", "step")
DPI = 120
GRID = {"color": "#e3e5e8", "linewidth": 0.8}
Destination = str | PathLike | BinaryIO


def plot_curve(path: Destination, rows: Sequence[dict[str, float]], title: str) -> None:
    """Training curves over "epoch": keys that end in "loss" on the left, the other scores (0..1) on the right.

    Args:
        rows: one dict a log line; values that are missing, None or not finite are left out of their curve.
    """
    panels = {"loss": {}, "score": {}}
    for row in rows:
        for key, value in row.items():
            if key not in NOT_DRAWN and value is not None and math.isfinite(value):
                curves = panels["loss" if key.endswith("loss") else "score"]
                curves.setdefault(key, []).append((row["epoch"], value))
    panels = {label: curves for label, curves in panels.items() if curves or label == "loss" and not panels["score"]}
    figure = Figure(figsize=(5.2 * len(panels), 3.9), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for axes, (label, curves) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items()):
        for index, (key, points) in enumerate(curves.items()):
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index % len(STYLES)]}
            axes.plot(*zip(*points), **look, marker="o", markersize=3.5, clip_on=False, zorder=3, label=key)
        axes.set(xlabel="epoch", ylabel=label, ylim=(0, 1 if label == "score" else None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(**GRID)
        axes.spines[["top", "right"]].set_visible(False)
        if curves:  # above the axes, where no curve runs
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


def plot_confusion(path: Destination, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Confusion picture: the share of each true class (row) that was predicted as each class (column).

    Args:
        matrix: pixel counts (C, C); rows without any ground truth are hatched.
        names: the C class names.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    count = len(names)
    written = count <= 25
    side = 2.2 + max(1.4, (0.36 if written else 0.22) * count)  # inches
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in np.flatnonzero(totals == 0):
        axes.axhspan(row - 0.5, row + 0.5, facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="////", linewidth=0)
    if written:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:  # an empty cell reads better than a zero
                ink = "white" if share > 0.55 else "#333333"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xticks(range(count), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(count), names, fontsize=8, parse_math=False)
    axes.set(xlabel="prediction", ylabel="ground truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=25, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the ground truth", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    _save(figure, path)


def plot_iou_bars(path: Destination, names: Sequence[str], ious: Sequence[float | None], miou: float) -> None:
    """IoU (0..1) of each class as bars, the best at the top, their mean as a line; None, at the end, is "absent"."""
    order = sorted(range(len(names)), key=lambda index: -1 if ious[index] is None else ious[index], reverse=True)
    figure = Figure(figsize=(6.4, 1.3 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(miou, color=COLOURS[1], linestyle="--", linewidth=1.3, zorder=3)
    for place, index in enumerate(order):
        iou = ious[index]
        axes.barh(place, iou or 0, height=0.72, color=BAR, zorder=2)
        text, ink = ("absent", "#888888") if iou is None else (f"{iou:.3f}", "#333333")
        backing = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # keeps the mean line out of the number
        axes.text((iou or 0) + 0.012, place, text, va="center", fontsize=8, color=ink, bbox=backing, zorder=4)
    axes.set_yticks(range(len(names)), [names[index] for index in order], fontsize=9, parse_math=False)
    axes.set(xlim=(0, 1.1), ylim=(len(names) - 0.4, -0.6), xlabel="IoU", xticks=np.linspace(0, 1, 6))
    if not math.isnan(miou):
        axes.text(miou, -0.7, f"mIoU {miou:.3f}", ha="center", va="bottom", color=COLOURS[1], fontsize=10)
    axes.grid(axis="x", **GRID)
    axes.tick_params(axis="x", labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 1)
    _save(figure, path)


def _save(figure: Figure, path: Destination) -> None:
    """Write the figure as PNG, cropped or widened to what is drawn."""
    figure.savefig(path, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)
