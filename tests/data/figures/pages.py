"""Pages of figures as a reader has them: the texts that are really drawn, and where."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Bbox

DPI = 200  # at less, small letters are rounded to whole pixels and get wider than they are in print


class Recorder(RendererAgg):
    """Takes note of every line of text that it draws."""

    def __init__(self, figure: Figure):
        super().__init__(*figure.bbox.size, figure.dpi)
        self.texts: list[tuple[str, Bbox, float]] = []

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        line = np.array([[0, 0], [width, height]]) - [0, descent]
        turned = Affine2D().rotate_deg(angle).translate(x, self.height - y).transform(line)
        if s.strip():
            box = Bbox([turned.min(0), turned.max(0)])
            self.texts.append((s, box, prop.get_size_in_points()))


def texts(figure: Figure) -> list[tuple[str, Bbox, float]]:
    """Every line of text on the figure, the pixels that it covers, the points of its letters."""
    figure.set_dpi(DPI)
    recorder = Recorder(figure)
    figure.draw(recorder)
    return recorder.texts


def words(figure: Figure) -> str:
    """What is written, single blanks between the words."""
    return " ".join(" ".join(line for line, *_ in texts(figure)).split())


def faults(figure: Figure) -> list[str]:
    """What is wrong with the texts: those too small, that leave the figure, and that overlap."""
    written, found = texts(figure), []
    for words, box, size in written:
        found += [f"{words!r} has {size} points"] * (size < 7)
        leaves = (box.min < 0).any() or (box.max > figure.bbox.size).any()
        found += [f"{words!r} leaves the page"] * bool(leaves)
    inner = [(words, box.shrunk(1, 0.85)) for words, box, _ in written]  # letters are not so tall
    overlaps = [pair for pair in combinations(inner, 2) if pair[0][1].fully_overlaps(pair[1][1])]
    return found + [f"{first!r} and {second!r} overlap" for (first, _), (second, _) in overlaps]
