"""The sampled hypercolumns on disk: plain .npy files, in a folder that step 1 makes anew."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta

from data import UserError
from data.classes import VOID

LEAST_AREA = 0.002  # share of an image that is estimated of a class with a label there
Rows = Sequence[Tensor]  # features (n, Z), labels (n,) int64, weights in the loss (n,)


class Features(NamedTuple):
    """What step 1 wrote."""

    features: np.ndarray  # (N, Z) float32
    labels: np.ndarray  # (N,) uint8 class ids
    pixels: np.ndarray  # (N, 3) int64: image index, y, x in the original mask
    areas: np.ndarray  # (N,) float32: share of its image that a row stands for
    mean: np.ndarray  # (Z,) float32
    std: np.ndarray  # (Z,) float32, of the population, or if larger that anywhere in the images
    photos: np.ndarray  # (images,) int64, see `VOCFolder.photo_hashes`
    places: np.ndarray | None = None  # (images, KEPT, Z) float32, anywhere; kept of sparse labels


def save_features(folder: Path, store: Features) -> None:
    """Saves each array as NAME.npy in a new folder."""
    for name, array in store._asdict().items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)


def read_features(folder: Path) -> Features:
    """What step 1 wrote, in memory: nothing stays open.

    Raises:
        UserError: a file is missing or damaged, or the files do not belong together.
    """
    try:
        files = {name: folder / f"{name}.npy" for name in Features._fields}
        if not files["places"].is_file():
            del files["places"]
        store = Features(**{name: np.load(path) for name, path in files.items()})
        if len({*map(len, (store.features, store.labels, store.pixels, store.areas))}) > 1:
            raise ValueError("files with different numbers of rows")
        return store
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder}: cannot be read ({error}); run step 1 again") from None


def check_several(labels: np.ndarray | Tensor, where: object) -> None:
    """Refuses labels (N,) of one class alone, which every classifier gets right; says `where`."""
    if not len(labels):
        raise UserError(f"{where}: no pixel is labelled, but void ({VOID}) alone")
    if (labels == labels[0]).all():
        raise UserError(
            f"{where}: all pixels to train on are of one class (number {int(labels[0])}; void is "
            f"{VOID}); label another one, too, such as the background"
        )


def hold_out(images: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of rows that train and do not: of a random share of the images, never of all.

    Args:
        images: (N,) of each row its image.
    """
    order = np.random.default_rng(seed).permutation(np.unique(images))
    held = np.isin(images, order[: min(math.ceil(len(order) * share), len(order) - 1)])
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def draw_batches(
    rows: Rows, which: Tensor, size: int, classes: int, mixup: float
) -> Iterator[Rows]:
    """Rows in random order, `size` at a time: features, targets (n, C), weights.

    With `mixup` each is a place on the line between two rows, whose share follows Beta(mixup,
    mixup) (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018).

    Args:
        which: (n,) int64, the rows that are drawn; the others are not copied out, for they may
            take gigabytes.
    """
    for batch in which[torch.randperm(len(which))].to(rows[1].device).split(size):
        features, labels, weights = (part[batch] for part in rows)
        targets = weights[:, None] * F.one_hot(labels, classes)
        if mixup:
            share = Beta(mixup, mixup).sample(weights.shape).to(features)[:, None]
            other = torch.randperm(len(batch)).to(batch.device)
            features, targets = (torch.lerp(x, x[other], share) for x in (features, targets))
        weights = targets.sum(1)
        yield features, targets / weights[:, None].clamp(min=1e-30), weights  # 0 stays 0


@torch.inference_mode()
def estimate_areas(
    images: np.ndarray,
    labels: np.ndarray,
    places: np.ndarray,
    classify: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """The share of its image that each row stands for, (N,) float32, where labels are sparse.

    That of its class, over its rows there, is what a first classifier says of the image's places
    among the classes that have a label in it: a step of expectation maximisation, as Saerens et
    al. estimate class priors ("Adjusting the Outputs of a Classifier", Neural Computation 2002).

    Args:
        images, labels: (N,) of the rows, the former as indices of `places`.
        places: (images, n, Z) float32, features anywhere in the images.
        classify: features (n, Z) -> logits (n, C), both on the CPU.
    """
    labels = labels.astype(np.int64)
    logits = torch.stack([classify(torch.from_numpy(some)) for some in places])
    count, classes = len(logits), logits.shape[2]
    pairs = torch.from_numpy(images * classes + labels)
    counts = torch.bincount(pairs, minlength=count * classes).view(count, classes)
    shares = logits.masked_fill(counts[:, None] == 0, -math.inf).softmax(2).mean(1)
    return (shares.clamp(min=LEAST_AREA) / counts)[images, labels].numpy()
