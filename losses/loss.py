"""The training loss, a mean over images, and the class weights that go with it.

Each image counts by its mean over its labelled pixels. So parts of a batch, accumulated batches and
processes add up as averages, whatever number of labelled pixels each of them has.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.classes import VOID


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    lovasz: float = 0.0,
) -> Tensor:
    """Cross entropy plus `lovasz` times the Lovasz-softmax; both are means over the images.

    Args:
        logits: (B, C, h, w) floating point, resized bilinearly (half-pixel centres) to the target
            where the sizes differ; or (B, C, n) at n pixels of each image.
        target: (B, H, W) or (B, n) int64, class ids 0..C-1 or VOID.
        weight: (C,) class weights, or None. The cross entropy of an image is then the mean over its
            pixels, each weighted by its class. With `label_smoothing`, torch's own weights are of
            the classes that it spreads to, too: a pixel of a common one pays for all the rare.
        label_smoothing: share of the target that is spread over all classes, from 0 to below 1.

    Returns:
        A scalar, float32 at least. An image without a labelled pixel (or only with ones of
        weight 0) counts as an image of loss 0 and gradient 0.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits  # sums overflow float16
    if logits.shape[2:] != target.shape[1:]:
        logits = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=False)
    logits, target = logits.flatten(2), target.flatten(1)
    how = {"ignore_index": VOID, "reduction": "none", "label_smoothing": label_smoothing}
    losses, labelled = F.cross_entropy(logits, target, **how), target != VOID
    weight = torch.ones_like(logits[0, :, 0]) if weight is None else weight.to(logits)
    weights = labelled * weight[target.where(labelled, 0)]  # (B, n)
    totals = weights.sum(1)
    loss = ((losses * weights).sum(1) / totals.where(totals > 0, 1)).mean()
    return loss + lovasz * lovasz_softmax(logits, target).mean() if lovasz else loss


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """A surrogate of 1 - IoU for each image: the mean over the classes of its ground truth.

    Berman, Triki & Blaschko, "The Lovasz-Softmax Loss: A Tractable Surrogate for the Optimization
    of the Intersection-Over-Union Measure in Neural Networks", CVPR 2018.

    Args:
        logits: (B, C, n) floating point; target: (B, n) int64, class ids 0..C-1 or VOID.

    Returns:
        (B,) from 0 to 1; 0, with a gradient of 0, for an image without a labelled pixel.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None]
    truth = (target[:, None] == classes).to(logits.dtype)  # (B, C, n), as all that follow
    errors = (truth - logits.softmax(1)).abs() * (target != VOID)[:, None]  # void: 0, sorted last
    errors, order = errors.sort(descending=True)
    truth = truth.gather(2, order)
    # 1 - IoU if the k pixels with the largest errors are wrong and all others right, k = 1..n.
    pixels = truth.sum(2, keepdim=True)
    jaccard_loss = 1 - (pixels - truth.cumsum(2)) / (pixels + (1 - truth).cumsum(2))
    steps = jaccard_loss.diff(dim=2, prepend=torch.zeros_like(pixels))
    is_present = pixels[..., 0] > 0  # (B, C)
    of_classes = (errors * steps).sum(2) * is_present
    return of_classes.sum(1) / is_present.sum(1).clamp(min=1)


def inverse_frequency(counts: Tensor) -> Tensor:
    """Class weights (C,) float32, inverse to the pixels of each class (C,) in a data set.

    They average to 1 over the classes that occur; a class that does not occur gets 0.
    """
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1).float(), 0)
    present = int((counts > 0).sum())
    return weights * (present / weights.sum()) if present else weights


def weighted_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float
) -> Tensor:
    """The weighted mean of the cross entropies of rows (n, C), a scalar; for `train_cls.py`.

    Targets are class ids (n,) or the classes' shares (n, C).
    """
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    return (losses * weights).sum() / weights.sum()
