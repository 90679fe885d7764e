"""The charts: every one is a readable PNG that shows its data, also with few rows, gaps and many classes."""

import io
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from losses.plots import plot_confusion, plot_curve, plot_iou_bars

counts = pytest.mark.parametrize("count", [2, 21, 60])


def drawn(plot, *arguments) -> np.ndarray:
    """The picture that a plot writes, RGB; it must be a PNG with more than white in it."""
    file = io.BytesIO()
    plot(file, *arguments)
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.min() < 128 and (pixels < 240).any(axis=2).mean() > 0.005
    return pixels


def row(epoch: float, **values) -> dict:
    return {"epoch": epoch, "lr": 0.1, "seconds": 3.0, "step": 7, **values}


def names(count: int) -> list[str]:
    return [f"$\\class_{index}$" for index in range(count)]  # as a formula it would be an error


@pytest.fixture
def curves(monkeypatch) -> dict:
    """The points of every curve, by label."""
    seen, plot = {}, Axes.plot

    def spy(axes, x, y, **look):
        seen[look["label"]] = list(zip(x, y))
        return plot(axes, x, y, **look)

    monkeypatch.setattr(Axes, "plot", spy)
    return seen


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([row(1, train_loss=2.5, miou=0.25)], {"train_loss": [(1, 2.5)], "miou": [(1, 0.25)]}),
        (
            [row(i, train_loss=1 / i, val_loss=2 / i, miou=0.5) for i in range(1, 30)],
            {
                "train_loss": [(i, 1 / i) for i in range(1, 30)],
                "val_loss": [(i, 2 / i) for i in range(1, 30)],
                "miou": [(i, 0.5) for i in range(1, 30)],
            },
        ),
        (
            [row(1, loss=2.0, miou=None), row(2, loss=math.nan, miou=0.5), row(3, loss=math.inf), row(4, loss=1.0)],
            {"loss": [(1, 2.0), (4, 1.0)], "miou": [(2, 0.5)]},
        ),
        ([row(1, miou=0.5), row(2, miou=0.75)], {"miou": [(1, 0.5), (2, 0.75)]}),
        ([row(1, loss=0.5), row(2, loss=0.25)], {"loss": [(1, 0.5), (2, 0.25)]}),
        ([row(1, loss=None)], {}),
        ([], {}),
    ],
    ids=["one_row", "many_rows", "gaps", "scores_only", "losses_only", "no_value", "no_row"],
)
def test_curve_draws_the_finite_values(rows, expected, curves):
    drawn(plot_curve, rows, "a $\\run$")
    assert curves == expected


def test_curves_of_losses_and_scores_have_a_panel_each():
    one = drawn(plot_curve, [row(1, loss=0.5)], "title")
    two = drawn(plot_curve, [row(1, loss=0.5, miou=0.5)], "title")
    assert two.shape[1] > 1.5 * one.shape[1]


@counts
def test_confusion_is_drawn(count):
    matrix = np.random.default_rng(0).integers(0, 1000, (count, count)) + 5000 * np.eye(count, dtype=int)
    drawn(plot_confusion, matrix, names(count))


def test_confusion_shows_shares_of_the_truth_in_every_cell_that_has_one(monkeypatch):
    seen, text = {}, Axes.text

    def spy(axes, x, y, label, **look):
        seen[y, x] = label
        return text(axes, x, y, label, **look)

    monkeypatch.setattr(Axes, "text", spy)
    drawn(plot_confusion, np.array([[30, 10, 0], [0, 0, 0], [1, 0, 999]]), names(3))
    assert seen == {(0, 0): "75", (0, 1): "25", (2, 2): "100"}


def test_confusion_without_any_pixel_is_drawn():
    drawn(plot_confusion, np.zeros((3, 3), dtype=np.int64), names(3))


@counts
def test_iou_bars_are_drawn_with_room_for_every_class(count):
    pixels = drawn(plot_iou_bars, names(count), np.linspace(0, 1, count).tolist(), 0.5)
    assert pixels.shape[0] > 25 * count  # px: a line of text each


def test_iou_bars_are_sorted_and_absent_classes_come_last(monkeypatch):
    seen, text = {}, Axes.text

    def spy(axes, x, y, label, **look):
        seen[y] = label
        return text(axes, x, y, label, **look)

    monkeypatch.setattr(Axes, "text", spy)
    drawn(plot_iou_bars, names(4), [0.25, None, 0.0, 0.75], 1 / 3)
    assert [label for _, label in sorted(seen.items())] == ["mIoU 0.333", "0.750", "0.250", "0.000", "absent"]


def test_iou_bars_without_any_iou_are_drawn():
    drawn(plot_iou_bars, names(2), [None, None], math.nan)


def test_a_plot_can_be_written_to_a_path(tmp_path):
    plot_iou_bars(tmp_path / "iou.png", names(2), [0.5, 1.0], 0.75)
    with Image.open(tmp_path / "iou.png") as picture:
        assert picture.format == "PNG"
