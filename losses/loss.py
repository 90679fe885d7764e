"""Losses on logits: cross entropy over the labelled pixels, and the class weights that go with it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTINGS = ("none", "inverse", "batch")


def cross_entropy2d(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy over the pixels of whole images; void pixels take no part.

    Args:
        logits: (B, C, h, w) floating point. Resized bilinearly (half-pixel centres) to the target where sizes differ.
        target: (B, H, W) int64, class ids 0..C-1 or `ignore_index`.
        weight: (C,) class weights, or None. With reduction "mean" the sum is divided by the weights of the labelled
            pixels, as `torch.nn.functional.cross_entropy` does.
        reduction: "mean", "sum" (both scalars) or "none" ((B, H, W), 0 at void pixels).
        label_smoothing: share of the target that is spread over all classes, from 0 to below 1.

    Returns:
        The loss. A batch without a labelled pixel (or only ones of weight 0) gives 0 with a gradient of 0, never nan.

    Raises:
        ValueError: shapes that do not belong together, an unknown reduction, or a class id outside 0..C-1.
        TypeError: logits that are not floating point or a target that is not int64.
    """
    _check(logits, target, weight, ignore_index, reduction)
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    logits = logits.float() if logits.dtype.itemsize < 4 else logits  # a sum over an image overflows float16
    if weight is not None:
        weight = weight.to(logits)
    losses = F.cross_entropy(
        logits, target, weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / divisor(count_classes(target, logits.shape[1], ignore_index), weight)


def divisor(counts: Tensor, weight: Tensor | None = None) -> Tensor:
    """What turns the sum of the losses over some pixels into their mean: their number by class (C,), by weight (C,).

    Where that is 0 the sum is 0 too, and this is 1, so that the mean is 0 and not nan. The summed losses of the parts
    of a batch, divided by the divisor of the whole batch, add up to the mean loss of the batch.
    """
    total = counts.sum() if weight is None else (counts * weight).sum()
    return total.where(total > 0, 1)


def draw_pixels(
    target: Tensor, count: int, ignore_index: int = 255, generators: Sequence[torch.Generator] | None = None
) -> tuple[Tensor, Tensor]:
    """Some labelled pixels of each image, each as likely as any other, and how many pixels each of them stands for.

    The losses at the drawn pixels, each times what it stands for, are an unbiased estimate of the sum over all labelled
    pixels of the images, and so are their gradients (Bansal et al., "PixelNet", 2017).

    Args:
        target: (B, H, W) int64.
        count: pixels of an image; one with fewer labelled pixels gives them all, filled up with pixels worth 0.
        generators: of each image, on the CPU; None means torch's global one.

    Returns:
        Pixels (B, n, 2) int64 as (y, x), n = count but at most H W, drawn without replacement, and their worth (B, n)
        float32.
    """
    count = min(count, target[0].numel())
    pixels = target.new_zeros(len(target), count)
    worth = torch.zeros(len(target), count, device=target.device)
    for index, (labels, generator) in enumerate(zip(target.flatten(1), generators or [None] * len(target))):
        labelled = (labels != ignore_index).nonzero().squeeze(1)
        drawn = labelled[torch.randperm(len(labelled), generator=generator)[:count].to(labelled.device)]
        pixels[index, : len(drawn)] = drawn
        worth[index, : len(drawn)] = len(labelled) / max(1, len(drawn))
    return torch.stack([pixels // target.shape[2], pixels % target.shape[2]], dim=-1), worth


def _check(logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> None:
    if logits.ndim != 4 or target.ndim != 3 or logits.shape[0] != target.shape[0]:
        raise ValueError(
            f"expected logits (B, C, h, w) and target (B, H, W), got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64, got {target.dtype}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    classes = logits.shape[1]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"weight must have shape ({classes},), got {tuple(weight.shape)}")
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if wrong.any():
        raise ValueError(
            f"target holds class id {int(target[wrong][0])}; ids are 0..{classes - 1}, or {ignore_index} for void"
        )


def count_classes(target: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels of each class, (classes,) int64, in an integer target of any shape; void is not counted."""
    return torch.bincount(target[target != ignore_index].long(), minlength=classes)


def inverse_frequency(counts: Tensor) -> Tensor:
    """Class weights (C,) float32 that are inverse to the class counts (C,), for a whole data set or for one batch.

    Over the classes that occur the weights average to 1; a class that does not occur gets 0. With the counts of the
    batch at hand these are the inverse counts of the course that this project follows.
    """
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1).float(), 0)
    present = int((counts > 0).sum())
    return weights * (present / weights.sum()) if present else weights


def weighting(kind: str, over_all: Tensor | None = None) -> Callable[[Tensor], Tensor | None]:
    """Class weights as a function of the class counts (C,) of the batch at hand.

    Args:
        kind: "none"; "inverse", by inverse frequency over the data set; or "batch", by inverse frequency in the batch.
        over_all: (C,) pixels of each class in the data set, for "inverse".

    Returns:
        counts -> (C,) weights on their device, or None.

    Raises:
        ValueError: another kind.
    """
    if kind == "none":
        return lambda counts: None
    if kind == "inverse":
        weights = inverse_frequency(over_all)
        return lambda counts: weights.to(counts.device)
    if kind == "batch":
        return inverse_frequency
    raise ValueError(f"class weights are one of {', '.join(WEIGHTINGS)}, got {kind!r}")
