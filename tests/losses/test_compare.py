"""The bootstrap and the tables of runs, against plain loops and cases worked by hand."""

import numpy as np
import pytest

from data import UserError
from losses.compare import BLOCK, bootstrap_mious, compared, read_scores
from losses.metrics import ConfusionMatrix, save_image_scores
from models.run import chain

CLASSES = 5


def confusion(images: int, seed: int, right: float = 0.6) -> np.ndarray:
    """Confusion counts (images, C, C) of predictions of the same images, about `right` correct."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50, (images, CLASSES)) * (rng.random((images, CLASSES)) < 0.4)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(CLASSES, 0.3), (images, CLASSES))
    return rng.multinomial(truth, (1 - right) * shares + right * np.eye(CLASSES))


def matrix(counts: np.ndarray) -> ConfusionMatrix:
    found = ConfusionMatrix(CLASSES)
    found.counts += counts.astype(int)
    return found


def class_counts(confusions: np.ndarray) -> np.ndarray:
    """Of each image and class the pixels of the truth, of the prediction, of both."""
    return np.stack([matrix(counts).class_counts() for counts in confusions])


def test_the_bootstrap_gives_the_miou_of_each_draw_of_as_many_images():
    runs, images = [confusion(7, seed=2), confusion(7, seed=3, right=0.9)], 7
    mious = bootstrap_mious(np.stack([class_counts(run) for run in runs]), 3 * BLOCK, seed=4)
    draws = np.random.default_rng(4).multinomial(images, [1 / images] * images, size=3 * BLOCK)
    totals = [np.tensordot(draws, run, 1) for run in runs]
    expected = [[matrix(one).miou() for one in pair] for pair in zip(*totals)]
    np.testing.assert_allclose(mious, expected, rtol=1e-12)
    assert len(np.unique(mious[:, 0])) > 100


@pytest.mark.filterwarnings("error")
def test_bootstrap_draws_of_void_images_alone_do_not_count():
    confusions = np.stack([np.eye(CLASSES, dtype=int), np.zeros((CLASSES, CLASSES), dtype=int)])
    counts = class_counts(confusions)[None]
    assert 0.1 < np.isnan(bootstrap_mious(counts, resamples=100)).mean() < 0.4  # (1/2)^2
    (row,) = compared(counts)
    assert (row["miou_low"], row["miou_high"]) == (1, 1)


def interval(values: np.ndarray) -> tuple:
    return tuple(np.nanquantile(values, [0.025, 0.975]))


def test_runs_are_compared_with_the_first_on_the_same_resamples():
    runs = [confusion(20, seed, right) for seed, right in ((2, 0.6), (2, 0.6), (3, 0.2), (3, 1))]
    counts = np.stack([class_counts(run) for run in runs])
    rows, mious = compared(counts), bootstrap_mious(counts)
    for row, run, drawn, gains in zip(rows, runs, mious.T, (mious - mious[:, :1]).T):
        total = matrix(run.sum(0))
        assert row["miou"] == pytest.approx(total.miou(), rel=1e-14)
        assert row["pixel_accuracy"] == pytest.approx(total.pixel_accuracy(), rel=1e-14)
        assert (row["miou_low"], row["miou_high"]) == interval(drawn)
        if row is not rows[0]:
            assert row["difference"] == row["miou"] - rows[0]["miou"]
            assert (row["difference_low"], row["difference_high"]) == interval(gains)
    assert [row["difference"] for row in rows[:2]] == [None, 0]
    assert [row["verdict"] for row in rows] == [None, "may be equal", "worse", "better"]


def scores(ids: str, names: str = "gct", right: int = 0):
    """Scores of images with one letter as id, which decides the truth."""
    counts = np.zeros((len(ids), len(names), 3), dtype=int)
    counts[:, :, 0] = [[ord(letter) % 7 + label for label in range(len(names))] for letter in ids]
    counts[:, :, 2] = right * counts[:, :, 0]
    return [*names], list(ids), counts


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Writes the scores of two runs and reads them together."""
    monkeypatch.setattr(chain, "scored_another_network", lambda place: False)

    def write_and_read(*both):
        places = tmp_path / "first", tmp_path / "second"
        for place, one in zip(places, both):
            place.mkdir()
            with open(place / "per_image.npz", "wb") as file:
                save_image_scores(file, *one)
        return read_scores(places)

    return write_and_read


def test_scores_of_the_same_images_are_matched_whatever_their_order(read):
    _, counts = read(scores("dbac"), scores("cadb", right=1))
    assert np.array_equal(counts, [scores("abcd")[2], scores("abcd", right=1)[2]])


APART = [  # scores, what they do not share with those of "abc"
    (scores("abc", "gcts"), "classes"),
    (scores("abc", "gtc"), "classes"),
    (scores("ab"), "images"),
    (scores("abd"), "images"),
    ((["g", "c", "t"], ["a", "b", "c"], scores("abd")[2]), "ground truth"),
]


@pytest.mark.parametrize("other, what", APART)
def test_scores_that_do_not_belong_together_are_refused(other, what, read):
    with pytest.raises(UserError, match=f"cannot be compared: .* the same {what}; score both"):
        read(scores("abc"), other)
