"""The architecture as a drawing: backbone stages, the levels tapped from them, the hypercolumn, the classifier."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from torch import nn
from torchvision.models.squeezenet import Fire

from models.backbones import dilate, empty_features, find_taps
from models.hypercolumn import Hypercolumn, level_names
from models.segmenter import Segmenter

WIDTH, HEIGHT = 11.69, 8.27  # inches, A4 landscape
TOP, BOTTOM = 1.75, 7.35  # of the drawing, inches from the top: above and below is room for a title and a page number
INK, GREY, EDGE, PAPER = "#202124", "#6e7278", "#9aa0a6", "#f4f6f8"
LEVELS = ("#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9")  # Okabe and Ito's, colour-blind safe
STAGES, GLYPHS, TEXTS, COLUMN, HEAD = 0.55, 3.3, 4.45, 6.95, 8.25  # left edges of what is side by side, in inches
STAGE_WIDTH, GLYPH_WIDTH, TEXT_WIDTH, COLUMN_WIDTH, HEAD_WIDTH = 2.3, 1.0, 1.4, 0.35, 2.89
CONTEXT_INDENT, PAD = 0.3, 0.1
PITCH, FILLED = 0.95, 0.72  # of boxes below one another: inches at most, and the share that a box takes of it
POINTS = 72  # an inch
FINE = 720  # dots an inch, to measure text


class Stage(NamedTuple):
    """The layers of a backbone up to a tap, from the one before."""

    tap: int  # 1 = finest
    layers: str  # in words
    shape: tuple[int, int, int]  # (C, h, w) of the result
    used: bool  # whether the hypercolumn has this level


class Box(NamedTuple):
    """Something in a drawing: its title, and lines in small print."""

    title: str
    lines: Sequence[str]


def draw_architecture(segmenter: Segmenter) -> Figure:
    """The network on an A4 landscape figure, for a square input of its size; all numbers are read off the modules."""
    hypercolumn, size = segmenter.hypercolumn, segmenter.size
    grid = -(-size // segmenter.stride)
    stages = backbone_stages(hypercolumn, size, size)
    shapes = hypercolumn.level_shapes(size, size)
    names = level_names(hypercolumn.taps, hypercolumn.context)
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()

    state = "frozen" if segmenter.origin is None else "fine-tuned"
    _heading(axes, STAGES, STAGE_WIDTH, f"{hypercolumn.backbone}, {state}", f"{_parameters(hypercolumn):,} parameters")
    _heading(axes, GLYPHS, TEXTS + TEXT_WIDTH - GLYPHS, f"{len(shapes)} levels", "channels × height × width")
    line = f"Z = {hypercolumn.Z} at {grid} × {grid} places"
    _heading(axes, COLUMN - 0.85, COLUMN_WIDTH + 1.7, "hypercolumn", line)
    parameters = f"{_parameters(segmenter.head):,} parameters"
    _heading(axes, HEAD, HEAD_WIDTH, "classifier at every place", parameters)

    middles, height = _below_one_another(1 + len(stages) + len(hypercolumn.context))
    _box(
        axes, STAGES, middles[0], STAGE_WIDTH, height, Box(f"image 3 × {size} × {size}", ["normalised as for ImageNet"])
    )
    rows = []  # the places of the levels
    for above, middle, stage in zip(middles, middles[1:], stages):
        _arrow(axes, (STAGES + STAGE_WIDTH / 2, above + height / 2), (STAGES + STAGE_WIDTH / 2, middle - height / 2))
        _box(axes, STAGES, middle, STAGE_WIDTH, height, Box(f"stage {stage.tap}", [stage.layers]), stage.used)
        if stage.used:
            rows.append(middle)
            _arrow(axes, (STAGES + STAGE_WIDTH, middle), (GLYPHS, middle))
        else:
            _text(axes, GLYPHS, middle, "not tapped", TEXT_WIDTH, 8, GREY)
    for what, middle in zip(hypercolumn.context, middles[1 + len(stages) :]):
        left, source = STAGES + CONTEXT_INDENT, middles[len(stages)] + height / 2
        axes.plot([STAGES + 0.12] * 2 + [left], [source, middle, middle], color=EDGE, linewidth=1)
        box = Box("mean of the last tap", [_window(what, hypercolumn.dilated)])
        _box(axes, left, middle, STAGE_WIDTH - CONTEXT_INDENT, height, box)
        _arrow(axes, (STAGES + STAGE_WIDTH, middle), (GLYPHS, middle))
        rows.append(middle)

    widest, tallest = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    top, bottom = middles[0] - height / 2, middles[-1] + height / 2
    for index, (name, shape, middle) in enumerate(zip(names, shapes, rows)):
        colour = LEVELS[index % len(LEVELS)]
        glyph = GLYPH_WIDTH * shape[0] / widest, max(0.06, height * (shape[1] / tallest) ** 0.5)
        axes.add_patch(Rectangle((GLYPHS, middle - glyph[1] / 2), *glyph, facecolor=colour, edgecolor="none"))
        _text(axes, TEXTS, middle, name, TEXT_WIDTH, _size(height, 9), INK, "bottom", weight="bold")
        _text(axes, TEXTS, middle, " × ".join(map(str, shape)), TEXT_WIDTH, _size(height, 8), GREY, "top")
        share = [sum(hypercolumn.channels[:end]) / hypercolumn.Z for end in (index, index + 1)]
        start, end = (top + part * (bottom - top) for part in share)
        _ribbon(axes, TEXTS + TEXT_WIDTH, middle, height / 3, COLUMN, start, end, colour)
        axes.add_patch(
            Rectangle((COLUMN, start), COLUMN_WIDTH, end - start, facecolor=colour, edgecolor="white", linewidth=0.8)
        )
    _draw_head(axes, segmenter, grid)
    return figure


def backbone_stages(hypercolumn: Hypercolumn, height: int, width: int) -> list[Stage]:
    """The stages of the backbone up to the last tap, also those that are not tapped, for an input of this size."""
    layers = empty_features(hypercolumn.backbone)
    ends = find_taps(hypercolumn.backbone, layers)[: hypercolumn.taps[-1]]
    layers = dilate(layers[: ends[-1] + 1], hypercolumn.dilated).eval()
    x, start, stages = torch.empty(1, 3, height, width, device="meta"), 0, []
    for tap, end in enumerate(ends, start=1):
        stage = layers[start : end + 1]
        x, start = stage(x), end + 1
        stages.append(Stage(tap, _in_words(stage), tuple(x.shape[1:]), tap in hypercolumn.taps))
    return stages


def _in_words(stage: nn.Sequential) -> str:
    counts: dict[str, int] = {}
    rate = 1
    for layer in stage:
        if isinstance(layer, nn.MaxPool2d):
            name = f"pool /{layer.stride}"
        elif isinstance(layer, nn.Conv2d):
            stride = f" /{layer.stride[0]}" if layer.stride[0] > 1 else ""
            name = f"conv {layer.kernel_size[0]}×{layer.kernel_size[1]}{stride}"
        elif isinstance(layer, Fire):
            name = "fire"
        else:
            continue
        counts[name] = counts.get(name, 0) + 1
        rate = max([rate, *(inner.dilation[0] for inner in layer.modules() if isinstance(inner, nn.Conv2d))])
    words = [name if count == 1 else f"{count} × {name}" for name, count in counts.items()]
    norm = any(isinstance(layer, nn.BatchNorm2d) for layer in stage)
    return ", ".join(words + ["batch norm"] * norm + [f"dilation {rate}"] * (rate > 1))


def _window(what: str, dilated: int) -> str:
    """The part of the image that a context level averages over."""
    if what == "image":
        return "over the whole image"
    if what == "quadrants":
        return "over its quadrants"
    side = int(what) * 2**dilated | 1
    return f"over {side} × {side} around each place"


def _draw_head(axes: Axes, segmenter: Segmenter, grid: int) -> None:
    head = segmenter.head
    boxes = [Box("standardise", ["(x − mean) / std of the sampled features"])]
    for layer in head.layers:
        if isinstance(layer, nn.Conv2d):
            title = f"1×1 convolution {layer.in_channels} → {layer.out_channels}"
            boxes.append(Box(title, [f"{_parameters(layer):,} parameters"]))
        elif isinstance(layer, nn.Dropout2d):
            boxes[-1].lines[0] += f", dropout {layer.p:g}"
        else:
            boxes[-1].lines[0] += f", {type(layer).__name__}"
    boxes.append(Box(f"logits {len(segmenter.names)} × {grid} × {grid}", ["upsampled to the size of the photo"]))
    boxes.append(Box("class map", ["the most likely class of each pixel"]))
    middles, height = _below_one_another(len(boxes))
    _arrow(axes, (COLUMN + COLUMN_WIDTH, middles[0]), (HEAD, middles[0]))
    for above, middle in zip(middles, middles[1:]):
        _arrow(axes, (HEAD + HEAD_WIDTH / 2, above + height / 2), (HEAD + HEAD_WIDTH / 2, middle - height / 2))
    for middle, box in zip(middles, boxes):
        _box(axes, HEAD, middle, HEAD_WIDTH, height, box)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _below_one_another(count: int) -> tuple[list[float], float]:
    """The middles of so many boxes, and their height."""
    pitch = min(PITCH, (BOTTOM - TOP) / count)
    return [TOP + (row + 0.5) * pitch for row in range(count)], FILLED * pitch


def _size(height: float, largest: float) -> float:
    """Points of a line of text where two have to fit into a box of that height."""
    return min(largest, 0.36 * POINTS * height)


def _heading(axes: Axes, left: float, width: float, title: str, line: str) -> None:
    _text(axes, left + width / 2, TOP - 0.32, title, width, 10.5, INK, "bottom", "center", weight="bold")
    _text(axes, left + width / 2, TOP - 0.26, line, width, 8.5, GREY, "top", "center")


def _box(axes: Axes, left: float, middle: float, width: float, height: float, box: Box, used: bool = True) -> None:
    style = "round,pad=0,rounding_size=0.06"
    look = {"facecolor": PAPER if used else "white", "edgecolor": EDGE, "linestyle": "-" if used else "--"}
    axes.add_patch(FancyBboxPatch((left, middle - height / 2), width, height, boxstyle=style, linewidth=0.9, **look))
    size = _size(height, 9)
    ink = INK if used else GREY
    _text(
        axes, left + width / 2, middle - 0.01, box.title, width - 2 * PAD, size, ink, "bottom", "center", weight="bold"
    )
    _text(
        axes, left + width / 2, middle + 0.02, ", ".join(box.lines), width - 2 * PAD, 0.9 * size, GREY, "top", "center"
    )


def _text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    room: float,
    size: float,
    color: str,
    va: str = "center",
    ha: str = "left",
    **font,
) -> None:
    """A line of text, smaller where it would need more than `room` inches."""
    look = {"color": color, "va": va, "ha": ha, "parse_math": False, **font}
    written = axes.text(x, y, text, fontsize=size, **look)
    ruler = RendererAgg(1, 1, FINE)
    needed = ruler.get_text_width_height_descent(text, written.get_fontproperties(), ismath=False)[0] / FINE
    written.set_fontsize(size * min(1, room / needed))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": EDGE, "shrinkA": 0, "shrinkB": 0, "linewidth": 1, "mutation_scale": 9}
    axes.annotate("", end, start, arrowprops=look)


def _ribbon(
    axes: Axes, left: float, middle: float, height: float, right: float, start: float, end: float, colour: str
) -> None:
    """From a level, in the middle of its row, to its part of the hypercolumn."""
    bend = (left + right) / 2
    upper, lower = middle - height / 2, middle + height / 2
    path = Path(
        [(left, upper), (bend, upper), (bend, start), (right, start)]
        + [(right, end), (bend, end), (bend, lower), (left, lower), (left, upper)],
        [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY],
    )
    axes.add_patch(PathPatch(path, facecolor=colour, edgecolor="none", alpha=0.25))
