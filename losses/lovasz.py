"""The Lovasz-softmax loss: a surrogate for 1 - IoU that gradients can minimise.

Berman, Triki & Blaschko, "The Lovasz-Softmax Loss: A Tractable Surrogate for the Optimization of
the Intersection-Over-Union Measure in Neural Networks", CVPR 2018.
"""

import torch
from torch import Tensor

from data.classes import VOID


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """The loss of each image, from 0 to 1: the mean over the classes of its ground truth.

    Args:
        logits: (B, C, H, W) floating point, or (B, C, n) at n pixels of each image.
        target: (B, H, W) or (B, n) int64, class ids 0..C-1 or VOID.

    Returns:
        (B,) float32 at least; 0, with a gradient of 0, for an image without a labelled pixel.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    images = zip(logits.flatten(2), target.flatten(1))
    return torch.stack([_of_image(*image) for image in images])


def _of_image(logits: Tensor, target: Tensor) -> Tensor:
    """The loss of an image, (C, n) and (n,): a scalar."""
    labelled = target != VOID
    target = target[labelled]
    present = target.unique()
    is_class = target == present.unsqueeze(1)  # (classes present, labelled pixels), as below
    probabilities = logits[:, labelled].softmax(0)[present]
    errors = (is_class.to(logits.dtype) - probabilities).abs()
    errors, order = errors.sort(descending=True)
    truth = is_class.gather(1, order).to(logits.dtype)
    # 1 - IoU if the k pixels with the largest errors are wrong and all others right, k = 1..n.
    pixels = truth.sum(1, keepdim=True)
    jaccard_loss = 1 - (pixels - truth.cumsum(1)) / (pixels + (1 - truth).cumsum(1))
    steps = jaccard_loss.diff(dim=1, prepend=torch.zeros_like(pixels))
    return (errors * steps).sum() / max(1, len(present))
