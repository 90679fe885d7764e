"""The architecture as a drawing: backbone stages, levels, hypercolumn, classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from data.figures.plots import COLOURS, GREY, INK, PAGE, POINTS, size_to_fit

EDGE, PAPER = "#9aa0a6", "#f4f6f8"
# All places are inches from the left and from the top. The drawing leaves room for a title above it
# and for a page number below it.
TOP, BOTTOM = 1.75, 7.35
STAGES, BLOCKS, NAMES, COLUMN, HEAD = 0.55, 3.3, 4.45, 6.95, 8.25  # left edges
STAGE_WIDTH, BLOCK_WIDTH, NAME_WIDTH, COLUMN_WIDTH, HEAD_WIDTH = 2.3, 1.0, 1.4, 0.35, 2.89
INDENT, PAD = 0.3, 0.1  # of a context box below the stages, and of text in a box
PITCH, FILLED = 0.95, 0.72  # of boxes below one another: at most, and the share that a box takes
Levels = Sequence[tuple[str, tuple[int, int, int]]]  # name and (C, h, w)


def draw_architecture(
    *,
    backbone: str,
    fine_tuned: bool,
    parameters: int,
    size: int,
    grid: int,
    stages: Sequence[Mapping[str, Any]],
    levels: Levels,
    context: Sequence[str],
    head: Sequence[tuple[str, str]],
    head_parameters: int,
) -> Figure:
    """The network on an A4 landscape figure; the arguments are those of `models.summary`."""
    figure = Figure(figsize=PAGE)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE[0]), ylim=(PAGE[1], 0))
    axes.set_axis_off()
    z = sum(shape[0] for _, shape in levels)
    state = "fine-tuned" if fine_tuned else "frozen"
    for middle, title, line in (
        (STAGES + STAGE_WIDTH / 2, f"{backbone}, {state}", f"{parameters:,} parameters"),
        ((BLOCKS + NAMES + NAME_WIDTH) / 2, f"{len(levels)} levels", "channels × height × width"),
        (COLUMN + COLUMN_WIDTH / 2, "hypercolumn", f"Z = {z} at {grid} × {grid} places"),
        (HEAD + HEAD_WIDTH / 2, "classifier at every place", f"{head_parameters:,} parameters"),
    ):
        _two_lines(axes, middle, TOP - 0.3, (title, line), 2.5, 10.5, gap=0.06)
    middles, height = _below_one_another(1 + len(stages) + len(context))
    image = f"image 3 × {size} × {size}", "normalised as for ImageNet"
    _box(axes, STAGES, middles[0], STAGE_WIDTH, height, image)
    rows = _draw_stages(axes, stages, middles, height)
    rows += _draw_context(axes, context, middles[len(stages) :], height)
    for middle in rows:
        _arrow(axes, (STAGES + STAGE_WIDTH, middle), (BLOCKS, middle))
    _draw_levels(axes, levels, rows, height, middles)
    _draw_head(axes, head)
    return figure


def _draw_stages(
    axes: Axes, stages: Sequence[Mapping[str, Any]], middles: Sequence[float], height: float
) -> list[float]:
    """The stages below the image; the places of those that are used."""
    centre = STAGES + STAGE_WIDTH / 2
    for above, middle, stage in zip(middles, middles[1:], stages):
        _arrow(axes, (centre, above + height / 2), (centre, middle - height / 2))
        words = f"stage {stage['tap']}", stage["layers"]
        _box(axes, STAGES, middle, STAGE_WIDTH, height, words, stage["used"])
        if not stage["used"]:
            axes.text(BLOCKS, middle, "not tapped", fontsize=8, color=GREY, va="center")
    return [middle for middle, stage in zip(middles[1:], stages) if stage["used"]]


def _draw_context(
    axes: Axes, context: Sequence[str], middles: Sequence[float], height: float
) -> list[float]:
    """The means of the last tap, below its stage (the first of the middles); their places."""
    left, start = STAGES + INDENT, middles[0] + height / 2
    for middle, words in zip(middles[1:], context):
        line = [STAGES + INDENT / 2, STAGES + INDENT / 2, left], [start, middle, middle]
        axes.plot(*line, color=EDGE, linewidth=1)
        box = "mean of the last tap", words
        _box(axes, left, middle, STAGE_WIDTH - INDENT, height, box)
    return list(middles[1:])


def _draw_levels(
    axes: Axes, levels: Levels, rows: Sequence[float], height: float, middles: Sequence[float]
) -> None:
    """Each level as a block, as wide as it has channels, and its part of the hypercolumn."""
    channels = [shape[0] for _, shape in levels]
    tallest = max(shape[1] for _, shape in levels)
    start, bottom = middles[0] - height / 2, middles[-1] + height / 2
    inches = (bottom - start) / sum(channels)
    for index, ((name, shape), middle) in enumerate(zip(levels, rows)):
        look = {"facecolor": COLOURS[index % len(COLOURS)], "linewidth": 0.8}
        wide = BLOCK_WIDTH * shape[0] / max(channels)
        tall = max(0.06, height * (shape[1] / tallest) ** 0.5)  # a coarse level is still seen
        axes.add_patch(Rectangle((BLOCKS, middle - tall / 2), wide, tall, **look))
        words = name, " × ".join(map(str, shape))
        _two_lines(axes, NAMES, middle, words, NAME_WIDTH, _letters(height), ha="left")
        end = start + inches * shape[0]
        ribbon = _ribbon(NAMES + NAME_WIDTH, middle, height / 3, COLUMN, start, end)
        axes.add_patch(PathPatch(ribbon, **look | {"linewidth": 0}, alpha=0.25))
        part = (COLUMN, start), COLUMN_WIDTH, end - start
        axes.add_patch(Rectangle(*part, **look, edgecolor="white"))
        start = end


def _ribbon(
    left: float, middle: float, height: float, right: float, start: float, end: float
) -> Path:
    """The outline of a band from a level to its part of the hypercolumn."""
    bend, upper, lower = (left + right) / 2, middle - height / 2, middle + height / 2
    return Path(
        [(left, upper), (bend, upper), (bend, start), (right, start)]
        + [(right, end), (bend, end), (bend, lower), (left, lower), (left, upper)],
        [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY],
    )


def _draw_head(axes: Axes, boxes: Sequence[tuple[str, str]]) -> None:
    centre = HEAD + HEAD_WIDTH / 2
    middles, height = _below_one_another(len(boxes))
    _arrow(axes, (COLUMN + COLUMN_WIDTH, middles[0]), (HEAD, middles[0]))
    for above, middle in zip(middles, middles[1:]):
        _arrow(axes, (centre, above + height / 2), (centre, middle - height / 2))
    for middle, words in zip(middles, boxes):
        _box(axes, HEAD, middle, HEAD_WIDTH, height, words)


def _below_one_another(count: int) -> tuple[list[float], float]:
    """The middles of `count` boxes, and their height."""
    pitch = min(PITCH, (BOTTOM - TOP) / count)
    return [TOP + (row + 0.5) * pitch for row in range(count)], FILLED * pitch


def _letters(height: float) -> float:
    """Their size in points where two lines have to fit into a box of that height."""
    return min(9, 0.36 * POINTS * height)


def _box(
    axes: Axes,
    left: float,
    middle: float,
    width: float,
    height: float,
    words: tuple[str, str],
    used: bool = True,
) -> None:
    """A box with a title and small print; dashed where it is not used."""
    look = {"facecolor": PAPER if used else "white", "linestyle": "-" if used else "--"}
    look |= {"edgecolor": EDGE, "linewidth": 0.9, "boxstyle": "round,pad=0,rounding_size=0.06"}
    axes.add_patch(FancyBboxPatch((left, middle - height / 2), width, height, **look))
    centre, ink = left + width / 2, INK if used else GREY
    _two_lines(axes, centre, middle, words, width - 2 * PAD, _letters(height), color=ink)


def _two_lines(
    axes: Axes,
    x: float,
    y: float,
    words: tuple[str, str],
    room: float,
    size: float,
    ha: str = "center",
    color: str = INK,
    gap: float = 0.03,
) -> None:
    """A title above y and small print below it, each smaller where it needs more than `room`."""
    look = {"ha": ha, "parse_math": False}
    title = {"fontsize": size_to_fit(words[0], room, size, bold=True), "weight": "bold"}
    small = {"fontsize": size_to_fit(words[1], room, 0.9 * size), "color": GREY}
    axes.text(x, y - gap / 2, words[0], color=color, va="bottom", **title, **look)
    axes.text(x, y + gap / 2, words[1], va="top", **small, **look)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": EDGE, "linewidth": 1, "mutation_scale": 9}
    axes.annotate("", end, start, arrowprops={**look, "shrinkA": 0, "shrinkB": 0})
