"""The score and the file of the images' counts, against plain loops and cases worked by hand."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data import UserError
from data.classes import VOID
from losses import metrics

CLASSES = 20
NAMES = [f"class {label}" for label in range(CLASSES)]
SEEN = [0, 1, 2, 18, 19]  # 19 times 20 is beyond uint8
ALL_VOID = np.full((3, 4), VOID)
predictions = arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from(SEEN))
targets = arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from([*SEEN, VOID]))


def scored(prediction, target) -> metrics.ConfusionMatrix:
    matrix = metrics.ConfusionMatrix(CLASSES)
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


def mean(values) -> float:
    return sum(values) / len(values) if values else math.nan


def share(part, whole) -> float:
    return len(part) / len(whole) if whole else math.nan


def by_hand(prediction, target) -> tuple[list[dict], dict, dict[str, float]]:
    """Rows of the classes, row of the image and means, from the sets of pixels of each class."""
    labelled = [place for place in np.ndindex(target.shape) if target[place] != VOID]
    truth = [{place for place in labelled if target[place] == c} for c in range(CLASSES)]
    predicted = [{place for place in labelled if prediction[place] == c} for c in range(CLASSES)]
    rows = []
    for name, a, b in zip(NAMES, truth, predicted):
        row = {"class": name, "iou": share(a & b, a | b), "precision": share(a & b, b)}
        row |= {"recall": share(a & b, a), "f1": share([*(a & b)] * 2, [*a, *b])}
        rows.append(row | {"pixels": len(a)})
    ious, true = [row["iou"] for row in rows], [c for c in range(CLASSES) if truth[c]]
    worst = min(true, key=lambda c: (ious[c], -len(truth[c])), default=None)
    accuracy = mean([prediction[place] == target[place] for place in labelled])
    image = {"id": "a", "miou": mean([ious[c] for c in true]), "pixel_accuracy": accuracy}
    image["worst_class"] = "" if worst is None else NAMES[worst]
    means = {"miou": mean([iou for iou in ious if not math.isnan(iou)])}
    means |= {"pixel_accuracy": accuracy, "mean_accuracy": mean([rows[c]["recall"] for c in true])}
    return rows, image, means | {"fw_iou": mean([ious[c] for c in true for _ in truth[c]])}


@pytest.mark.filterwarnings("error")
@settings(max_examples=60)
@given(prediction=predictions, target=targets)
@example(prediction=ALL_VOID * 0, target=ALL_VOID)
def test_scores_and_rows_are_those_of_pixel_sets(prediction, target):
    matrix = scored(prediction, target)
    rows, image, means = by_hand(prediction, target)
    assert matrix.scores() == pytest.approx(means, nan_ok=True)
    counts, defined = matrix.class_counts(), sum(not math.isnan(row["iou"]) for row in rows)
    assert f"\nmIoU {means['miou']:.4f} over {defined} of 20 classes " in matrix.table(NAMES)
    found = [*metrics.class_rows(NAMES, counts), *metrics.image_rows(NAMES, "a", counts[None])]
    for row, expected in zip(found, [*rows, image], strict=True):
        assert row == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "prediction, target, error",
    [([[0], [0]], [[0, 0]], IndexError), ([0, 20], [0, 0], ValueError), ([0], [-1], ValueError)],
)
def test_arrays_that_do_not_fit_are_refused(prediction, target, error):
    with pytest.raises(error):
        scored(prediction, target)


SAVED = {"names": NAMES, "ids": ["a", "v", "b"], "counts": np.arange(180).reshape(3, CLASSES, 3)}
OTHERS = {  # what is wrong: arrays instead of these
    "empty": {},
    "ids": SAVED | {"ids": ["a"]},
    "names": SAVED | {"names": ["ground", "car"]},
    "float": SAVED | {"counts": SAVED["counts"].astype(float)},
    "objects": SAVED | {"counts": np.array([{}], dtype=object)},
}


@pytest.mark.parametrize("arrays", OTHERS.values(), ids=OTHERS)
def test_scores_survive_a_file_and_something_else_is_refused(arrays, tmp_path):
    path = tmp_path / "scores.npz"
    np.savez_compressed(path, **SAVED)
    names, ids, counts = metrics.load_image_scores(path)
    assert (names, ids) == (NAMES, SAVED["ids"]) and np.array_equal(counts, SAVED["counts"])
    whole = path.read_bytes()
    np.savez(path, **arrays)
    for content in (path.read_bytes(), whole[:-40]):
        path.write_bytes(content)
        message = f"{path}: cannot be read as the scores of images; run step 4 again"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            metrics.load_image_scores(path)
