"""Scores image by image: kept on disk, so that two predictions of the same images can be compared."""

from collections.abc import Sequence
from itertools import zip_longest
from os import PathLike
from typing import BinaryIO

import numpy as np

from losses.score import ConfusionMatrix, Pixels


class ImageScores:
    """The confusion counts of each image, without the many zeros.

    Attributes:
        names: of the classes.
        ids: of the images, in the order in which they were added.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.ids: list[str] = []
        self._rows: list[np.ndarray] = []  # of each image (n, 3) int64: true class, predicted class, pixels

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, image_id: str, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds an image; prediction and target as for `ConfusionMatrix.update`."""
        matrix = ConfusionMatrix(len(self.names))
        matrix.update(prediction, target)
        truth, guess = matrix.counts.nonzero()
        self.ids.append(image_id)
        self._rows.append(np.stack([truth, guess, matrix.counts[truth, guess]], axis=1))

    def extend(self, others: "ImageScores") -> None:
        """Adds the images of others, of the same classes."""
        self.ids += others.ids
        self._rows += others._rows

    def take(self, indices: Sequence[int]) -> "ImageScores":
        """Some of the images, in this order."""
        taken = ImageScores(self.names)
        taken.ids, taken._rows = ([values[index] for index in indices] for values in (self.ids, self._rows))
        return taken

    def matched(self, others: "ImageScores") -> "ImageScores":
        """Others of the same images, in the order of these.

        Raises:
            ValueError: they are of other classes or other images, or the ground truth of an image is not the same.
        """
        for index, (name, theirs) in enumerate(zip_longest(self.names, others.names, fillvalue="none")):
            if name != theirs:
                raise ValueError(f"class {index} is {name!r} in one and {theirs!r} in the other")
        places = {image_id: index for index, image_id in enumerate(others.ids)}
        if odd := places.keys() ^ set(self.ids):
            raise ValueError(f"they are of other images ({len(self)} and {len(others)}; {min(odd)} is in one alone)")
        others = others.take([places[image_id] for image_id in self.ids])
        differs = (self.pixels().truth != others.pixels().truth).any(axis=1)
        if differs.any():
            raise ValueError(f"the ground truth of {self.ids[differs.argmax()]} is not the same, so it is other data")
        return others

    def total(self) -> ConfusionMatrix:
        """The confusion matrix over all images."""
        matrix = ConfusionMatrix(len(self.names))
        _, truth, guess, pixels = self._columns()
        np.add.at(matrix.counts, (truth, guess), pixels)
        return matrix

    def pixels(self) -> Pixels:
        """What the IoU of any selection of the images follows from."""
        image, truth, guess, pixels = self._columns()
        counts = Pixels(*np.zeros((3, len(self), len(self.names)), dtype=np.int64))
        np.add.at(counts.truth, (image, truth), pixels)
        np.add.at(counts.predicted, (image, guess), pixels)
        hit = truth == guess
        np.add.at(counts.hits, (image[hit], truth[hit]), pixels[hit])
        return counts

    def save(self, file: BinaryIO) -> None:
        """Writes numpy's .npz: the text arrays "classes" (C,) and "ids" (N,), and four arrays of numbers.

        For each pair of classes that meet in an image these have an entry: "image" (its place in "ids"), "truth",
        "prediction" (class ids) and "pixels". Equal scores give equal bytes.
        """
        image, truth, guess, pixels = self._columns()
        np.savez_compressed(
            file,
            classes=np.array(self.names),
            ids=np.array(self.ids, dtype=np.str_),
            image=image.astype(np.int32),
            truth=truth.astype(np.uint8),
            prediction=guess.astype(np.uint8),
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
            with np.load(path, allow_pickle=False) as arrays:
                columns = [arrays[name] for name in ("image", "truth", "prediction", "pixels")]
                scores = cls(arrays["classes"].tolist())
                scores.ids = arrays["ids"].tolist()
                image, *rows = np.stack(columns).astype(np.int64)
                rows = np.stack(rows, axis=1)
                places = np.concatenate([[0], image, [len(scores) - 1]])
                labels = rows[:, :2]
                if (np.diff(places) < 0).any() or not ((labels >= 0) & (labels < len(scores.names))).all():
                    raise ValueError
        except FileNotFoundError:
            raise
        except Exception:  # numpy raises many kinds on damaged files; all mean the same to the user
            raise ValueError(f"{path}: cannot be read as the scores of images") from None
        scores._rows = np.split(rows, np.searchsorted(image, range(1, len(scores))))
        return scores

    def _columns(self) -> tuple[np.ndarray, ...]:
        """Image, true class, predicted class and pixels of every row, (n,) int64 each."""
        rows = np.concatenate([np.empty((0, 3), dtype=np.int64), *self._rows])
        return np.repeat(np.arange(len(self)), list(map(len, self._rows))), *rows.T
