"""The score, its bootstrap and its file, against plain loops and cases worked by hand."""

import io
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data.classes import VOID
from losses.metrics import (
    BLOCK,
    ConfusionMatrix,
    ImageScores,
    Pixels,
    bootstrap_counts,
    bootstrap_mious,
    class_comparison,
    compared,
    comparison,
    percentile_interval,
)

CLASSES = 5
MEANS = ("miou", "image_miou", "pixel_accuracy", "mean_accuracy", "fw_iou")
predictions = arrays.arrays(np.uint8, (3, 4), elements=st.integers(0, CLASSES - 1))
targets = arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from([*range(CLASSES), VOID]))


def scored(prediction, target, classes: int = CLASSES) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(np.array(prediction), np.array(target))
    return matrix


def means(matrix: ConfusionMatrix) -> dict[str, float]:
    return {name: getattr(matrix, name)() for name in MEANS}


def mean(values, weights=None) -> float:
    weights = [1] * len(values) if weights is None else weights
    total = sum(value * weight for value, weight in zip(values, weights))
    return total / sum(weights) if sum(weights) else math.nan


def by_hand(prediction, target) -> tuple[list[float], dict[str, float]]:
    """IoU of each class and the means, from the sets of pixels of each class."""
    labelled = [place for place in np.ndindex(target.shape) if target[place] != VOID]
    truth = [{place for place in labelled if target[place] == c} for c in range(CLASSES)]
    predicted = [{place for place in labelled if prediction[place] == c} for c in range(CLASSES)]
    ious = [len(a & b) / len(a | b) if a | b else math.nan for a, b in zip(truth, predicted)]
    true = [c for c in range(CLASSES) if truth[c]]
    return ious, {
        "miou": mean([iou for iou in ious if not math.isnan(iou)]),
        "image_miou": mean([ious[c] for c in true]),
        "pixel_accuracy": mean([prediction[place] == target[place] for place in labelled]),
        "mean_accuracy": mean([len(truth[c] & predicted[c]) / len(truth[c]) for c in true]),
        "fw_iou": mean([ious[c] for c in true], [len(truth[c]) for c in true]),
    }


@settings(max_examples=60, deadline=None)
@given(prediction=predictions, target=targets)
def test_scores_equal_those_of_pixel_sets(prediction, target):
    matrix = scored(prediction, target)
    ious, expected = by_hand(prediction, target)
    assert matrix.iou().tolist() == pytest.approx(ious, nan_ok=True)
    assert means(matrix) == pytest.approx(expected, nan_ok=True)
    assert matrix.classes_in_mean() == sum(not math.isnan(iou) for iou in ious)


def test_a_case_worked_by_hand():
    target = [[0, 0, 0, 0], [1, 1, 1, 2], [2, VOID, VOID, 0]]
    prediction = [[0, 0, 1, 2], [1, 1, 0, 2], [1, 1, VOID, 0]]
    matrix = scored(prediction, target, classes=4)
    assert matrix.counts.tolist() == [[3, 1, 1, 0], [1, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    ious = [3 / 6, 2 / 5, 1 / 3]
    assert matrix.iou().tolist() == pytest.approx([*ious, math.nan], nan_ok=True)
    assert means(matrix) == pytest.approx(
        {
            "miou": sum(ious) / 3,
            "image_miou": sum(ious) / 3,
            "pixel_accuracy": 6 / 10,
            "mean_accuracy": (3 / 5 + 2 / 3 + 1 / 2) / 3,
            "fw_iou": (5 * 3 / 6 + 3 * 2 / 5 + 2 * 1 / 3) / 10,
        }
    )


def test_a_class_that_is_only_predicted_has_iou_0_and_counts():
    matrix = scored([0, 0, 0, 2], [0, 0, 0, 0], classes=4)
    assert matrix.iou().tolist() == pytest.approx([3 / 4, math.nan, 0, math.nan], nan_ok=True)
    assert (matrix.miou(), matrix.image_miou()) == (3 / 8, 3 / 4)


@pytest.mark.parametrize("seen", [[], [VOID, VOID]], ids=["nothing", "all_void"])
def test_without_a_labelled_pixel_every_score_is_nan_without_a_warning(seen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = scored(np.zeros(len(seen), int), np.array(seen, int))
        assert all(map(math.isnan, [*matrix.iou(), *means(matrix).values()]))
        assert "mIoU nan over 0 of 5 classes" in matrix.table("abcde")


def test_small_integer_types_do_not_overflow():
    ids = np.arange(200, dtype=np.uint8)
    assert np.array_equal(scored(ids, ids, classes=200).counts, np.eye(200))


@pytest.mark.parametrize(
    "prediction, target, message",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\) and target \(3, 2\) differ"),
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
    table = scored([0, 0, 1, 1], [0, 0, 0, 1], classes=3).table(["ground", "car", "tree"])
    assert table.splitlines() == [
        "ground   0.667",
        "car      0.500",
        "tree    absent",
        "mIoU 0.5833 over 2 of 3 classes   pixel accuracy 0.7500   mean accuracy 0.8333   "
        "fw-IoU 0.6250",
    ]


def test_scores_are_compared_class_by_class_and_of_two_the_differences():
    first = scored([0, 0, 1, 1], [0, 0, 0, 1], classes=4)
    second = scored([0, 0, 0, 2], [0, 0, 0, 1], classes=4)
    names = ["ground", "car", "tree", "sky"]
    assert class_comparison([first, second], names, "AB").splitlines() == [
        "              A       B   B - A",
        "ground    0.667   1.000  +0.333",
        "car       0.500   0.000  -0.500",
        "tree     absent   0.000",
        "sky      absent  absent",
        "classes       2       3",
    ]
    table = class_comparison([first, second, first], names, "ABC", markdown=True)
    assert table.splitlines()[:3] == [
        "|         |      A |      B |      C |",
        "| ------- | -----: | -----: | -----: |",
        "| ground  |  0.667 |  1.000 |  0.667 |",
    ]


NAMES = ["ground", "car", "tree"]


def image(image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """The prediction and the target of an image; that of "v" is all void."""
    rng = np.random.default_rng(ord(image_id))
    void = rng.random((6, 7)) < (1 if image_id == "v" else 0.3)
    return rng.integers(0, 3, (6, 7)), np.where(void, VOID, rng.integers(0, 3, (6, 7)))


def image_scores(ids: str, shift: int = 0, names: list[str] = NAMES) -> ImageScores:
    """Scores of images with one letter as id; `shift` changes every prediction."""
    scores = ImageScores(names)
    for image_id in ids:
        prediction, target = image(image_id)
        scores.add(image_id, (prediction + shift) % 3, target)
    return scores


def file_of(scores: ImageScores) -> bytes:
    file = io.BytesIO()
    scores.save(file)
    return file.getvalue()


def test_scores_of_images_hold_the_pixels_of_each_and_the_total_of_all():
    scores, matrix = image_scores("avb"), ConfusionMatrix(3)
    pixels = scores.pixels()
    assert (scores.ids, len(scores)) == (["a", "v", "b"], 3)
    for index, image_id in enumerate("avb"):
        prediction, target = image(image_id)
        matrix.update(prediction, target)
        for label in range(3):
            truth, predicted = target == label, (prediction == label) & (target != VOID)
            assert pixels.truth[index, label] == truth.sum()
            assert pixels.predicted[index, label] == predicted.sum()
            assert pixels.intersection[index, label] == (truth & predicted).sum()
    assert np.array_equal(scores.total().counts, matrix.counts)


def test_scores_in_parts_are_those_of_all():
    parts = ImageScores(NAMES)
    for ids in ("ab", "", "vc"):
        parts.extend(image_scores(ids))
    assert file_of(parts) == file_of(image_scores("abvc"))
    assert file_of(parts.take([3, 0])) == file_of(image_scores("ca"))


def test_scores_of_the_same_images_are_matched_whatever_their_order():
    matched = image_scores("abcd").matched(image_scores("cadb", shift=1))
    assert file_of(matched) == file_of(image_scores("abcd", shift=1))


def other_truth() -> ImageScores:
    scores = image_scores("ab")
    scores.add("c", *image("z"))
    return scores


@pytest.mark.parametrize(
    "others, message",
    [
        (
            image_scores("abc", names=["ground", "cat", "tree"]),
            "class 1 is 'car' in one and 'cat' in the other",
        ),
        (
            image_scores("abc", names=[*NAMES, "sky"]),
            "class 3 is 'none' in one and 'sky' in the other",
        ),
        (image_scores("ab"), "they are of other images (3 and 2; c is in one alone)"),
        (image_scores("abcd"), "they are of other images (3 and 4; d is in one alone)"),
        (image_scores("abd"), "they are of other images (3 and 3; c is in one alone)"),
        (other_truth(), "the ground truth of c is not the same, so it is other data"),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(others, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        image_scores("abc").matched(others)


@pytest.mark.parametrize("ids", ["a", "v", "va", "avv", "vvavbv"])
def test_scores_survive_a_file(ids, tmp_path):
    (tmp_path / "scores").write_bytes(file_of(image_scores(ids)))
    loaded = ImageScores.load(tmp_path / "scores")
    assert (loaded.ids, loaded.names) == (list(ids), NAMES)
    np.testing.assert_equal(loaded.pixels(), image_scores(ids).pixels())
    assert file_of(loaded) == file_of(image_scores(ids))


def test_the_file_can_be_read_without_this_project():
    loaded = np.load(io.BytesIO(file_of(image_scores("ab"))))
    prediction, target = image("b")
    pair = (loaded["image"] == 1) & (loaded["truth"] == 2) & (loaded["prediction"] == 1)
    assert (loaded["ids"].tolist(), loaded["classes"].tolist()) == (["a", "b"], NAMES)
    assert loaded["pixels"][pair].tolist() == [((target == 2) & (prediction == 1)).sum()]
    assert (loaded["pixels"] > 0).all(), "pairs that do not occur are not kept"


def refuses(path: Path) -> bool:
    """Whether the file is refused in the expected words."""
    try:
        ImageScores.load(path)
    except ValueError as error:
        assert str(error) == f"{path}: cannot be read as the scores of images"
        return True
    return False


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_bytes_are_noticed_or_change_nothing(save, tmp_path):
    file, path = io.BytesIO(), tmp_path / "scores"
    save(file, **np.load(io.BytesIO(file_of(image_scores("abc")))))
    whole, expected, noticed = file.getvalue(), image_scores("abc"), 0
    places = range(0, len(whole), 11)
    for place in places:
        flipped = whole[place] ^ 1 << place % 8
        path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        if refuses(path):
            noticed += 1
        else:  # it was a date, say
            assert file_of(ImageScores.load(path)) == file_of(expected)
    assert noticed > len(places) / 2


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.array([0, 0, 0])},
        {"ids": np.array(["a"])},
        {"classes": np.array(["ground", "car"])},
        {"classes": np.array(3)},
        {"truth": None},
        {"pixels": np.array([{}], dtype=object)},
    ],
    ids=["lengths", "images", "classes", "number", "missing", "objects"],
)
def test_arrays_that_do_not_belong_together_are_refused(change, tmp_path):
    changed = {**np.load(io.BytesIO(file_of(image_scores("ab")))), **change}
    changed = {name: array for name, array in changed.items() if array is not None}
    np.savez(tmp_path / "changed.npz", **changed)
    assert refuses(tmp_path / "changed.npz")


def test_a_file_of_something_else_is_refused(tmp_path):
    for content in (b"", b"no archive", file_of(image_scores("ab"))[:-40]):
        (tmp_path / "scores").write_bytes(content)
        assert refuses(tmp_path / "scores")
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert refuses(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        ImageScores.load(tmp_path / "absent")


def image_counts(images: int, seed: int, right: float = 0.6) -> np.ndarray:
    """Confusion counts (images, C, C) of predictions of the same images, about `right` correct."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50, (images, CLASSES)) * (rng.random((images, CLASSES)) < 0.4)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(CLASSES, 0.3), (images, CLASSES))
    return rng.multinomial(truth, (1 - right) * shares + right * np.eye(CLASSES))


def as_pixels(counts: np.ndarray) -> Pixels:
    return Pixels(counts.sum(2), counts.sum(1), np.einsum("ncc->nc", counts))


def miou(counts: np.ndarray) -> float:
    matrix = ConfusionMatrix(CLASSES)
    matrix.counts += counts
    return matrix.miou()


@pytest.mark.parametrize("images", [7, BLOCK // 200], ids=["one block", "blocks"])
def test_the_bootstrap_gives_the_miou_of_each_draw(images):
    runs = [image_counts(images, seed=2), image_counts(images, seed=3, right=0.9)]
    draws = np.concatenate(list(bootstrap_counts(images, 300, seed=4)))
    mious = bootstrap_mious([as_pixels(counts) for counts in runs], resamples=300, seed=4)
    totals = [np.tensordot(draws.astype(int), counts, 1) for counts in runs]
    expected = [[miou(counts) for counts in pair] for pair in zip(*totals)]
    np.testing.assert_allclose(mious, expected, rtol=1e-12)
    assert len(np.unique(mious[:, 0])) > 100


def test_a_resample_draws_as_many_images_as_there_are_with_equal_chances():
    draws = np.concatenate(list(bootstrap_counts(50, 2000, seed=0)))
    assert draws.shape == (2000, 50) and (draws.sum(1) == 50).all()
    assert draws.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert draws.var() == pytest.approx(1 - 1 / 50, abs=0.03)  # of a multinomial
    again, other = (np.concatenate(list(bootstrap_counts(50, 2000, seed))) for seed in (0, 1))
    assert np.array_equal(draws, again) and not np.array_equal(draws, other)


def test_bootstrap_draws_of_void_images_alone_do_not_count():
    counts = np.stack([np.eye(CLASSES, dtype=int), np.zeros((CLASSES, CLASSES), dtype=int)])
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


def test_scores_are_compared_with_the_first_on_the_same_resamples():
    scores = [image_scores("abcde", shift) for shift in (0, 0, 1)]
    rows, mious = compared(scores), bootstrap_mious([one.pixels() for one in scores])
    for index, (row, one) in enumerate(zip(rows, scores)):
        assert row["miou"] == one.total().miou()
        assert row["pixel_accuracy"] == one.total().pixel_accuracy()
        assert (row["miou_low"], row["miou_high"]) == percentile_interval(mious[:, index])
    nothing = {"difference": None, "difference_low": None, "difference_high": None}
    assert rows[0].items() >= {**nothing, "verdict": None}.items()
    assert rows[1].items() >= {**dict.fromkeys(nothing, 0), "verdict": "may be equal"}.items()
    bounds = rows[2]["difference_low"], rows[2]["difference_high"]
    assert rows[2]["difference"] == rows[2]["miou"] - rows[0]["miou"]
    assert bounds == percentile_interval(mious[:, 2] - mious[:, 0])


def test_a_run_is_better_or_worse_where_its_whole_interval_is():
    good, bad = ImageScores(NAMES), ImageScores(NAMES)
    for image_id in "abcdef":
        prediction, target = image(image_id)
        bad.add(image_id, prediction, target)
        good.add(image_id, np.where(target == VOID, 0, target), target)
    assert [compared(pair)[1]["verdict"] for pair in ([bad, good], [good, bad])] == [
        "better",
        "worse",
    ]


def test_the_table_of_runs_has_a_line_for_each():
    first = {"miou": 0.5, "miou_low": 0.41234, "miou_high": 0.6, "pixel_accuracy": 0.9}
    gain = {"difference": 0.012, "difference_low": -0.001, "difference_high": 0.03}
    rows = [{**first, **dict.fromkeys(gain), "verdict": None}]
    rows.append({**first, **gain, "verdict": "may be equal"})
    assert comparison(rows, ["A: x", "B: y"]).splitlines() == [
        "        mIoU     95 % interval  pixel acc.  minus first       95 % interval",
        "A: x  0.5000  0.4123 to 0.6000      0.9000",
        "B: y  0.5000  0.4123 to 0.6000      0.9000      +0.0120  -0.0010 to +0.0300  may be equal",
    ]


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    population = [image_counts(2000, seed=2), image_counts(2000, seed=3, right=0.65)]
    first, second = (miou(counts.sum(0)) for counts in population)
    rng, covered = np.random.default_rng(5), []
    for seed in range(200):
        drawn = rng.integers(2000, size=60)
        samples = [as_pixels(counts[drawn]) for counts in population]
        mious = bootstrap_mious(samples, resamples=300, seed=seed)
        low, high = percentile_interval(mious[:, 1] - mious[:, 0])
        covered.append(low <= second - first <= high)
    assert 0.88 <= np.mean(covered) <= 0.99  # of 200: +-0.03 by chance
