"""The charts show their data, also with few rows, gaps and many classes."""

import math

import numpy as np
import pytest

from data.figures import charts
from tests.data.figures.pages import faults, words


def names(count: int) -> list[str]:
    return [f"$\\class_{index}$" for index in range(count)]  # as a formula it would be an error


def test_curves_have_the_finite_values_losses_scores_and_rates_apart():
    rows = [
        {"epoch": 0, "step": 7, "lr": None, "loss": None, "val_loss": 1.5, "miou": 0.5},
        {"epoch": 1, "seconds": 3.0, "lr": 0.1, "loss": math.nan, "val_loss": 1.0, "miou": 0.75},
        {"epoch": 2, "seconds": 3.0, "lr": 0.2, "loss": 2.0, "val_loss": math.inf},
    ]
    figure = charts.curve(rows, "a $\\run$")
    assert "a $\\run$" in words(figure)
    curves = [{c.get_label(): c.get_xydata().tolist() for c in axes.lines} for axes in figure.axes]
    assert curves == [
        {"loss": [[2, 2.0]], "val_loss": [[0, 1.5], [1, 1.0]]},
        {"miou": [[0, 0.5], [1, 0.75]]},
        {"lr": [[1, 0.1], [2, 0.2]]},
    ]
    assert not charts.curve([{"epoch": 1, "loss": None}], "").axes[0].lines


def test_runs_have_a_dot_in_their_interval_and_a_difference_to_the_first():
    keys = "run differs verdict miou miou_low miou_high difference difference_low difference_high"
    rows = [("$\\a$", "", "", 0.5, 0.48, 0.52, 0, 0, 0)]
    rows += [("$\\b$", "--lr 0.1", "better", 0.6, 0.58, 0.62, 0.1, 0.08, 0.11)]
    figure = charts.comparison([dict(zip(keys.split(), row)) for row in rows])
    shown = ([0.5, 0.6], [0.58, 0.62]), ([0, 0.1], [0.08, 0.11])
    for axes, (places, ends) in zip(figure.axes, shown):
        assert [float(line.get_xdata()[0]) for line in axes.lines[:2]] == places
        assert axes.collections[1].get_segments()[0] == pytest.approx(np.array([ends, [1, 1]]).T)
    found = ("0.500", "+0.100 better", "--lr 0.1", "$\\a$", "$\\b$")
    assert all(text in words(figure) for text in found) and faults(figure) == []


def test_confusion_has_the_shares_of_the_truth():
    figure = charts.confusion(np.array([[30, 10, 0], [0, 0, 0], [1, 0, 999]]), names(3))
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}  # (column, row)
    assert np.isnan(figure.axes[0].images[0].get_array()[1].filled(np.nan)).all()


def test_bars_are_sorted_and_absent_classes_come_last_but_counts_keep_their_order():
    figure = charts.iou_bars([*"abcd"], [0.25, None, 0.0, 0.75], 1 / 3)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [*"dacb"]
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25, 0, 0]
    assert words(figure).count("absent") == 1 and "mIoU 0.333" in words(figure)
    figure = charts.class_counts(["a", "b", "c"], [0, 1234567, 8])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, 1234567, 8]
    assert "1,234,567" in words(figure)


@pytest.mark.parametrize("count", [2, 21, 60, 255])
def test_charts_of_any_number_of_classes_are_bounded_and_legible(count):
    random = np.random.default_rng(0)
    ious = [None, *random.random(count - 1).tolist()]
    matrix = random.integers(0, 99, (count, count))
    bars, squares = charts.iou_bars(names(count), ious, 0.5), charts.confusion(matrix, names(count))
    for figure in (bars, squares):
        assert faults(figure) == []
        assert max(figure.get_size_inches()) * 120 < 2500
