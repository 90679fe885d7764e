"""The architecture as a drawing: image, taps of the backbone, hypercolumn, classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from data.figures.charts import COLOURS, GREY, INK, SMALL

PAPER = "#f4f6f8"
LEVELS, COLUMN, HEAD = 0.15, 0.52, 0.83  # where the three columns are, as shares of the axes
TOP, BOTTOM = 0.1, 0.99
ARROW = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}


def draw_architecture(axes: Axes, network: Mapping[str, Any]) -> None:
    """The network from the image on the left to the class map on the right.

    Args:
        axes: all of it is used.
        network: "backbone" and "classifier" in words; "size" of the square input in pixels;
            "levels": (name, (C, h, w)) of each; "head": (title, small print) of each of its boxes.
    """
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(1, 0))
    channels = [shape[0] for _, shape in network["levels"]]
    _write(axes, LEVELS, 0.04, (network["backbone"], "channels × height × width of each level"))
    _write(axes, COLUMN, 0.04, ("hypercolumn", f"Z = {sum(channels)} channels"))
    _write(axes, HEAD, 0.04, (network["classifier"], "at every place"))
    image = f"image 3 × {network['size']} × {network['size']}", "normalised as the weights expect"
    levels = [(name, " × ".join(map(str, shape))) for name, shape in network["levels"]]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(levels))]
    middles = _boxes(axes, LEVELS, [image, *levels], [GREY, *colours])
    edges = TOP + (BOTTOM - TOP) * np.cumsum([0, *channels]) / sum(channels)
    for middle, start, end, colour in zip(middles[1:], edges, edges[1:], colours):
        fan = [middle - 0.01, start, end, middle + 0.01]
        axes.fill([LEVELS, COLUMN - 0.02, COLUMN - 0.02, LEVELS], fan, colour, alpha=0.2)
        axes.fill_between([COLUMN - 0.02, COLUMN + 0.02], start, end, color=colour)
    first, *_ = _boxes(axes, HEAD, network["head"], [GREY] * len(network["head"]))
    axes.annotate("", (HEAD - 0.15, first), (COLUMN + 0.03, first), arrowprops=ARROW)


def _boxes(
    axes: Axes, x: float, texts: Sequence[tuple[str, str]], colours: Sequence[str]
) -> list[float]:
    """Boxes below one another, with arrows between them; the y of their middles."""
    pitch = (BOTTOM - TOP) / max(len(texts), 6)
    half = 0.36 * pitch
    middles = [TOP + (row + 0.5) * pitch for row in range(len(texts))]
    for middle, words, colour in zip(middles, texts, colours):
        look = {"facecolor": PAPER, "edgecolor": colour, "zorder": 2}
        axes.fill_between([x - 0.14, x + 0.14], middle - half, middle + half, **look)
        _write(axes, x, middle, words, min(9, 160 * pitch))
    for above, below in zip(middles, middles[1:]):
        axes.annotate("", (x, below - half), (x, above + half), arrowprops=ARROW)
    return middles


def _write(axes: Axes, x: float, y: float, words: tuple[str, str], size: float = 9) -> None:
    """A title above y and small print below it."""
    title = {"va": "bottom", "color": INK, "weight": "bold", "fontsize": max(SMALL, size)}
    small = {"va": "top", "color": GREY, "fontsize": max(SMALL, 0.85 * size)}
    for text, at, look in zip(words, (y, y + 0.004), (title, small)):
        axes.text(x, at, text, ha="center", parse_math=False, **look)
