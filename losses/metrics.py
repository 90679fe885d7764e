"""The score: confusion counts of a split, and of each image the pixels that an IoU is made of."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from data import UserError, first_of
from data.classes import VOID


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all labelled pixels seen so far.

    A class is *absent* when it occurs neither in the ground truth nor in the prediction: its IoU
    is nan and it is left out of the mean. A class that is only predicted has IoU 0 and counts,
    for those pixels are mistakes.

    Attributes:
        counts: (C, C) int64; rows are the ground truth, columns the prediction. Without void.
    """

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds an image: class ids in two integer arrays of the same shape; VOID in the target.

        Raises:
            ValueError: an id at a labelled pixel is outside 0..C-1.
        """
        classes, labelled = len(self.counts), target != VOID
        truth, predicted = (ids[labelled].astype(np.int64) for ids in (target, prediction))
        for ids in (truth, predicted):
            if ids.size and not 0 <= ids.min() <= ids.max() < classes:
                raise ValueError(f"class ids {ids.min()}..{ids.max()}, not in 0..{classes - 1}")
        pairs = np.bincount(truth * classes + predicted, minlength=classes**2)
        self.counts += pairs.reshape(classes, classes)

    def class_counts(self) -> np.ndarray:
        """Of each class the pixels of the ground truth, of the prediction, of both; (C, 3)."""
        return np.stack([self.counts.sum(1), self.counts.sum(0), np.diag(self.counts)], axis=1)

    def iou(self) -> np.ndarray:
        """Intersection over union of each class, (C,) float64; nan for an absent class."""
        return class_ious(self.class_counts())

    def miou(self) -> float:
        """Mean IoU over the classes that are not absent; nan when nothing was counted."""
        return float(mean(self.iou()))

    def classes_in_mean(self) -> int:
        """How many classes the mean IoU is taken over."""
        return int(np.isfinite(self.iou()).sum())

    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right; nan when nothing was counted."""
        return float(ratio(np.trace(self.counts), self.counts.sum()))

    def scores(self) -> dict[str, float]:
        """The four scores by their names.

        "mean_accuracy" is the mean over the classes of the ground truth of the share of their
        pixels that is right, "fw_iou" the IoU, each class weighted by its pixels there.
        """
        truth, right, total = self.counts.sum(1), np.diag(self.counts), self.counts.sum()
        return {
            "miou": self.miou(),
            "pixel_accuracy": self.pixel_accuracy(),
            "mean_accuracy": float(mean(ratio(right, truth))),
            "fw_iou": float(ratio(np.nansum(truth * self.iou()), total)),
        }

    def doubts(self, names: Sequence[str]) -> list[str]:
        """What speaks against the predictions or the training, in words."""
        found, (truth, predicted, right) = [], self.class_counts().T
        above, below = (np.trace(self.counts, shift) for shift in (1, -1))
        if max(above, below) > 2 * right.sum():
            way = "above" if above > below else "below"
            found.append(f"most predictions are the class {way} the true one: are they shifted?")
        if never := [name for name, t, p in zip(names, truth, predicted) if t > p == 0]:
            remedy = "see --class-weights in steps 2 and 3"
            found.append(f"never predicted: {first_of(never)}; {remedy}")
        if right.sum() <= truth.max() and truth.any():
            share = truth.max() / truth.sum()
            found.append(f"no better than the most frequent class everywhere ({share:.3f})")
        return found

    def table(self, names: Sequence[str]) -> str:
        """The score as text: a line per class, then the means."""
        width, ious = max(map(len, names)), self.iou().tolist()
        cells = ["absent" if math.isnan(iou) else f"{iou:6.3f}" for iou in ious]
        lines = [f"{name:{width}}  {cell}" for name, cell in zip(names, cells)]
        miou, pixels, classes, weighted = self.scores().values()
        return "\n".join(lines) + (
            f"\nmIoU {miou:.4f} over {self.classes_in_mean()} of {len(names)} classes   "
            f"pixel accuracy {pixels:.4f}   mean accuracy {classes:.4f}   fw-IoU {weighted:.4f}"
        )


def class_ious(counts: np.ndarray) -> np.ndarray:
    """IoU of each class from class counts (.., C, 3): (.., C) float64; nan for an absent class."""
    truth, predicted, both = np.moveaxis(counts, -1, 0)
    return ratio(both, truth + predicted - both)


def image_mious(counts: np.ndarray) -> np.ndarray:
    """Mean IoU of each image over the classes of its ground truth alone; nan where all is void.

    For a single image this says more than `miou`, which a few stray pixels of other classes send
    towards 0. Those pixels still count against the classes that they are taken from.

    Args:
        counts: (N, C, 3).

    Returns:
        (N,) float64.
    """
    return mean(np.where(counts[..., 0] > 0, class_ious(counts), np.nan))


def class_rows(names: Sequence[str], counts: np.ndarray) -> list[dict[str, Any]]:
    """A row for each class, from its counts (C, 3) over all images; nan where not defined.

    "precision" is the share of the predicted pixels that are right, "recall" that of the true
    ones, "f1" their harmonic mean, also known as Dice; "pixels" are those of the ground truth.
    """
    truth, predicted, both = counts.T
    columns = {"class": names, "iou": class_ious(counts), "precision": ratio(both, predicted)}
    columns |= {"recall": ratio(both, truth), "f1": ratio(2 * both, truth + predicted)}
    columns["pixels"] = truth
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def image_rows(
    names: Sequence[str], ids: Sequence[str], counts: np.ndarray
) -> list[dict[str, Any]]:
    """A row for each image, from (N, C, 3): mIoU as by `image_mious`, accuracy, worst class."""
    truth, _, right = np.moveaxis(counts, -1, 0)
    # Of several with the same IoU, such as 0, the one with most pixels.
    worst = np.where(truth > 0, class_ious(counts) - 1e-12 * truth, np.inf).argmin(1)
    mious, accuracies = image_mious(counts), ratio(right.sum(1), truth.sum(1))
    classes = ["" if np.isnan(miou) else names[label] for miou, label in zip(mious, worst)]
    columns = {"id": ids, "miou": mious, "pixel_accuracy": accuracies, "worst_class": classes}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def load_image_scores(path: str | PathLike) -> tuple[list[str], list[str], np.ndarray]:
    """Names of the classes, ids of the images and their counts (N, C, 3) int64 in step 4's .npz.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        with np.load(path) as arrays:
            names, ids = arrays["names"].tolist(), arrays["ids"].tolist()
            counts = arrays["counts"]
        if counts.dtype != np.int64 or counts.shape != (len(ids), len(names), 3):
            raise ValueError
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run step 4 again") from None
    except Exception:  # numpy, zipfile and zlib raise eight kinds on a damaged file
        what = "cannot be read as the scores of images"
        raise UserError(f"{path}: {what}; run step 4 again") from None
    return names, ids, counts


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient in float64, nan where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    quotient = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not nan; nan (without a warning) where nothing is left."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))
