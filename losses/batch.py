"""The training loss of a batch that goes through the network in parts: each gives a share, and the shares add up."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from losses.loss import cross_entropy2d, divisor
from losses.lovasz import lovasz_softmax


class BatchLoss:
    """Mean cross entropy of the labelled pixels, plus the mean Lovasz-softmax of the images.

    Args:
        weigh: class weights from the class counts of a batch; see `losses.loss.weighting`.
        label_smoothing: share of the target that is spread over all classes.
        lovasz: factor of the Lovasz-softmax; 0 leaves it out.
    """

    def __init__(
        self, weigh: Callable[[Tensor], Tensor | None], label_smoothing: float = 0.0, lovasz: float = 0.0
    ) -> None:
        self.weigh, self.label_smoothing, self.lovasz = weigh, label_smoothing, lovasz

    def begin(self, counts: Tensor, images: int) -> None:
        """Takes up a new batch, before its first share.

        Args:
            counts: (C,) labelled pixels of each class in the whole batch, whatever process they are in.
            images: of the whole batch.
        """
        self.weight, self.images = self.weigh(counts), images
        self.divisor = divisor(counts, self.weight).item()

    def share(self, logits: Tensor, target: Tensor, worth: Tensor | None = None) -> Tensor:
        """What some images add to the loss of the batch, a scalar.

        Args:
            logits: (B, C, h, w); of pixels drawn from each image (B, C, n, 1).
            target: (B, H, W) int64; of drawn pixels (B, n, 1).
            worth: (B, n, 1) pixels that each drawn one stands for; None means 1 each.
        """
        if logits.shape[-2:] != target.shape[-2:]:
            logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
        losses = cross_entropy2d(logits, target, self.weight, reduction="none", label_smoothing=self.label_smoothing)
        share = (losses if worth is None else losses * worth).sum() / self.divisor
        if self.lovasz:
            share = share + self.lovasz * lovasz_softmax(logits.flatten(2), target.flatten(1)).sum() / self.images
        return share
