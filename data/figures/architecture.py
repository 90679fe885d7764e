"""The architecture as a drawing: image, taps of the backbone, hypercolumn, classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from data.figures.charts import COLOURS, GREY, INK, SMALL

LEVELS, COLUMN, HEAD = 0.15, 0.52, 0.83  # where the three columns are, as shares of the axes
TOP, BOTTOM = 0.1, 0.99
ARROW = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}


def draw_architecture(axes: Axes, network: Mapping[str, Any]) -> None:
    """The network from the image on the left to the class map on the right.

    Args:
        axes: all of it is used.
        network: "backbone" and "classifier" in words; "size" of the square input in pixels;
            "levels": (name, (C, h, w)) of each; "head": what each of its boxes says.
    """
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(1, 0))
    size, channels = network["size"], [shape[0] for _, shape in network["levels"]]
    titles = network["backbone"], f"hypercolumn, Z = {sum(channels)}", network["classifier"]
    for x, title in zip((LEVELS, COLUMN, HEAD), titles):
        axes.text(x, 0.04, title, ha="center", color=INK, weight="bold", fontsize=9)
    image = f"image 3 × {size} × {size}\nnormalised as the weights expect"
    levels = [f"{name}\n{' × '.join(map(str, shape))}" for name, shape in network["levels"]]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(levels))]
    middles = _boxes(axes, LEVELS, [image, *levels], [GREY, *colours])
    edges = TOP + (BOTTOM - TOP) * np.cumsum([0, *channels]) / sum(channels)
    for middle, start, end, colour in zip(middles[1:], edges, edges[1:], colours):
        fan = [middle, start, end, middle]
        axes.fill([LEVELS, COLUMN - 0.02, COLUMN - 0.02, LEVELS], fan, colour, alpha=0.2)
        axes.fill_between([COLUMN - 0.02, COLUMN + 0.02], start, end, color=colour)
    first, *_ = _boxes(axes, HEAD, network["head"], [GREY] * len(network["head"]))
    axes.annotate("", (HEAD - 0.13, first), (COLUMN + 0.03, first), arrowprops=ARROW)


def _boxes(axes: Axes, x: float, texts: Sequence[str], colours: Sequence[str]) -> list[float]:
    """Boxes below one another, with arrows between them; the y of their middles."""
    pitch = (BOTTOM - TOP) / max(len(texts), 6)
    middles = [TOP + (row + 0.5) * pitch for row in range(len(texts))]
    for above, below in zip(middles, middles[1:]):
        axes.annotate("", (x, below - 0.3 * pitch), (x, above), arrowprops=ARROW)
    for middle, words, colour in zip(middles, texts, colours):
        box = {"facecolor": "#f4f6f8", "edgecolor": colour, "boxstyle": "round"}
        look = {"ha": "center", "va": "center", "color": INK, "bbox": box, "parse_math": False}
        axes.text(x, middle, words, fontsize=max(SMALL, min(9, 160 * pitch)), **look)
    return middles
