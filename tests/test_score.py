"""The confusion matrix and its means, against sets of pixels and cases worked by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from losses.score import ConfusionMatrix

VOID = 255
CLASSES = 5
few = settings(max_examples=40, deadline=None)
predictions = arrays.arrays(np.uint8, (3, 4), elements=st.integers(0, CLASSES - 1))
targets = arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from([*range(CLASSES), VOID]))


def scored(prediction, target, classes: int = CLASSES) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(np.array(prediction), np.array(target))
    return matrix


def scores(matrix: ConfusionMatrix) -> dict[str, float]:
    return {name: getattr(matrix, name)() for name in ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou")}


def slow_scores(prediction, target) -> tuple[list[float], dict[str, float]]:
    """Per-class IoU and the means, from the sets of pixels of each class."""
    labelled = [place for place in np.ndindex(target.shape) if target[place] != VOID]
    truth = {c: {place for place in labelled if target[place] == c} for c in range(CLASSES)}
    guess = {c: {place for place in labelled if prediction[place] == c} for c in range(CLASSES)}
    ious, recalls, weighted = [], [], 0.0
    for c in range(CLASSES):
        both, either = truth[c] & guess[c], truth[c] | guess[c]
        ious.append(len(both) / len(either) if either else math.nan)
        if truth[c]:
            recalls.append(len(both) / len(truth[c]))
            weighted += len(truth[c]) * ious[-1]
    known = [iou for iou in ious if not math.isnan(iou)]
    right = sum(prediction[place] == target[place] for place in labelled)

    def over(total, count):
        return total / count if count else math.nan

    return ious, {
        "miou": over(sum(known), len(known)),
        "pixel_accuracy": over(right, len(labelled)),
        "mean_accuracy": over(sum(recalls), len(recalls)),
        "fw_iou": over(weighted, len(labelled)),
    }


@few
@given(prediction=predictions, target=targets)
def test_scores_equal_those_of_pixel_sets(prediction, target):
    matrix = scored(prediction, target)
    ious, means = slow_scores(prediction, target)
    assert matrix.iou().tolist() == pytest.approx(ious, nan_ok=True)
    assert scores(matrix) == pytest.approx(means, nan_ok=True)
    assert matrix.classes_in_mean() == sum(not math.isnan(iou) for iou in ious)


def test_a_case_worked_by_hand():
    target = [[0, 0, 0, 0], [1, 1, 1, 2], [2, VOID, VOID, 0]]
    guess = [[0, 0, 1, 2], [1, 1, 0, 2], [1, 1, 0, 0]]
    matrix = scored(guess, target, classes=3)
    assert matrix.counts.tolist() == [[3, 1, 1], [1, 2, 0], [0, 1, 1]]  # rows: the truth
    assert matrix.iou().tolist() == pytest.approx([3 / 6, 2 / 5, 1 / 3])
    assert scores(matrix) == pytest.approx(
        {
            "miou": (1 / 2 + 2 / 5 + 1 / 3) / 3,  # 37/90
            "pixel_accuracy": 6 / 10,
            "mean_accuracy": (3 / 5 + 2 / 3 + 1 / 2) / 3,
            "fw_iou": (5 * 1 / 2 + 3 * 2 / 5 + 2 * 1 / 3) / 10,
        }
    )


def test_images_in_pieces_score_as_all_at_once():
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, CLASSES, (9, 7)), rng.integers(0, CLASSES, (9, 7))
    target[rng.random(target.shape) < 0.3] = VOID
    pieces = ConfusionMatrix(CLASSES)
    for rows in (slice(0, 1), slice(1, 1), slice(1, 6), slice(6, 9)):
        pieces.update(prediction[rows], target[rows])
    assert np.array_equal(pieces.counts, scored(prediction, target).counts)
    assert pieces.counts.sum() == (target != VOID).sum()


@pytest.mark.parametrize("ignore", [VOID, 1])
def test_void_pixels_do_not_count_whatever_is_predicted_there(ignore):
    matrix = ConfusionMatrix(3, ignore_index=ignore)
    matrix.update(np.array([0, 2, 1, 200]), np.array([0, 2, ignore, ignore]))
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_an_absent_class_is_nan_and_left_out_of_the_mean():
    matrix = scored([0, 0, 1, 1], [0, 0, 0, 1], classes=4)
    assert matrix.iou().tolist() == pytest.approx([2 / 3, 1 / 2, math.nan, math.nan], nan_ok=True)
    assert matrix.miou() == pytest.approx(7 / 12)
    assert matrix.classes_in_mean() == 2


def test_a_class_that_is_only_predicted_has_iou_zero_and_counts():
    matrix = scored([0, 0, 0, 2], [0, 0, 0, 0], classes=4)
    assert matrix.iou().tolist() == pytest.approx([3 / 4, math.nan, 0, math.nan], nan_ok=True)
    assert matrix.miou() == pytest.approx(3 / 8)
    assert matrix.classes_in_mean() == 2
    assert matrix.mean_accuracy() == matrix.fw_iou() == matrix.pixel_accuracy() == 3 / 4  # these know only the truth


@pytest.mark.parametrize("seen", [[], [VOID, VOID]], ids=["nothing", "all_void"])
def test_without_a_labelled_pixel_every_score_is_nan_without_a_warning(seen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = scored(np.zeros(len(seen), int), np.array(seen, int))
        assert all(map(math.isnan, [*matrix.iou(), *scores(matrix).values()]))
        assert matrix.classes_in_mean() == 0
        assert "mIoU nan over 0 of 5 classes" in matrix.table("abcde")


def test_small_integer_types_do_not_overflow():
    ids = np.arange(200, dtype=np.uint8)
    matrix = scored(ids, ids, classes=200)
    assert np.array_equal(matrix.counts, np.eye(200))


@pytest.mark.parametrize(
    "prediction, target, message",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"prediction \(2, 3\) and target \(3, 2\) differ"),
        (np.zeros((1, 2, 3), int), np.zeros((2, 3), int), "differ in shape"),
        (np.array([0, 5]), np.array([0, 0]), r"prediction holds class ids 0..5; expected 0..4"),
        (np.array([0, VOID]), np.array([0, 0]), "prediction holds class ids 0..255"),
        (np.array([0, 0]), np.array([-1, 0]), "target holds class ids -1..0; expected 0..4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_not_counted(prediction, target, message):
    matrix = ConfusionMatrix(CLASSES)
    with pytest.raises(ValueError, match=message):
        matrix.update(prediction, target)
    assert not matrix.counts.any()


def test_table_has_a_line_per_class_and_the_means():
    *lines, means = scored([0, 0, 1, 1], [0, 0, 0, 1], classes=3).table(["ground", "car", "tree"]).splitlines()
    assert [line.split() for line in lines] == [["ground", "0.667"], ["car", "0.500"], ["tree", "absent"]]
    assert means.split("   ") == [
        "mIoU 0.5833 over 2 of 3 classes",
        "pixel accuracy 0.7500",
        "mean accuracy 0.8333",
        "fw-IoU 0.6250",
    ]


@few
@given(target=targets)
def test_a_perfect_prediction_scores_one(target):
    matrix = scored(np.where(target == VOID, 0, target), target)
    expected = 1.0 if (target != VOID).any() else math.nan
    assert scores(matrix) == pytest.approx(dict.fromkeys(scores(matrix), expected), nan_ok=True)
    assert matrix.classes_in_mean() == len(set(target.ravel()) - {VOID})


@few
@given(prediction=predictions, target=targets, order=st.permutations(range(12)))
def test_scores_stay_in_bounds_and_forget_where_pixels_lie(prediction, target, order):
    matrix = scored(prediction, target)
    values = np.array([*matrix.iou(), *scores(matrix).values()])
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert np.array_equal(scored(prediction.ravel()[order], target.ravel()[order]).counts, matrix.counts)


def test_the_miou_of_an_image_is_over_the_classes_of_its_ground_truth():
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([[0, 0, 1, 3]]), np.array([[0, 0, 1, 1]]))
    assert matrix.image_miou() == pytest.approx((1 + 1 / 2) / 2)
    assert matrix.miou() == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert np.isnan(ConfusionMatrix(4).image_miou())
