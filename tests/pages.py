"""Pages of figures as a reader has them: the texts that are really drawn, and where."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

DPI = 200  # at less, small letters are rounded to whole pixels and get wider than they are in print


def texts(figure: Figure, monkeypatch) -> list[tuple[str, Bbox]]:
    """Every text that is drawn on the figure, with the pixels that it covers."""
    drawn, draw = {}, Text.draw

    def spy(text, renderer, *arguments, **options):
        if text.get_visible() and text.get_text().strip():
            drawn[text] = text.get_text(), text.get_window_extent(renderer)
        return draw(text, renderer, *arguments, **options)

    figure.set_dpi(DPI)
    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", spy)
        FigureCanvasAgg(figure).draw()
    return list(drawn.values())


def faults(figure: Figure, monkeypatch) -> list[str]:
    """What is wrong with the figure's texts: those that leave it, and those that run into one another."""
    written = texts(figure, monkeypatch)
    width, height = figure.bbox.size
    found = [
        f"{text!r} leaves the page"
        for text, box in written
        if not (0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height)
    ]
    inner = [(text, box.shrunk(1, 0.85)) for text, box in written]  # letters never fill the box of their line
    for index, (first, box) in enumerate(inner):
        for second, other in inner[index + 1 :]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            found += [] if apart else [f"{first!r} and {second!r} overlap"]
    return found
