"""The store of sparse features on disk: written in bounded memory, whole or not at all; read back with checks."""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from data import DataError

DTYPES = {"features": np.float32, "labels": np.uint8, "pixels": np.int64}
BLOCK = 4096  # rows looked at together, however many there are


class FeatureWriter:
    """Appends sampled pixels to `features.npy`, `labels.npy`, `pixels.npy`; memory does not grow with their number.

    Rows go to `*.part` files; `finish` gives them their names, so a store that was there before stays whole until then.
    Use as a context manager: leaving it without `finish` removes the `*.part` files, unless `pause` was called.

    Args:
        folder: where the files go.
        channels: Z.
        paused: what `pause` gave to an earlier writer in this folder, to go on from there.
    """

    def __init__(self, folder: Path, channels: int, paused: dict[str, Any] | None = None):
        self.folder = Path(folder)
        self.rows = 0
        self._paused = paused
        self._row_shapes = {"features": (channels,), "labels": (), "pixels": (3,)}
        self._files: dict[str, BinaryIO] = {}
        # Running moments of the features (Chan, Golub & LeVeque 1983): exact in one pass, in float64.
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)

    def __enter__(self) -> "FeatureWriter":
        """Opens the files.

        Raises:
            DataError: they do not hold the rows that were there at the pause.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._paused:
                self._go_on(self._paused)
            else:
                for name in self._row_shapes:
                    self._files[name] = open(self._part(name), "wb")
                    self._write_header(name)
        except BaseException:  # Ctrl-C too: `with` has not begun yet
            self.__exit__()
            raise
        return self

    def pause(self) -> dict[str, Any]:
        """Brings all rows to disk and keeps the `*.part` files; gives plain values for a writer that goes on."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._paused = {"rows": self.rows, "mean": self._mean.tolist(), "squares": self._squares.tolist()}
        return self._paused

    def _go_on(self, paused: dict[str, Any]) -> None:
        self.rows = paused["rows"]
        self._mean, self._squares = np.array(paused["mean"]), np.array(paused["squares"])
        for name, shape in self._row_shapes.items():
            path, row = self._part(name), np.dtype(DTYPES[name]).itemsize * math.prod(shape)
            try:
                self._files[name] = file = open(path, "r+b")
            except FileNotFoundError:
                raise DataError(f"{path}: no such file to go on with; start over without --resume") from None
            self._write_header(name)
            end = file.tell() + self.rows * row
            if path.stat().st_size < end:
                raise DataError(f"{path}: shorter than the {self.rows} rows to go on from; start over without --resume")
            file.truncate(end)  # rows of after the pause come again
            file.seek(end)

    def append(self, features: np.ndarray, labels: np.ndarray, pixels: np.ndarray) -> None:
        """Adds n rows: features (n, Z) float, labels (n,) class ids, pixels (n, 3) as (image index, y, x).

        Raises:
            DataError: a feature is not finite.
        """
        count = len(features)
        if not len(labels) == len(pixels) == count:
            raise ValueError(f"{count} features, {len(labels)} labels and {len(pixels)} pixels do not belong together")
        if not count:
            return
        if not np.isfinite(features).all():
            raise DataError(f"{self.folder}: the features are not all finite; are the backbone's weights damaged?")
        for name, rows in (("features", features), ("labels", labels), ("pixels", pixels)):
            self._files[name].write(np.ascontiguousarray(rows, dtype=DTYPES[name]).tobytes())
        block = features.astype(np.float64)
        block_mean = block.mean(0)
        delta, total = block_mean - self._mean, self.rows + count
        self._squares += ((block - block_mean) ** 2).sum(0) + delta**2 * (self.rows * count / total)
        self._mean += delta * (count / total)
        self.rows = total

    def finish(self, images: list[str]) -> None:
        """Names the files for good and adds `mean.npy`, `std.npy` ((Z,) float32) and `images.txt` (an id a line)."""
        std = np.sqrt(self._squares / max(self.rows, 1))
        for name, values in (("mean", self._mean), ("std", std)):
            with open(self._part(name), "wb") as file:
                np.save(file, values.astype(np.float32))
        lines = "".join(f"{image_id}\n" for image_id in images)
        self._part("images", "txt").write_text(lines, encoding="utf-8")
        for name, file in self._files.items():
            file.seek(0)
            self._write_header(name)  # numpy leaves room in a header for a longer first axis, so it keeps its length
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for part in self._parts():
            os.replace(part, part.with_suffix(""))

    def __exit__(self, *exception) -> None:
        for file in self._files.values():
            with suppress(OSError):  # of a full disk, which refuses what is still in the buffer: not wanted any more
                file.close()
        for part in self._parts() if not self._paused else ():
            part.unlink(missing_ok=True)

    def _part(self, name: str, suffix: str = "npy") -> Path:
        return self.folder / f"{name}.{suffix}.part"

    def _parts(self) -> list[Path]:
        names = [*self._row_shapes, "mean", "std"]
        return [self._part(name) for name in names] + [self._part("images", "txt")]

    def _write_header(self, name: str) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(DTYPES[name])),
            "fortran_order": False,
            "shape": (self.rows, *self._row_shapes[name]),
        }
        np.lib.format.write_array_header_1_0(self._files[name], header)


class Features(NamedTuple):
    """What step 1 wrote."""

    features: np.ndarray  # (N, Z) float32, mapped from disk
    labels: np.ndarray  # (N,) uint8 class ids
    pixels: np.ndarray  # (N, 3) int64: image index, y, x in the original mask
    mean: np.ndarray  # (Z,) float32
    std: np.ndarray  # (Z,) float32, of the population


def read_features(folder: Path, classes: int) -> Features:
    """Opens a finished store.

    Raises:
        DataError: a file is missing or damaged, the files do not belong together, a label is outside the classes, or
            a mean, a standard deviation or a feature is not finite, or the numbers are of another type.
    """
    arrays = {}
    for name in Features._fields:
        path = Path(folder) / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r" if name == "features" else None, allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run step 1 again: python sample_features.py") from None
        except Exception as error:  # numpy raises many kinds on damaged files; all mean the same to the user
            raise DataError(f"{path}: cannot be read ({error}); run step 1 again: python sample_features.py") from None
    store = Features(**arrays)
    rows, channels = store.features.shape if store.features.ndim == 2 else (-1, -1)
    expected = Features((rows, channels), (rows,), (rows, 3), (channels,), (channels,))
    for name, array, shape in zip(Features._fields, store, expected):
        if array.shape != shape:
            raise DataError(
                f"{folder}: {name}.npy has shape {array.shape}, which does not go with features.npy "
                f"{store.features.shape}; run step 1 again: python sample_features.py"
            )
        if array.dtype != (dtype := DTYPES.get(name, np.float32)):
            raise DataError(
                f"{folder}/{name}.npy: holds {array.dtype}, not {np.dtype(dtype)}; "
                "run step 1 again: python sample_features.py"
            )
    if not rows:
        raise DataError(f"{folder}: features.npy holds no row; are the masks of the split all void?")
    if store.labels.max() >= classes:
        raise DataError(f"{folder}/labels.npy: label {store.labels.max()} is outside the classes 0..{classes - 1}")
    if not (np.isfinite(store.mean).all() and np.isfinite(store.std).all()):
        raise DataError(f"{folder}: the features are not all finite; are the backbone's weights damaged?")
    for start in range(0, rows, BLOCK):
        finite = np.isfinite(store.features[start : start + BLOCK]).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{folder}/features.npy: row {start + finite.argmin()} holds a value that is not finite; "
                "run step 1 again: python sample_features.py"
            )
    return store
