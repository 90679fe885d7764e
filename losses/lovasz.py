"""The Lovasz-softmax loss: a surrogate whose minimum is that of the IoU's complement.

Berman, Triki & Blaschko, "The Lovasz-Softmax Loss: A Tractable Surrogate for the Optimization of the
Intersection-Over-Union Measure in Neural Networks", CVPR 2018.
"""

import torch
from torch import Tensor


def lovasz_softmax(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """The loss of each image, from 0 (all right, and sure of it) to 1: the mean over the classes of its ground truth.

    Args:
        logits: (B, C, n) floating point, at n places of each image.
        target: (B, n) int64, class ids 0..C-1 or `ignore_index`; void takes no part.

    Returns:
        (B,) float32 at least; 0, with a gradient of 0, for an image without a labelled place.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    losses = []
    for scores, labels in zip(logits, target):
        labelled = labels != ignore_index
        probabilities = scores[:, labelled].softmax(0)
        of_classes = [_of_class(probabilities[label], labels[labelled] == label) for label in labels[labelled].unique()]
        losses.append(torch.stack(of_classes).mean() if of_classes else 0 * scores.sum())
    return torch.stack(losses)


def _of_class(probabilities: Tensor, is_class: Tensor) -> Tensor:
    """The Lovasz extension of 1 - IoU of one class at the errors of its probabilities (n,); `is_class` (n,) bool."""
    errors, order = (is_class.to(probabilities.dtype) - probabilities).abs().sort(descending=True)
    truth = is_class[order].to(errors.dtype)
    # 1 - IoU if the k pixels with the largest errors are wrong and all others right, for k = 1..n.
    wrong = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
    steps = torch.cat([wrong[:1], wrong[1:] - wrong[:-1]])
    return errors @ steps
