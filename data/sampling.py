"""Chance, image by image: which pixels become training samples, and a seed for all else that is random about one."""

import numpy as np

from data.classes import VOID


def sample_pixels(mask: np.ndarray, per_class: int, seed: int, image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Chooses `per_class` distinct pixels of every class in `mask`, uniformly; all of them where there are fewer.

    Void is never chosen. The choice depends on the seed, the image's id and its mask alone, not on the order in which
    images are read or the process that reads them.

    Args:
        mask: (H, W) uint8, class ids and VOID.

    Returns:
        pixels (n, 2) int64, (y, x) in the mask, and labels (n,) uint8; classes ascending. Both empty where all is void.
    """
    generator = np.random.default_rng([seed, *image_id.encode()])
    flat = mask.ravel()
    chosen = []
    for label in np.flatnonzero(np.bincount(flat, minlength=VOID + 1)[:VOID]):
        places = np.flatnonzero(flat == label)
        chosen.append(generator.choice(places, size=min(per_class, len(places)), replace=False))
    places = np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
    return np.stack(np.unravel_index(places, mask.shape), axis=1), flat[places]


def image_seed(seed: int, epoch: int, purpose: str, image_id: str) -> int:
    """A seed below 2**63 for what is random about one image in one epoch, for one purpose.

    It depends on nothing else, so neither the other images of a batch, nor the process that has it, nor an interruption
    changes what chance does to an image.
    """
    return int(
        np.random.SeedSequence([seed, epoch, *purpose.encode(), 0, *image_id.encode()]).generate_state(1, np.uint64)[0]
        >> 1
    )
