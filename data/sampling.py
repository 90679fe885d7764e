"""What is random about images: pixels, order, units that dropout keeps, the seed of all else."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from data.classes import VOID

PLACES = 400  # of each image, labelled or not, at which step 1 measures the spread of the features
KEPT = 8  # of these, whose features are kept where labels are sparse, see `estimate_areas`


def sample_pixels(
    mask: np.ndarray, per_class: int, seed: int, image_id: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step 1: `per_class` distinct pixels of every class in `mask`, uniformly, or all if fewer.

    Args:
        mask: (H, W) uint8, class ids and VOID, which is never drawn.

    Returns:
        pixels (n, 2) int64, (y, x) in the mask; labels (n,) uint8, classes ascending; and areas
        (n,) float32: the share of the image's labelled pixels that each stands for, which is that
        of its class over the pixels drawn of it (Horvitz & Thompson, 1952: a sum weighted so
        estimates that over all labelled pixels without bias).
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


def draw_pixels(mask: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Step 3: labelled pixels of a mask (H, W), without replacement, each as likely as any other.

    Their mean cross entropy (without class weights) and its gradient are unbiased estimates of
    those over all labelled pixels (Bansal et al., "PixelNet", 2017). Not so the Lovasz-softmax,
    which is no mean over pixels, nor quite a weighted mean, whose divisor depends on the draw.

    Returns:
        Pixels (n, 2) int64 as (y, x) and their labels (n,) int64; n is `count` or at most H W. A
        mask with fewer than n labelled pixels gives them all, then pixels of label VOID.
    """
    labels = mask.flatten().long()
    order = torch.randperm(len(labels), generator=generator)
    is_void = labels[order] == VOID
    drawn = torch.cat([order[~is_void], order[is_void]])[:count]
    return torch.stack([drawn // mask.shape[1], drawn % mask.shape[1]], dim=-1), labels[drawn]


def pixel_centres(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Pixels (.., 2), (y, x) in a grid (height, width) -> their centres as shares, float32."""
    return (pixels + 0.5) / pixels.new_tensor(size, dtype=torch.float32)


def random_places(seed: int, image_id: str) -> Tensor:
    """Places anywhere in an image, (PLACES, 2) float32, (y, x) as shares of height and width."""
    generator = torch.Generator().manual_seed(image_seed(seed, 0, image_id))
    return torch.rand(PLACES, 2, generator=generator)


def draw_kept(widths: Sequence[int], dropout: float, generator: torch.Generator) -> list[Tensor]:
    """The units of each hidden layer that dropout keeps in an image: (k,) int64, ascending.

    Always so many, the share 1 - `dropout` but at least one: images of a batch are computed
    together. Without dropout none is drawn, and the list is empty.
    """
    kept = []
    for width in widths if dropout else ():
        count = max(1, round(width * (1 - dropout)))
        kept.append(torch.randperm(width, generator=generator)[:count].sort().values)
    return kept


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """The micro-batches of an epoch, this process's share of each: lists of (epoch, index).

    The order of the images follows from seed and epoch; its first images fill up the last step.

    Args:
        images: how many there are.
        batch_size: images of a whole step, shared by `micro_batches` and in those by `processes`,
            of which `rank` is this one.

    Attributes:
        steps: of an epoch.
        epoch: of the next pass; to be set before it.
        done: micro-batches of that epoch to leave out, since an interrupted run has made them.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        micro_batches: int = 1,
    ):
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.rank, self.processes, self.micro_batches = rank, processes, micro_batches
        self.steps = -(-images // batch_size)
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return self.steps * self.micro_batches - self.done

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.images)
        size = self.batch_size // self.micro_batches
        order = np.resize(order, (self.steps * self.micro_batches, size))
        for batch in order[self.done :].tolist():
            yield [(self.epoch, index) for index in batch[self.rank :: self.processes]]


def image_seed(seed: int, epoch: int, image_id: str) -> int:
    """A seed below 2**63 for what is random about one image in one epoch."""
    sequence = np.random.SeedSequence([seed, epoch, *image_id.encode()])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
