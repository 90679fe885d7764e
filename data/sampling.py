"""What is random about an image: the pixels that step 1 samples, and the seed of all else."""

import numpy as np

from data.classes import VOID


def sample_pixels(
    mask: np.ndarray, per_class: int, seed: int, image_id: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draws `per_class` distinct pixels of every class in `mask`, uniformly, or all if fewer.

    Void is never drawn. The draw depends on the seed, the image's id and its mask alone.

    Args:
        mask: (H, W) uint8, class ids and VOID.

    Returns:
        pixels (n, 2) int64, (y, x) in the mask, and labels (n,) uint8; classes ascending.
    """
    generator = np.random.default_rng([seed, *image_id.encode()])
    flat = mask.ravel()
    drawn = [np.empty(0, dtype=np.int64)]
    for label in np.flatnonzero(np.bincount(flat, minlength=VOID + 1)[:VOID]):
        places = np.flatnonzero(flat == label)
        drawn.append(generator.choice(places, size=min(per_class, len(places)), replace=False))
    places = np.concatenate(drawn)
    return np.stack(np.unravel_index(places, mask.shape), axis=1), flat[places]


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
