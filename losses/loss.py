"""The training loss, a mean over images, and the class weights that go with it.

Each image counts by its mean over its labelled pixels. So parts of a batch, accumulated batches and
processes add up as averages, whatever number of labelled pixels each of them has.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.classes import VOID
from losses.lovasz import lovasz_softmax


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    lovasz: float = 0.0,
) -> Tensor:
    """`cross_entropy2d` plus `lovasz` times the mean Lovasz-softmax of the images, a scalar.

    Arguments and errors are those of `cross_entropy2d`; void is `data.classes.VOID`.
    """
    logits = _at_target(logits, target)
    loss = cross_entropy2d(logits, target, weight, label_smoothing=label_smoothing)
    return loss + lovasz * lovasz_softmax(logits, target).mean() if lovasz else loss


def cross_entropy2d(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = VOID,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy: the mean over the images of each one's mean over its labelled pixels.

    Args:
        logits: (B, C, h, w) floating point, resized bilinearly (half-pixel centres) to the target
            where the sizes differ; or (B, C, n) at n pixels of each image.
        target: (B, H, W) or (B, n) int64, class ids 0..C-1 or void.
        weight: (C,) class weights, or None. The mean of an image is then the weighted one,
            as in `torch.nn.functional.cross_entropy`.
        ignore_index: the id that means void.
        label_smoothing: share of the target that is spread over all classes, from 0 to below 1.

    Returns:
        A scalar, float32 at least. An image without a labelled pixel (or only with ones of
        weight 0) counts as an image of loss 0 and gradient 0.

    Raises:
        ValueError: shapes that do not belong together, or a class id outside 0..C-1.
        TypeError: logits that are not floating point or a target that is not int64.
    """
    logits = _at_target(logits, target)
    _check_classes(target, logits.shape[1], weight, ignore_index)
    if weight is not None:
        weight = weight.to(logits)
    losses = F.cross_entropy(
        logits,
        target,
        weight,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    labelled = target != ignore_index
    shares = labelled if weight is None else labelled * weight[target.where(labelled, 0)]
    sums, totals = losses.flatten(1).sum(1), shares.flatten(1).sum(1)
    return (sums.where(totals > 0, 0) / totals.where(totals > 0, 1)).mean()


def inverse_frequency(counts: Tensor) -> Tensor:
    """Class weights (C,) float32, inverse to the pixels of each class (C,) in a data set.

    They average to 1 over the classes that occur; a class that does not occur gets 0.
    """
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1).float(), 0)
    present = int((counts > 0).sum())
    return weights * (present / weights.sum()) if present else weights


def _at_target(logits: Tensor, target: Tensor) -> Tensor:
    """Logits at the target's pixels, float32 at least, after a check of shapes and dtypes."""
    points = target.ndim == 2 and logits.shape[2:] == target.shape[1:]
    images = target.ndim == 3 and logits.ndim == 4
    if not (points or images) or logits.shape[0] != target.shape[0]:
        raise ValueError(
            "expected logits (B, C, h, w) and target (B, H, W), or (B, C, n) and (B, n), "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64, got {target.dtype}")
    if logits.shape[2:] != target.shape[1:]:
        logits = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=False)
    # A sum over an image overflows float16.
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _check_classes(target: Tensor, classes: int, weight: Tensor | None, ignore_index: int) -> None:
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"weight must have shape ({classes},), got {tuple(weight.shape)}")
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if wrong.any():
        raise ValueError(
            f"target holds class id {int(target[wrong][0])}; "
            f"ids are 0..{classes - 1}, or {ignore_index} for void"
        )
