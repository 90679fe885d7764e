"""Pages of figures as a reader has them: the texts that are really drawn, and where."""

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Bbox

DPI = 200  # at less, small letters are rounded to whole pixels and get wider than they are in print


class Recorder(RendererAgg):
    """Takes note of every line of text that it draws, and of the pixels that it covers."""

    def __init__(self, figure: Figure):
        super().__init__(*figure.bbox.size, figure.dpi)
        self.texts: list[tuple[str, Bbox]] = []
        self.sizes: dict[str, float] = {}  # of the letters, in points

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        line = np.array([[0, 0], [width, height]]) - [0, descent]
        turned = Affine2D().rotate_deg(angle).translate(x, self.height - y).transform(line)
        if s.strip():
            self.texts.append((s, Bbox([turned.min(0), turned.max(0)])))
            self.sizes[s] = prop.get_size_in_points()


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every line of text that is drawn on the figure."""
    return drawn(figure).texts


def drawn(figure: Figure) -> Recorder:
    figure.set_dpi(DPI)
    recorder = Recorder(figure)
    figure.draw(recorder)
    return recorder


def faults(figure: Figure) -> list[str]:
    """What is wrong with the texts: those too small, that leave the figure, and that overlap."""
    recorder = drawn(figure)
    written = recorder.texts
    width, height = figure.bbox.size
    found = [f"{text!r} has {size} points" for text, size in recorder.sizes.items() if size < 7]
    found += [
        f"{text!r} leaves the page"
        for text, box in written
        if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height
    ]
    inner = [(text, box.shrunk(1, 0.85)) for text, box in written]  # letters are not so tall
    for index, (first, box) in enumerate(inner):
        for second, other in inner[index + 1 :]:
            apart_across = box.x1 <= other.x0 or other.x1 <= box.x0
            if not (apart_across or box.y1 <= other.y0 or other.y1 <= box.y0):
                found.append(f"{first!r} and {second!r} overlap")
    return found
