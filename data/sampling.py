"""What is random about images: the pixels of steps 1 and 3, the order, and the seed of all else."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.classes import VOID


def sample_pixels(
    mask: np.ndarray, per_class: int, seed: int, image_id: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step 1: `per_class` distinct pixels of every class in `mask`, uniformly, or all if fewer.

    Void is never drawn. The draw depends on the seed, the image's id and its mask alone.

    Args:
        mask: (H, W) uint8, class ids and VOID.

    Returns:
        pixels (n, 2) int64, (y, x) in the mask, labels (n,) uint8, classes ascending, and areas
        (n,) float32: the share of the image's labelled pixels that each stands for, which is that
        of its class over the pixels drawn of it. They sum to 1 (Horvitz & Thompson, 1952: a sum
        weighted so estimates that over all labelled pixels without bias).
    """
    generator = np.random.default_rng([seed, *image_id.encode()])
    flat = mask.ravel()
    counts = np.bincount(flat, minlength=VOID + 1)[:VOID]
    drawn = [np.empty(0, dtype=np.int64)]
    for label in np.flatnonzero(counts):
        places = np.flatnonzero(flat == label)
        drawn.append(generator.choice(places, size=min(per_class, len(places)), replace=False))
    places = np.concatenate(drawn)
    labels = flat[places]
    areas = counts / np.minimum(counts, per_class).clip(1) / max(1, counts.sum())
    pixels = np.stack(np.unravel_index(places, mask.shape), axis=1)
    return pixels, labels, areas[labels].astype(np.float32)


def draw_pixels(
    target: Tensor,
    count: int,
    generators: Sequence[torch.Generator] | None = None,
) -> tuple[Tensor, Tensor]:
    """Step 3: labelled pixels of each image, without replacement, each as likely as any other.

    The mean cross entropy (without class weights) over the drawn pixels of an image is an unbiased
    estimate of that over all its labelled pixels, and so is the gradient (Bansal et al.,
    "PixelNet", 2017). This does not hold for the Lovasz-softmax, which is no mean over pixels, nor
    quite for a weighted mean, whose divisor depends on the draw.

    Args:
        target: (B, H, W) int64.
        count: pixels of an image, at most all H W of them.
        generators: one for each image, on the CPU; None means torch's global one.

    Returns:
        Pixels (B, n, 2) int64 as (y, x) and their labels (B, n) int64. An image with fewer than
        n labelled pixels gives them all, then pixels of label VOID.
    """
    labels = target.flatten(1)
    orders = [
        torch.randperm(labels.shape[1], generator=generator)
        for generator in generators or [None] * len(labels)
    ]
    # The first labelled pixels in a random order; void comes after all others.
    priorities = torch.stack(orders).to(labels.device).masked_fill(labels == VOID, -1)
    drawn = priorities.topk(min(count, labels.shape[1])).indices
    pixels = torch.stack([drawn // target.shape[2], drawn % target.shape[2]], dim=-1)
    return pixels, labels.gather(1, drawn)


def epoch_order(images: int, batch_size: int, seed: int, epoch: int) -> list[int]:
    """The images of an epoch in random order, filled up with its first to whole batches."""
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return np.resize(order, -(-images // batch_size) * batch_size).tolist()


def image_seed(seed: int, epoch: int, image_id: str) -> int:
    """A seed below 2**63 for what is random about one image in one epoch.

    Neither the other images of a batch, nor the process that reads it, nor an interruption changes
    it.
    """
    sequence = np.random.SeedSequence([seed, epoch, *image_id.encode()])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
