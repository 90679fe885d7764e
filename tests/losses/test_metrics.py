"""The score and the file of the images' counts, against plain loops and cases worked by hand."""

import io
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data import UserError
from data.classes import VOID
from losses.metrics import (
    ConfusionMatrix,
    class_ious,
    class_rows,
    image_mious,
    image_rows,
    load_image_scores,
    save_image_scores,
)

CLASSES = 5
predictions = arrays.arrays(np.uint8, (3, 4), elements=st.integers(0, CLASSES - 1))
targets = arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from([*range(CLASSES), VOID]))


def scored(prediction, target, classes: int = CLASSES) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(np.array(prediction), np.array(target))
    return matrix


DOUBTS = [  # predictions, truth, what is said of them
    ([0, 1, 2, 2], [0, 1, 2, 2], []),
    ([0, 1, 1, 1], [0, 1, 2, VOID], ["never predicted: c"]),
    ([0, 0, 0, 0], [0, 0, 1, 2], ["never predicted: b, c", "most frequent class .*0.500"]),
    ([1, 2, 1, 2], [0, 1, 0, 1], ["class above the true", "never predicted: a", "most frequent"]),
    ([0, 0, 1, 1], [1, 1, 2, 2], ["the class below", "never predicted: c", "most frequent class"]),
    ([0, 1], [VOID, VOID], []),
]


@pytest.mark.parametrize("prediction, truth, words", DOUBTS)
def test_what_speaks_against_a_score_is_said(prediction, truth, words):
    found = scored(prediction, truth).doubts("abcde")
    assert len(found) == len(words)
    assert all(map(re.search, words, found))


def means(matrix: ConfusionMatrix) -> dict[str, float]:
    return matrix.scores() | {"image_miou": float(image_mious(matrix.class_counts()))}


def mean(values) -> float:
    return sum(values) / len(values) if values else math.nan


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
        "fw_iou": mean([ious[c] for c in true for _ in truth[c]]),
    }


@settings(max_examples=60)
@given(prediction=predictions, target=targets)
def test_scores_equal_those_of_pixel_sets(prediction, target):
    matrix = scored(prediction, target)
    ious, expected = by_hand(prediction, target)
    assert matrix.iou().tolist() == pytest.approx(ious, nan_ok=True)
    assert means(matrix) == pytest.approx(expected, nan_ok=True)
    assert matrix.classes_in_mean() == sum(not math.isnan(iou) for iou in ious)


def test_a_class_that_is_only_predicted_has_iou_0_and_counts():
    matrix = scored([0, 0, 0, 2], [0, 0, 0, 0], classes=4)
    assert matrix.iou().tolist() == pytest.approx([3 / 4, math.nan, 0, math.nan], nan_ok=True)
    assert (matrix.miou(), float(image_mious(matrix.class_counts()))) == (3 / 8, 3 / 4)


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


UNFIT = [
    (np.zeros((2, 3), int), np.zeros((3, 2), int), r"shapes \(2, 3\) and \(3, 2\) differ"),
    (np.array([0, 5]), np.array([0, 0]), r"class ids 0..5, not in 0..4"),
    (np.array([0, 0]), np.array([-1, 0]), "class ids -1..0, not in"),
]


@pytest.mark.parametrize("prediction, target, message", UNFIT)
def test_arrays_that_do_not_fit_are_refused_and_not_counted(prediction, target, message):
    matrix = ConfusionMatrix(CLASSES)
    with pytest.raises(ValueError, match=message):
        matrix.update(prediction, target)
    assert not matrix.counts.any()


NAMES = ["ground", "car", "tree"]
IDS = ["a", "v", "b"]


def image(image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """The prediction and the target of an image; that of "v" is all void."""
    rng = np.random.default_rng(ord(image_id))
    void = rng.random((6, 7)) < (1 if image_id == "v" else 0.3)
    return rng.integers(0, 3, (6, 7)), np.where(void, VOID, rng.integers(0, 3, (6, 7)))


def all_counts() -> np.ndarray:
    matrices = [ConfusionMatrix(3) for _ in IDS]
    for matrix, image_id in zip(matrices, IDS):
        matrix.update(*image(image_id))
    return np.stack([matrix.class_counts() for matrix in matrices])


def test_the_rows_of_classes_and_images_are_those_of_plain_counting():
    counts = all_counts()
    for label, row in enumerate(class_rows(NAMES, counts.sum(0))):
        cells = [(p[t != VOID] == label, t[t != VOID] == label) for p, t in map(image, IDS)]
        found, true = (np.concatenate(part) for part in zip(*cells))
        right = (found & true).sum()
        assert (row["class"], row["pixels"]) == (NAMES[label], true.sum())
        assert row["precision"] == pytest.approx(right / found.sum())
        assert row["recall"] == pytest.approx(right / true.sum())
        assert row["f1"] == pytest.approx(2 / (1 / row["precision"] + 1 / row["recall"]))
        assert row["iou"] == pytest.approx(right / (found | true).sum())
    first, void, _ = image_rows(NAMES, IDS, counts)
    prediction, target = image("a")
    assert first["pixel_accuracy"] == (prediction == target)[target != VOID].mean()
    assert first["worst_class"] == NAMES[np.argmin(class_ious(counts[0]))]
    assert first["miou"] == pytest.approx(class_ious(counts[0]).mean())
    assert void["worst_class"] == "" and np.isnan(void["miou"])


def saved(**changed) -> bytes:
    """A file of scores, arrays as `changed`; None is left out."""
    file = io.BytesIO()
    save_image_scores(file, NAMES, IDS, all_counts())
    arrays = {**np.load(io.BytesIO(file.getvalue())), **changed}
    changed_file = io.BytesIO()
    np.savez(changed_file, **{key: value for key, value in arrays.items() if value is not None})
    return changed_file.getvalue() if changed else file.getvalue()


def test_scores_survive_a_file_that_is_the_same_each_time(tmp_path):
    (tmp_path / "scores").write_bytes(saved())
    names, ids, counts = load_image_scores(tmp_path / "scores")
    assert (names, ids) == (NAMES, IDS) and np.array_equal(counts, all_counts())
    assert saved() == saved()


OTHERS = {  # what is wrong: the file
    "empty": b"",
    "cut": saved()[:-40],
    "ids": saved(ids=np.array(["a"])),
    "names": saved(names=np.array(["ground", "car"])),
    "missing": saved(counts=None),
    "float": saved(counts=all_counts().astype(float)),
    "objects": saved(counts=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "scores"
    path.write_bytes(content)
    message = f"{path}: cannot be read as the scores of images; run step 4 again"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        load_image_scores(path)
