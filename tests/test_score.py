"""The confusion matrix, its means and their bootstrap, against plain loops and cases worked by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from losses import score
from losses.score import (
    ConfusionMatrix,
    Pixels,
    bootstrap_mious,
    comparison,
    percentile_interval,
    resampled,
)

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


def image_counts(images: int, seed: int, right: float = 0.6) -> np.ndarray:
    """Confusion counts (images, C, C) of predictions of the same images; `right` is about the share that is so."""
    truth = np.random.default_rng(0).integers(0, 50, (images, CLASSES)) * (
        np.random.default_rng(1).random((images, CLASSES)) < 0.4
    )
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(CLASSES, 0.3), (images, CLASSES)) * (1 - right) + right * np.eye(CLASSES)
    return np.array([[rng.multinomial(n, p) for n, p in zip(*rows)] for rows in zip(truth, shares)])


def as_pixels(counts: np.ndarray) -> Pixels:
    return Pixels(counts.sum(2), counts.sum(1), np.einsum("ncc->nc", counts))


def slow_bootstrap(runs: list[np.ndarray], draws: np.ndarray) -> list[list[float]]:
    """The mIoU of each run for each draw, image by image: no array but the confusion counts."""
    mious = []
    for times in draws:
        matrices = [ConfusionMatrix(CLASSES) for _ in runs]
        for matrix, counts in zip(matrices, runs):
            for image, often in enumerate(times):
                for _ in range(int(often)):
                    matrix.counts += counts[image]
        mious.append([matrix.miou() for matrix in matrices])
    return mious


@pytest.mark.parametrize("block", [1 << 20, 30, 1], ids=["one block", "several", "one draw each"])
def test_the_bootstrap_equals_a_slow_one(block, monkeypatch):
    monkeypatch.setattr(score, "BLOCK", block)
    runs = [image_counts(7, seed=2), image_counts(7, seed=3, right=0.9)]
    draws = np.concatenate(list(resampled(7, 50, seed=4)))
    mious = bootstrap_mious([as_pixels(counts) for counts in runs], resamples=50, seed=4)
    np.testing.assert_allclose(mious, slow_bootstrap(runs, draws), rtol=1e-12)
    assert len(np.unique(mious[:, 0])) > 40


def test_a_resample_has_as_many_images_as_there_are_each_as_often_as_chance_has_it():
    draws = np.concatenate(list(resampled(50, 2000, seed=0)))
    assert draws.shape == (2000, 50) and (draws.sum(1) == 50).all()
    assert draws.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert draws.var() == pytest.approx(1 - 1 / 50, abs=0.03)  # of a multinomial
    again, other = (np.concatenate(list(resampled(50, 2000, seed))) for seed in (0, 1))
    assert np.array_equal(draws, again) and not np.array_equal(draws, other)


def test_the_draws_are_paired():
    worse, better = image_counts(40, seed=2), image_counts(40, seed=2)
    moved = better[:, 0, 1] // 4  # the same but for some mistakes of one kind
    better[:, 0, 0] += moved
    better[:, 0, 1] -= moved
    mious = bootstrap_mious([as_pixels(worse), as_pixels(worse), as_pixels(better)], resamples=500)
    assert (mious[:, 0] == mious[:, 1]).all() and mious[:, 0].std() > 0
    assert (mious[:, 2] >= mious[:, 0]).all()
    assert 0 < (mious[:, 2] - mious[:, 0]).std() < mious[:, 0].std() / 2


def test_draws_of_images_that_are_all_void_do_not_count():
    counts = np.zeros((2, CLASSES, CLASSES), dtype=int)
    counts[0] = np.eye(CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mious = bootstrap_mious([as_pixels(counts)], resamples=100)
        assert 0.1 < np.isnan(mious).mean() < 0.4  # (1/2)^2
        assert percentile_interval(mious[:, 0]) == (1.0, 1.0)


def test_the_interval_holds_the_middle_of_the_values():
    values = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert percentile_interval(values) == pytest.approx((25, 975))
    assert percentile_interval(values, level=0.5) == pytest.approx((250, 750))
    assert percentile_interval(np.append(values, np.nan)) == pytest.approx((25, 975))


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    population = [image_counts(2000, seed=2), image_counts(2000, seed=3, right=0.65)]
    totals = []
    for counts in population:
        totals.append(ConfusionMatrix(CLASSES))
        totals[-1].counts += counts.sum(0)
    truth = totals[1].miou() - totals[0].miou()
    rng, covered = np.random.default_rng(5), []
    for seed in range(200):
        sample = rng.integers(2000, size=60)
        mious = bootstrap_mious([as_pixels(counts[sample]) for counts in population], resamples=300, seed=seed)
        low, high = percentile_interval(mious[:, 1] - mious[:, 0])
        covered.append(low <= truth <= high)
    assert 0.88 <= np.mean(covered) <= 0.99  # of 200: +-0.03 by chance


def test_a_comparison_has_a_line_per_class_and_the_mean():
    first = scored([0, 0, 1, 1], [0, 0, 0, 1], classes=4)
    second = scored([0, 0, 0, 2], [0, 0, 0, 1], classes=4)
    header, *lines = comparison(first, second, ["ground", "car", "tree", "sky"]).splitlines()
    assert header.split() == ["A", "B", "B", "-", "A"]
    assert [line.split() for line in lines] == [
        ["ground", "0.667", "1.000", "+0.333"],
        ["car", "0.500", "0.000", "-0.500"],
        ["tree", "absent", "0.000"],
        ["sky", "absent", "absent"],
        ["mIoU", "0.5833", "0.3333", "-0.2500"],
        ["classes", "2", "3"],
    ]
