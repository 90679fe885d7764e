"""The charts show their data, also with few rows, gaps and many classes."""

import io
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from data.figures import plots
from tests.data.figures.pages import faults, texts


def row(epoch: float, **values) -> dict:
    return {"epoch": epoch, "seconds": 3.0, "step": 7, **values}


def names(count: int) -> list[str]:
    return [f"$\\class_{index}$" for index in range(count)]  # as a formula it would be an error


def words(figure: Figure) -> list[str]:
    return [text for text, _ in texts(figure)]


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    "rows, expected",
    [
        ([row(1, loss=2.5, miou=0.25)], [{"loss": [(1, 2.5)]}, {"miou": [(1, 0.25)]}]),
        ([row(1, loss=2.0, val_loss=3.0)], [{"loss": [(1, 2.0)], "val_loss": [(1, 3.0)]}]),
        ([row(1, miou=0.5), row(2, miou=0.75)], [{"miou": [(1, 0.5), (2, 0.75)]}]),
        (
            [
                row(0, lr=None, loss=None, val_loss=1.5, miou=0.5),
                row(1, lr=0.1, backbone_lr=0.2, loss=math.nan, val_loss=1.0, miou=0.75),
                row(2, lr=0.2, loss=2.0, val_loss=math.inf),
            ],
            [
                {"loss": [(2, 2.0)], "val_loss": [(0, 1.5), (1, 1.0)]},
                {"miou": [(0, 0.5), (1, 0.75)]},
                {"lr": [(1, 0.1), (2, 0.2)], "backbone_lr": [(1, 0.2)]},
            ],
        ),
        ([row(1, loss=None)], [{}]),
        ([], [{}]),
    ],
    ids=["one row", "losses", "scores", "all with gaps", "no value", "no row"],
)
def test_curves_have_the_finite_values_losses_scores_and_rates_apart(rows, expected, stacked):
    figure = Figure()
    panels = plots.draw_curve(figure, rows, stacked)
    found = [
        {line.get_label(): [tuple(point) for point in line.get_xydata()] for line in axes.lines}
        for axes in figure.axes
    ]
    assert found == expected and panels == len(expected)


def test_axes_of_curves_fit_the_data():
    figure = Figure()
    rows = [row(1, loss=2.0, miou=0.5, lr=0.1), row(2, loss=1.9, miou=1.0, lr=0.05)]
    plots.draw_curve(figure, rows)
    (low, high), score, rate = (axes.get_ylim() for axes in figure.axes)
    assert 1.8 < low < 1.9 and 2.0 < high < 2.1
    assert 0.4 < score[0] < 0.5 and score[1] == 1
    assert rate[0] == 0


@pytest.mark.parametrize(
    "rates, scale",
    [((1e-3, 1e-4), "linear"), ((1e-3, 1e-5), "log"), ((1e-3, 1e-5, 0), "log"), ((0,), "linear")],
)
def test_rates_that_span_much_have_a_logarithmic_axis(rates, scale):
    figure = Figure()
    plots.draw_curve(figure, [row(epoch, lr=rate) for epoch, rate in enumerate(rates)])
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    assert faults(figure) == []


def compared_row(miou: float, difference: float | None, verdict: str | None) -> dict:
    """A row of `losses.metrics.compared`, with intervals of +-0.02."""
    row = {"verdict": verdict}
    for key, value in (("miou", miou), ("difference", difference)):
        bounds = {"": value, "_low": value and value - 0.02, "_high": value and value + 0.02}
        row |= {key + end: bound for end, bound in bounds.items()}
    return row


def test_runs_have_a_dot_in_their_interval_and_a_difference_to_the_first(tmp_path):
    gain = compared_row(0.6, 0.1, "better")
    rows = [compared_row(0.5, None, None), gain, compared_row(0.49, -0.01, "may be equal")]
    figure = Figure(figsize=(8, 3), layout="constrained")
    plots.draw_comparison(figure, names(3), rows)
    left, right = ([list(zip(*line.get_data())) for line in axes.lines] for axes in figure.axes)
    assert left[2:4] == [[(gain["miou_low"], 1), (gain["miou_high"], 1)], [(0.6, 1)]]
    assert right[:2] == [[(gain["difference_low"], 1), (gain["difference_high"], 1)], [(0.1, 1)]]
    assert len(left) == 6 and len(right) == 5, "dots and whiskers of all, and the line of no gain"
    assert {"0.500", "+0.100 better", "-0.010 may be equal", *names(3)} <= set(words(figure))
    assert faults(figure) == []
    plots.plot_comparison(tmp_path / "compare.png", names(3), rows)
    assert Image.open(tmp_path / "compare.png").format == "PNG"


def test_runs_end_at_their_score_after_their_minutes(tmp_path):
    ways = [[(3.0, math.nan)], [], [(4.0, 0.4), (30.0, 0.6)]]
    figure = Figure(layout="constrained")
    plots.draw_minutes(figure, ["quick", "unknown", "best"], [0.5, 0.7, 0.65], ways)
    (axes,) = figure.axes
    points = [list(zip(*line.get_data())) for line in axes.lines]
    assert points[1:] == [[(3, 0.5)], [(4, 0.4), (30, 0.6)], [(30, 0.65)]]
    written = [text.get_text() for text in axes.get_legend().get_texts()]
    assert written == ["quick: 0.500", "best: 0.650"]
    assert axes.get_xscale() == "log"
    plots.plot_minutes(tmp_path / "minutes.png", names(1), [0.5], [[]])
    assert Image.open(tmp_path / "minutes.png").format == "PNG"


def test_confusion_has_the_shares_of_the_truth():
    figure = Figure(layout="constrained")
    plots.draw_confusion(figure, np.array([[30, 10, 0], [0, 0, 0], [1, 0, 999]]), names(3), 0.4)
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}  # (column, row)
    assert len(figure.axes[0].patches) == 1, "the row without ground truth is hatched"


def test_bars_are_sorted_and_absent_classes_come_last():
    figure = Figure(layout="constrained")
    plots.draw_iou_bars(figure, ["a", "b", "c", "d"], [0.25, None, 0.0, 0.75], 1 / 3, columns=2)
    left, right = figure.axes
    assert [[tick.get_text() for tick in axes.get_yticklabels()] for axes in (left, right)] == [
        ["d", "a"],
        ["c", "b"],
    ]
    written = words(figure)
    assert {"0.750", "0.250", "0.000", "absent"} <= set(written)
    assert written.count("mIoU 0.333") == 2


def test_counts_keep_their_order():
    figure = Figure(layout="constrained")
    plots.draw_counts(figure, ["a", "b", "c"], [0, 1234567, 8])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0, 1234567, 8]
    assert "1,234,567" in words(figure)


def test_moments_have_their_place_within_their_level():
    figure = Figure(layout="constrained")
    mean, std = np.arange(6), np.arange(6) + 10
    plots.draw_moments(figure, ["tap 1", "image"], [2, 4], mean, std)
    upper, lower = (axes.lines[0] for axes in figure.axes)
    assert upper.get_xdata().tolist() == [0.25, 0.75, 1.125, 1.375, 1.625, 1.875]
    assert (
        upper.get_ydata().tolist() == mean.tolist() and lower.get_ydata().tolist() == std.tolist()
    )


@pytest.mark.parametrize("count", [2, 21, 60])
def test_charts_of_classes_have_room_for_each(count):
    random = np.random.default_rng(0)
    bars, matrix = io.BytesIO(), io.BytesIO()
    ious = [None, *random.random(count - 1).tolist()]
    plots.plot_iou_bars(bars, names(count), ious, 0.5)
    plots.plot_confusion(matrix, random.integers(0, 99, (count, count)), names(count))
    for file in (bars, matrix):
        with Image.open(file) as picture:
            assert picture.format == "PNG" and picture.height > 25 * count  # px: a line of text


def test_charts_without_any_value_are_drawn(tmp_path):
    plots.plot_iou_bars(tmp_path / "iou.png", names(2), [None, None], math.nan)
    plots.plot_confusion(tmp_path / "confusion.png", np.zeros((3, 3), dtype=np.int64), names(3))
    plots.plot_curve(tmp_path / "curve.png", [], "a $\\run$")
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).min() < 128


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("text", ["1×1 convolution 1,472 → 256", "over 11 × 11 around each place"])
def test_a_text_of_a_size_that_fits_does(text, bold):
    figure = Figure(figsize=(1, 1))
    size = plots.size_to_fit(text, 0.9, 20, bold)
    figure.text(0.05, 0.5, text, fontsize=size, weight="bold" if bold else "normal")
    assert faults(figure) == []
    ((_, box),) = texts(figure)
    assert box.width > 0.7 * figure.bbox.width
    assert plots.size_to_fit(text, 90, 20, bold) == 20
