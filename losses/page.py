"""A page of a document, A4 landscape: text that is measured before it is written, and room for charts."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

WIDTH, HEIGHT = 11.69, 8.27  # inches
MARGIN, TOP, BOTTOM = 0.55, 1.25, 7.65  # of what a page holds below its title, from the left and from the top
INK, GREY, RULE = "#202124", "#6e7278", "#d0d3d7"
POINTS = 72  # an inch
DIGITS = 6  # of a place as a share of the page
FINE = 720  # dots an inch, to measure text
MONOSPACE = {"family": "monospace"}


class Page:
    """A page with a title; places are inches from its left and its top.

    Args:
        title: at the top.
        figure: what is there already, for example a drawing; else the page is blank.
    """

    def __init__(self, title: str, figure: Figure | None = None):
        self.figure = figure or Figure()
        self.figure.set_size_inches(WIDTH, HEIGHT)
        self._ruler = RendererAgg(1, 1, FINE)  # only measures
        self.write(MARGIN, 0.75, self.fit(title, WIDTH - 2 * MARGIN, 19, weight="bold"), 19, weight="bold")
        self.rule(0.95)

    def rule(self, y: float) -> None:
        """A thin line across the page."""
        ends = MARGIN / WIDTH, 1 - MARGIN / WIDTH
        self.figure.add_artist(Line2D(ends, [1 - y / HEIGHT] * 2, color=RULE, linewidth=0.8))

    def write(self, x: float, y: float, text: str, size: float = 9, color: str = INK, ha: str = "left", **font) -> None:
        """A line of text with its baseline at y."""
        place = x / WIDTH, 1 - y / HEIGHT
        self.figure.text(*place, plain(text), fontsize=size, color=color, ha=ha, parse_math=False, **font)

    def write_lines(self, x: float, y: float, lines: Sequence[str], size: float = 9, **look) -> float:
        """Lines below one another, the first with its baseline at y; the y of the line after the last."""
        for line in lines:
            self.write(x, y, line, size, **look)
            y += 1.5 * size / POINTS
        return y

    def width(self, text: str, size: float = 9, **font) -> float:
        """Of a line of text, in inches."""
        properties = FontProperties(size=size, **font)
        return self._ruler.get_text_width_height_descent(plain(text), properties, ismath=False)[0] / FINE

    def fit(self, text: str, room: float, size: float = 9, **font) -> str:
        """The text on a line of at most `room` inches: where it is too long an ellipsis stands for its middle."""

        def shortened(kept: int) -> str:
            return text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]

        text = plain(text)
        if self.width(text, size, **font) <= room:
            return text
        fitting = bisect_right(range(len(text)), room, key=lambda kept: self.width(shortened(kept), size, **font))
        return shortened(max(0, fitting - 1))

    def wrap(self, words: Iterable[str], room: float, size: float = 9, **font) -> list[str]:
        """The words on lines of at most `room` inches; only a word too long for a line is broken."""
        lines: list[str] = []
        for word in map(plain, words):
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size, **font) <= room:
                lines[-1] = longer
                continue
            while self.width(word, size, **font) > room:
                ends = range(1, len(word))
                fitting = bisect_right(ends, room, key=lambda end, word=word: self.width(word[:end], size, **font))
                lines.append(word[: max(1, fitting)])
                word = word[max(1, fitting) :]
            lines.append(word)
        return lines

    def charts(self, left: float, top: float, right: float, bottom: float) -> Figure:
        """The figure, whose axes will lie, with all that belongs to them, between these places."""
        rect = left / WIDTH, 1 - bottom / HEIGHT, (right - left) / WIDTH, (bottom - top) / HEIGHT
        self.figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect, wspace=0.04, hspace=0.04, compress=True))
        return self.figure

    def settle(self) -> Figure:
        """The figure, its layout done and rounded: the last digits of what the solver finds are not always the same."""
        for _ in range(2):  # a text of fixed size beside a bar needs more room once the bar has become shorter
            self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        for part in self.figure.findobj(SubFigure):
            part.bbox_relative.set_points(part.bbox_relative.get_points().round(DIGITS))
        for axes in self.figure.axes:
            axes.set_position(Bbox(axes.get_position(original=True).get_points().round(DIGITS)))
        return self.figure


def plain(text: str) -> str:
    """The text on one line, without what no font can write: the odd bytes of a file name become question marks."""
    return re.sub(r"\s", " ", text.encode("utf-8", "replace").decode())
