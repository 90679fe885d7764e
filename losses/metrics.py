"""The score: confusion counts, of a whole split or image by image, and what is read off them."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from os import PathLike
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np

from data.classes import VOID

RESAMPLES = 10_000
BLOCK = 1 << 20  # random draws of the bootstrap that are in memory together
LARGEST = 1 << 30  # bytes that scores of images may unpack to; 100,000 images take a tenth of that
# What numpy, zipfile and zlib raise on a damaged file.
DAMAGED = (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, BadZipFile, ZlibError)


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
            ValueError: the shapes differ, or an id at a labelled pixel is outside 0..C-1.
        """
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            shapes = f"prediction {prediction.shape} and target {target.shape}"
            raise ValueError(f"{shapes} differ in shape")
        classes = len(self.counts)
        labelled = target != VOID
        truth, predicted = (ids[labelled].astype(np.int64) for ids in (target, prediction))
        for name, ids in (("target", truth), ("prediction", predicted)):
            if ids.size and not 0 <= ids.min() <= ids.max() < classes:
                raise ValueError(
                    f"{name} holds class ids {ids.min()}..{ids.max()}; expected 0..{classes - 1}"
                )
        pairs = np.bincount(truth * classes + predicted, minlength=classes**2)
        self.counts += pairs.reshape(classes, classes)

    def iou(self) -> np.ndarray:
        """Intersection over union of each class, (C,) float64; nan for an absent class."""
        intersection = np.diag(self.counts)
        return _ratio(intersection, self.counts.sum(0) + self.counts.sum(1) - intersection)

    def miou(self) -> float:
        """Mean IoU over the classes that are not absent; nan when nothing was counted."""
        return _mean(self.iou())

    def image_miou(self) -> float:
        """Mean IoU over the classes of the ground truth alone; nan when nothing was counted.

        For a single image this says more than `miou`, which a few stray pixels of other classes
        send towards 0. Those pixels still count against the classes that they are taken from.
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
        """IoU, each class weighted by its pixels in the ground truth (frequency-weighted IoU)."""
        return float(_ratio(np.nansum(self.counts.sum(1) * self.iou()), self.counts.sum()))

    def scores(self) -> dict[str, float]:
        """The four scores by their names."""
        return {
            "miou": self.miou(),
            "pixel_accuracy": self.pixel_accuracy(),
            "mean_accuracy": self.mean_accuracy(),
            "fw_iou": self.fw_iou(),
        }

    def table(self, names: Sequence[str]) -> str:
        """The score as text: a line per class, then the means."""
        lines = in_columns([[name, _cell(iou)] for name, iou in zip(names, self.iou())])
        means = (
            f"mIoU {self.miou():.4f} over {self.classes_in_mean()} of {len(names)} classes   "
            f"pixel accuracy {self.pixel_accuracy():.4f}   "
            f"mean accuracy {self.mean_accuracy():.4f}   fw-IoU {self.fw_iou():.4f}"
        )
        return f"{lines}\n{means}"


class Pixels(NamedTuple):
    """Labelled pixels by class in each image, (N, C) int64 each."""

    truth: np.ndarray
    predicted: np.ndarray
    intersection: np.ndarray  # of that class in both


class ImageScores:
    """The confusion counts of each image: only the pairs of classes that occur in it.

    Attributes:
        names: of the classes.
        ids: of the images, in the order in which they were added.
        void_pixels: how many pixels of the ground truths added were void.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.ids: list[str] = []
        self.void_pixels = 0
        # Of each image (n, 3) int64: true class, predicted class, pixels.
        self._rows: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, image_id: str, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds an image; prediction and target as for `ConfusionMatrix.update`."""
        matrix = ConfusionMatrix(len(self.names))
        matrix.update(prediction, target)
        pairs = matrix.counts.nonzero()
        self.void_pixels += int((np.asarray(target) == VOID).sum())
        self.ids.append(image_id)
        self._rows.append(np.stack([*pairs, matrix.counts[pairs]], axis=1))

    def extend(self, others: "ImageScores") -> None:
        """Adds the images of other scores, which are of the same classes."""
        self.ids += others.ids
        self.void_pixels += others.void_pixels
        self._rows += others._rows

    def take(self, indices: Sequence[int]) -> "ImageScores":
        """The scores of these images, in this order."""
        taken = ImageScores(self.names)
        taken.ids = [self.ids[index] for index in indices]
        taken._rows = [self._rows[index] for index in indices]
        taken.void_pixels = self.void_pixels
        return taken

    def matched(self, others: "ImageScores") -> "ImageScores":
        """Other scores of the same images, in the order of these.

        Raises:
            ValueError: they are of other classes or images, or of another ground truth.
        """
        names = zip_longest(self.names, others.names, fillvalue="none")
        for index, (name, other) in enumerate(names):
            if name != other:
                raise ValueError(f"class {index} is {name!r} in one and {other!r} in the other")
        indices = {image_id: index for index, image_id in enumerate(others.ids)}
        if odd := indices.keys() ^ set(self.ids):
            counts = f"{len(self)} and {len(others)}; {min(odd)} is in one alone"
            raise ValueError(f"they are of other images ({counts})")
        others = others.take([indices[image_id] for image_id in self.ids])
        differs = (self.pixels().truth != others.pixels().truth).any(axis=1)
        if differs.any():
            image_id = self.ids[differs.argmax()]
            raise ValueError(f"the ground truth of {image_id} is not the same, so it is other data")
        return others

    def total(self) -> ConfusionMatrix:
        """The confusion matrix over all images."""
        matrix = ConfusionMatrix(len(self.names))
        _, truth, predicted, pixels = self._columns()
        np.add.at(matrix.counts, (truth, predicted), pixels)
        return matrix

    def pixels(self) -> Pixels:
        """What the IoU over any selection of the images is computed from."""
        image, truth, predicted, pixels = self._columns()
        counts = Pixels(*np.zeros((3, len(self), len(self.names)), dtype=np.int64))
        np.add.at(counts.truth, (image, truth), pixels)
        np.add.at(counts.predicted, (image, predicted), pixels)
        np.add.at(counts.intersection, (image, truth), pixels * (truth == predicted))
        return counts

    def image_mious(self) -> dict[str, float]:
        """`ConfusionMatrix.image_miou` of each image, by its id; nan where all is void."""
        return {
            image_id: self.take([index]).total().image_miou()
            for index, image_id in enumerate(self.ids)
        }

    def save(self, file: BinaryIO) -> None:
        """Writes numpy's .npz: the text arrays "classes" (C,) and "ids" (N,), and four of integers.

        Those have one entry for each pair of classes that occurs in an image: "image" (its index
        in "ids"), "truth", "prediction" (class ids) and "pixels". Equal scores give equal bytes.
        """
        image, truth, predicted, pixels = self._columns()
        np.savez_compressed(
            file,
            classes=np.array(self.names),
            ids=np.array(self.ids, dtype=np.str_),
            image=image.astype(np.int32),
            truth=truth.astype(np.uint8),
            prediction=predicted.astype(np.uint8),
            pixels=pixels.astype(np.int64),
        )

    @classmethod
    def load(cls, path: str | PathLike) -> "ImageScores":
        """What `save` has written.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        try:
            with ZipFile(path) as archive:
                if sum(part.file_size for part in archive.infolist()) > LARGEST:
                    raise BadZipFile
            with np.load(path, allow_pickle=False) as arrays:
                scores = cls(arrays["classes"].tolist())
                scores.ids = arrays["ids"].tolist()
                columns = [arrays[name] for name in ("image", "truth", "prediction", "pixels")]
            image, *columns = np.stack(columns).astype(np.int64)
            rows = np.stack(columns, axis=1)
            ascending = (np.diff(image, prepend=0, append=len(scores) - 1) >= 0).all()
            if not ascending or not np.isin(rows[:, :2], range(len(scores.names))).all():
                raise ValueError
        except FileNotFoundError:
            raise
        except DAMAGED:
            raise ValueError(f"{path}: cannot be read as the scores of images") from None
        scores._rows = np.split(rows, np.searchsorted(image, range(1, len(scores))))
        return scores

    def _columns(self) -> tuple[np.ndarray, ...]:
        """Image, true class, predicted class and pixels of every row, (n,) int64 each."""
        rows = np.concatenate([np.empty((0, 3), dtype=np.int64), *self._rows])
        return np.repeat(np.arange(len(self)), [len(rows) for rows in self._rows]), *rows.T


def bootstrap_mious(
    pixels: Sequence[Pixels], resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """The bootstrap: mIoUs over as many images as there are, drawn anew with replacement.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1), 1979.

    Args:
        pixels: of several predictions of the same N images, which share each draw (paired).
        resamples: how often N images are drawn.
        seed: of the draws.

    Returns:
        (resamples, predictions) float64; nan where all images drawn are void.
    """
    columns = [(one.intersection, one.truth + one.predicted - one.intersection) for one in pixels]
    table = np.hstack([array for pair in columns for array in pair])
    table = table.astype(float)  # whole numbers below 2^53: sums are exact in any order
    mious = []
    for times in bootstrap_counts(len(table), resamples, seed):
        sums = (times @ table).reshape(len(times), len(pixels), 2, -1)
        intersection, union = sums[:, :, 0], sums[:, :, 1]
        present = union > 0
        ious = np.where(present, _ratio(intersection, union), 0)
        mious.append(_ratio(ious.sum(-1), present.sum(-1)))
    return np.concatenate(mious)


def bootstrap_counts(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each resample, (n, images) float64 for the n of a block."""
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * images)
        yield times.reshape(count, images).astype(float)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bounds of the middle share `level` of bootstrapped values (n,), leaving out nan.

    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compared(runs: Sequence[ImageScores]) -> list[dict[str, float | str | None]]:
    """How good each of several scores is, and whether it differs from the first: a row for each.

    Args:
        runs: scores of the same images in the same order, see `ImageScores.matched`.

    Returns:
        "miou" with its 95 % interval, from "miou_low" to "miou_high"; "pixel_accuracy"; the
        "difference" of the mIoU to that of the first with its interval, from "difference_low" to
        "difference_high"; and the "verdict" on it. The last four are None in the first row. The
        intervals are of one set of resamples of the images, so that the differences are paired.
    """
    resampled = bootstrap_mious([run.pixels() for run in runs])
    matrices = [run.total() for run in runs]
    rows = []
    for matrix, mious in zip(matrices, resampled.T):
        low, high = percentile_interval(mious)
        row = {"miou": matrix.miou(), "miou_low": low, "miou_high": high}
        row["pixel_accuracy"] = matrix.pixel_accuracy()
        difference = low = high = verdict = None
        if rows:
            difference = row["miou"] - rows[0]["miou"]
            low, high = percentile_interval(mious - resampled[:, 0])
            verdict = "better" if low > 0 else "worse" if high < 0 else "may be equal"
        row |= {"difference": difference, "difference_low": low, "difference_high": high}
        rows.append(row | {"verdict": verdict})
    return rows


def comparison(
    rows: Sequence[dict[str, float | str | None]], labels: Sequence[str], markdown: bool = False
) -> str:
    """The rows of `compared` as a table; the labels say which runs they are."""
    interval = "95 % interval"
    cells = [["", "mIoU", interval, "pixel acc.", "minus first", interval, ""]]
    for label, row in zip(labels, rows):
        difference = [""] * 3
        if row["verdict"]:
            bounds = f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
            difference = [f"{row['difference']:+.4f}", bounds, row["verdict"]]
        bounds = f"{row['miou_low']:.4f} to {row['miou_high']:.4f}"
        score = [f"{row['miou']:.4f}", bounds, f"{row['pixel_accuracy']:.4f}"]
        cells.append([label, *score, *difference])
    return in_columns(cells, markdown)


def class_comparison(
    matrices: Sequence[ConfusionMatrix],
    names: Sequence[str],
    labels: Sequence[str],
    markdown: bool = False,
) -> str:
    """Several scores class by class as a table; of two also the differences.

    Args:
        names: of the classes.
        labels: short ones, of the scores.
    """
    ious = np.stack([matrix.iou() for matrix in matrices], axis=1)  # (C, scores)
    cells = [["", *labels]]
    cells += [[name, *map(_cell, row)] for name, row in zip(names, ious)]
    cells.append(["classes", *(str(matrix.classes_in_mean()) for matrix in matrices)])
    if len(matrices) == 2:
        gains = ["" if np.isnan(gain) else f"{gain:+.3f}" for gain in ious[:, 1] - ious[:, 0]]
        gains = [f"{labels[1]} - {labels[0]}", *gains, ""]
        cells = [[*row, gain] for row, gain in zip(cells, gains)]
    return in_columns(cells, markdown)


def in_columns(cells: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Rows of cells as text, the first column to the left and the others to the right.

    Args:
        markdown: as a table of GitHub's, with the first row as heading.
    """
    first, *others = (max(map(len, column)) for column in zip(*cells))
    rows = [
        [f"{name:{first}}", *(f"{cell:>{width}}" for cell, width in zip(row, others))]
        for name, *row in cells
    ]
    if not markdown:
        return "\n".join("  ".join(row).rstrip() for row in rows)
    rows.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(iou: float) -> str:
    return "absent" if np.isnan(iou) else f"{iou:6.3f}"


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient in float64, nan where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    quotient = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not nan; nan (without a warning) when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
