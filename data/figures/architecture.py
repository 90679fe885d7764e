"""The architecture as a drawing: image, taps of the backbone, hypercolumn, classifier."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from data.figures.charts import COLOURS, GREY, INK

EDGE, PAPER = "#9aa0a6", "#f4f6f8"
# Left edges and widths of the four columns, as shares of the axes.
LEVEL, LEVEL_WIDTH, COLUMN, COLUMN_WIDTH, HEAD, HEAD_WIDTH = 0.002, 0.3, 0.5, 0.04, 0.66, 0.335
FILLED = 0.72  # share of the way from box to box that a box takes


def draw_architecture(axes: Axes, network: Mapping[str, Any]) -> None:
    """The network from the image on the left to the class map on the right.

    Args:
        axes: all of it is used.
        network: "backbone" and "classifier" in words; "size" of the square input in pixels;
            "levels": (name, (C, h, w)) of each; "head": (title, small print) of each of its boxes.
    """
    levels, head = network["levels"], network["head"]
    channels = [shape[0] for _, shape in levels]
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(1, 0))
    middles, height = _rows(1 + len(levels))
    size = min(9, 160 * height)  # points: two lines fit into a box
    for left, width, words in (
        (LEVEL, LEVEL_WIDTH, (network["backbone"], "channels × height × width of each level")),
        (COLUMN - 0.1, COLUMN_WIDTH + 0.2, ("hypercolumn", f"Z = {sum(channels)} channels")),
        (HEAD, HEAD_WIDTH, (network["classifier"], "at every place")),
    ):
        _write(axes, left + width / 2, 0.05, words, 10)
    image = f"image 3 × {network['size']} × {network['size']}"
    _box(axes, LEVEL, middles[0], LEVEL_WIDTH, height, (image, "normalised as for ImageNet"), size)
    start, below = middles[1] - height / 2, middles[-1] + height / 2 - middles[1] + height / 2
    for index, ((name, shape), middle) in enumerate(zip(levels, middles[1:])):
        colour, end = COLOURS[index % len(COLOURS)], start + below * shape[0] / sum(channels)
        words = name, " × ".join(map(str, shape))
        _box(axes, LEVEL, middle, LEVEL_WIDTH, height, words, size, colour)
        _arrow(axes, (LEVEL + LEVEL_WIDTH / 2, middles[index] + height / 2), middle - height / 2)
        right, edges = LEVEL + LEVEL_WIDTH, (middle - height / 2, middle + height / 2)
        axes.fill(
            [right, COLUMN, COLUMN, right], [edges[0], start, end, edges[1]], colour, alpha=0.2
        )
        axes.add_patch(
            Rectangle((COLUMN, start), COLUMN_WIDTH, end - start, facecolor=colour, edgecolor="w")
        )
        start = end
    places, height = _rows(len(head))
    size = min(9, 160 * height)
    for above, middle, words in zip([None, *places], places, head):
        _box(axes, HEAD, middle, HEAD_WIDTH, height, words, size)
        if above is not None:
            _arrow(axes, (HEAD + HEAD_WIDTH / 2, above + height / 2), middle - height / 2)
    look = {"arrowstyle": "-|>", "color": EDGE}
    axes.annotate("", (HEAD, places[0]), (COLUMN + COLUMN_WIDTH, middles[1]), arrowprops=look)


def _rows(count: int) -> tuple[list[float], float]:
    """The middles of boxes below one another, and their height."""
    pitch = min(0.16, 0.88 / count)
    return [0.12 + (row + 0.5) * pitch for row in range(count)], FILLED * pitch


def _box(
    axes: Axes,
    left: float,
    middle: float,
    width: float,
    height: float,
    words: tuple[str, str],
    size: float,
    colour: str = EDGE,
) -> None:
    """A box with a title and small print."""
    place = (left, middle - height / 2), width, height
    axes.add_patch(Rectangle(*place, facecolor=PAPER, edgecolor=colour, linewidth=1.2))
    _write(axes, left + width / 2, middle, words, size)


def _write(axes: Axes, x: float, y: float, words: tuple[str, str], size: float) -> None:
    """A title above y and small print below it."""
    look = {"ha": "center", "parse_math": False}
    axes.text(x, y, words[0], fontsize=size, weight="bold", color=INK, va="bottom", **look)
    axes.text(x, y + 0.004, words[1], fontsize=0.85 * size, color=GREY, va="top", **look)


def _arrow(axes: Axes, start: tuple[float, float], end: float) -> None:
    look = {"arrowstyle": "-|>", "color": EDGE, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (start[0], end), start, arrowprops=look)
