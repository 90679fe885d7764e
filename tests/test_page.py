"""A page of a document: text that fits, and charts that keep to their place."""

import shlex

import pytest
from matplotlib.figure import Figure

from losses.page import HEIGHT, MONOSPACE, WIDTH, Page
from tests.pages import faults, texts

TEXTS = [
    "short",
    "a text of several words that go on for a while",
    "/a/path/" + "folder/" * 40,
    "ünï $\\cødé$ \udce9",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("room", [0.3, 1.0, 4.0])
def test_a_shortened_text_fits_and_keeps_its_ends(text, room):
    page = Page("title")
    short, text = page.fit(text, room, 8), text.replace("\udce9", "?")
    assert page.width(short, 8) <= room
    if page.width(text, 8) <= room:
        assert short == text
    else:
        start, end = short.split("…")
        assert text.startswith(start) and text.endswith(end) and 0 <= len(start) - len(end) <= 1
        longer = text[: len(start) + 1] + "…" + text[len(text) - len(end) - 1 :]
        assert page.width(longer, 8) > room


@pytest.mark.parametrize("look", [{}, MONOSPACE], ids=["proportional", "monospace"])
@pytest.mark.parametrize("room", [0.3, 1.0, 4.0])
def test_wrapped_lines_fit_and_lose_nothing(look, room):
    page, words = Page("title"), " ".join(TEXTS[:3]).split()
    lines = page.wrap(words, room, 8, **look)
    assert all(page.width(line, 8, **look) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(words)
    for line, following in zip(lines, lines[1:]):  # nothing more would have fitted
        word = following.split()[0]
        assert page.width(f"{line} {word}", 8, **look) > room or line in words[-1]


def test_faults_are_found(monkeypatch):
    page = Page("title")
    page.write(2, 3, "one above")
    page.write(2, 3.05, "the other")
    page.write(WIDTH - 0.2, 5, "too far right")
    assert faults(page.settle(), monkeypatch) == [
        "'too far right' leaves the page",
        "'one above' and 'the other' overlap",
    ]


def test_wrapping_keeps_words_whole_that_fit():
    command = shlex.join(["python", "a b.py", "--flag", "two  spaces"])
    assert Page("title").wrap([command], 9) == [command]
    assert Page("title").wrap([], 9) == []


def test_a_text_is_written_where_it_belongs_and_never_as_a_formula(monkeypatch):
    page = Page("The $title")
    page.write(2, 3, "left $x^2$", 10)
    page.write(8, 3, "right", 10, ha="right")
    boxes = dict(texts(page.settle(), monkeypatch))
    dpi = page.figure.dpi
    assert boxes["left $x^2$"].x0 / dpi == pytest.approx(2, abs=0.03)
    assert boxes["right"].x1 / dpi == pytest.approx(8, abs=0.03)
    assert boxes["right"].y0 / dpi == pytest.approx(HEIGHT - 3, abs=0.05)
    assert "The $title" in boxes


@pytest.mark.parametrize("aspect", ["auto", "equal"])
def test_charts_keep_to_their_place_with_all_that_belongs_to_them(aspect, monkeypatch):
    page = Page("title")
    axes = page.charts(2, 3, 6, 7).subplots()
    axes.set_aspect(aspect)
    axes.set_ylabel("a label\non two lines")
    axes.set_title("its title", fontsize=20)
    figure = page.settle()
    box = axes.get_tightbbox().transformed(figure.dpi_scale_trans.inverted())
    assert 2 <= box.x0 and 3 <= HEIGHT - box.y1 and box.x1 <= 6.1 and HEIGHT - box.y0 <= 7
    assert box.width > 3 and box.height > 3
    assert faults(figure, monkeypatch) == []


def test_a_figure_that_is_there_becomes_a_page_of_the_same_size(monkeypatch):
    figure = Figure(figsize=(3, 3))
    figure.text(0.5, 0.5, "drawn before")
    page = Page("title", figure)
    assert page.settle() is figure and tuple(figure.get_size_inches()) == (WIDTH, HEIGHT)
    assert {text for text, _ in texts(figure, monkeypatch)} == {"drawn before", "title"}
