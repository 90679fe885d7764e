"""The bootstrap and the tables of runs, against plain loops and cases worked by hand."""

import numpy as np
import pytest

from data import UserError
from losses.compare import BLOCK, bootstrap_mious, compared, read_scores
from models.run import chain

CLASSES = 5


def run_of(images: int, seed: int, right: float = 0.6) -> np.ndarray:
    """Class counts (images, C, 3) of predictions of the same images, about `right` correct."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50, (images, CLASSES)) * (rng.random((images, CLASSES)) < 0.4)
    rng = np.random.default_rng(seed)
    both = rng.binomial(truth, right)
    wrong = rng.permuted(truth - both, axis=1)
    return np.stack([truth, both + wrong, both], axis=-1)


def miou(counts: np.ndarray) -> float:
    """Of class counts (C, 3)."""
    return np.mean([both / (t + p - both) for t, p, both in counts if t + p])


def test_the_bootstrap_gives_the_miou_of_each_draw_of_as_many_images():
    runs = [run_of(7, seed=2), run_of(7, seed=3, right=0.9)]
    mious = bootstrap_mious(np.stack(runs), 3 * BLOCK, seed=4)
    draws = np.random.default_rng(4).multinomial(7, [1 / 7] * 7, size=3 * BLOCK)
    totals = [np.tensordot(draws, run, 1) for run in runs]
    expected = [[miou(one) for one in pair] for pair in zip(*totals)]
    np.testing.assert_allclose(mious, expected, rtol=1e-12)
    assert len(np.unique(mious[:, 0])) > 100


@pytest.mark.filterwarnings("error")
def test_bootstrap_draws_of_void_images_alone_do_not_count():
    counts = np.stack([np.ones((CLASSES, 3), dtype=int), np.zeros((CLASSES, 3), dtype=int)])[None]
    assert 0.1 < np.isnan(bootstrap_mious(counts, resamples=100)).mean() < 0.4  # (1/2)^2
    (row,) = compared(counts)
    assert (row["miou_low"], row["miou_high"]) == (1, 1)


def test_runs_are_compared_with_the_first_on_the_same_resamples():
    runs = [run_of(20, seed, right) for seed, right in ((2, 0.6), (2, 0.6), (3, 0.2), (3, 1))]
    rows, mious = compared(np.stack(runs)), bootstrap_mious(np.stack(runs))
    for row, run, drawn, gains in zip(rows, runs, mious.T, (mious - mious[:, :1]).T):
        assert row["miou"] == pytest.approx(miou(run.sum(0)), rel=1e-14)
        truth, _, both = run.sum((0, 1))
        assert row["pixel_accuracy"] == pytest.approx(both / truth, rel=1e-14)
        bounds = [*np.nanquantile(drawn, [0.025, 0.975]), *np.nanquantile(gains, [0.025, 0.975])]
        found = [row[f"{what}_{end}"] for what in ("miou", "difference") for end in ("low", "high")]
        assert found == bounds and row["difference"] == row["miou"] - rows[0]["miou"]
    assert [row["verdict"] for row in rows] == ["", "may be equal", "worse", "better"]


def scores(ids: str, names: str = "gct") -> dict:
    """Scores of images with one letter as id, which decides the truth."""
    truth = np.array([[ord(letter) + place for place in range(len(names))] for letter in ids])
    return {"names": [*names], "ids": [*ids], "counts": np.stack([truth, truth, truth], axis=-1)}


APART = [  # scores, what they do not share with those of "abc"
    (scores("abc", "gtc"), "classes"),
    (scores("ab"), "images"),
    (scores("bac"), "images"),
    (scores("abd") | {"ids": [*"abc"]}, "ground truth"),
]


@pytest.mark.parametrize("other, what", APART)
def test_scores_that_do_not_belong_together_are_refused(other, what, tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "scored_another_network", lambda place: False)
    first, second = tmp_path / "first", tmp_path / "second"
    for place, arrays in ((first, scores("abc")), (second, other)):
        place.mkdir()
        np.savez(place / "per_image.npz", **arrays)
    assert np.array_equal(read_scores([first, first])[1], [scores("abc")["counts"]] * 2)
    with pytest.raises(UserError, match=f"cannot be compared: .* the same {what}; score both"):
        read_scores([first, second])
