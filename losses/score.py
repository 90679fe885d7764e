"""The score: a streaming confusion matrix, what is read off it (mIoU, IoU, accuracies), and how sure that is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
BLOCK = 1 << 20  # draws of the bootstrap that are in memory together


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all labelled pixels seen so far.

    Attributes:
        counts: (C, C) int64; rows are the ground truth, columns the prediction. Void pixels are not in it.

    A class is *absent* when it occurs neither in the ground truth nor in the prediction: its IoU is nan and it is left
    out of the mean. A class that is only predicted has IoU 0 and counts, for those pixels are mistakes.
    """

    def __init__(self, classes: int, ignore_index: int = 255):
        self.ignore_index = ignore_index
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds one image: two integer arrays of the same shape, class ids; `ignore_index` in the target is void.

        Raises:
            ValueError: the shapes differ, or an id at a labelled pixel is outside 0..C-1.
        """
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {prediction.shape} and target {target.shape} differ in shape")
        classes = len(self.counts)
        labelled = target != self.ignore_index
        truth, guess = target[labelled].astype(np.int64), prediction[labelled].astype(np.int64)
        for name, ids in (("target", truth), ("prediction", guess)):
            if ids.size and not 0 <= ids.min() <= ids.max() < classes:
                raise ValueError(f"{name} holds class ids {ids.min()}..{ids.max()}; expected 0..{classes - 1}")
        self.counts += np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)

    def iou(self) -> np.ndarray:
        """Intersection over union of each class, (C,) float64; nan for an absent class."""
        hits = np.diag(self.counts)
        return _ratio(hits, self.counts.sum(0) + self.counts.sum(1) - hits)

    def miou(self) -> float:
        """Mean IoU over the classes that are not absent; nan when nothing was counted."""
        return _mean(self.iou())

    def image_miou(self) -> float:
        """Mean IoU over the classes of the ground truth alone; nan when nothing was counted.

        For a single image this says more than `miou`, which a few stray pixels of other classes send towards 0; their
        pixels still count against the classes that they are taken from.
        """
        return _mean(self.iou()[self.counts.sum(1) > 0])

    def classes_in_mean(self) -> int:
        """How many classes the mean IoU is taken over."""
        return int(np.isfinite(self.iou()).sum())

    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right; nan when nothing was counted."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    def mean_accuracy(self) -> float:
        """Mean over the classes of the ground truth of the share of their pixels that is right."""
        return _mean(_ratio(np.diag(self.counts), self.counts.sum(1)))

    def fw_iou(self) -> float:
        """IoU averaged with the classes' pixel frequencies in the ground truth as weights."""
        return float(_ratio(np.nansum(self.counts.sum(1) * self.iou()), self.counts.sum()))

    def table(self, names: Sequence[str]) -> str:
        """The score as text: a line per class, then the means."""
        width = max(map(len, names))
        ious = [
            f"{name:{width}}  {'absent' if np.isnan(iou) else f'{iou:6.3f}'}" for name, iou in zip(names, self.iou())
        ]
        means = (
            f"mIoU {self.miou():.4f} over {self.classes_in_mean()} of {len(names)} classes   "
            f"pixel accuracy {self.pixel_accuracy():.4f}   mean accuracy {self.mean_accuracy():.4f}   "
            f"fw-IoU {self.fw_iou():.4f}"
        )
        return "\n".join([*ious, means])


class Pixels(NamedTuple):
    """Pixels of each class in each image, (N, C) int64 each; void takes no part."""

    truth: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray  # both


def bootstrap_mious(pixels: Sequence[Pixels], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """mIoU on images that are drawn again and again, with replacement, as many as there are: the bootstrap.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1), 1979.

    Args:
        pixels: of several predictions of the same N images; each draw is the same for all of them (paired).

    Returns:
        (resamples, predictions) float64; nan where all images drawn are void.
    """
    columns = [np.concatenate([one.hits, one.truth + one.predicted - one.hits], axis=1) for one in pixels]
    table = np.concatenate(columns, axis=1).astype(float)  # whole numbers below 2^53: sums are exact in any order
    mious = []
    for times in resampled(len(table), resamples, seed):
        hits, unions = np.moveaxis((times @ table).reshape(len(times), len(pixels), 2, -1), 2, 0)
        ious = _ratio(hits, unions)
        known = unions > 0
        mious.append(_ratio(np.where(known, ious, 0).sum(-1), known.sum(-1)))
    return np.concatenate(mious)


def resampled(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each resample: blocks of (n, images) float64, n rows of which sum to `images`."""
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(float)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The bounds between which the middle of the bootstrapped values (n,) lies, a share `level` of them; nan left out.

    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def comparison(first: ConfusionMatrix, second: ConfusionMatrix, names: Sequence[str]) -> str:
    """Two scores A and B and their difference as text: a line per class, the mean, and how many classes are in it."""
    width = max(map(len, [*names, "classes"]))
    lines = [f"{'':{width}}       A       B     B - A"]
    for name, a, b in zip(names, first.iou(), second.iou()):
        cells = [f"{'absent' if np.isnan(iou) else format(iou, '.3f'):>6}" for iou in (a, b)]
        lines.append("  ".join([f"{name:{width}}", *cells, "" if np.isnan(b - a) else f"{b - a:+8.3f}"]).rstrip())
    a, b = first.miou(), second.miou()
    lines.append(f"{'mIoU':{width}}  {a:.4f}  {b:.4f}  {b - a:+8.4f}")
    return "\n".join([*lines, f"{'classes':{width}}  {first.classes_in_mean():6}  {second.classes_in_mean():6}"])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient in float64, nan where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not nan; nan (without a warning) when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
