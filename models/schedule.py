"""The optimizer, and its learning rate over a training."""

import math
from collections.abc import Callable
from functools import partial

from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": AdamW, "sgd": partial(SGD, momentum=0.9)}
WARM_UP = 0.1  # share of the steps
# The rate's share of its peak, by the share of the way from the peak to the end.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda way: (1 + math.cos(math.pi * way)) / 2,
    "poly": lambda way: (1 - way) ** 0.9,  # Chen et al., "DeepLab", 2017
    "none": lambda way: 1.0,
}


def warm_up_and_decay(optimizer: Optimizer, steps: int, decay: str = "cosine") -> LambdaLR:
    """Linear warm-up to the optimizer's rates over the first tenth of the steps, then the `decay` (see `DECAYS`).

    Step the schedule once after each of the `steps` steps of the optimizer.
    """
    warm = max(1, round(WARM_UP * steps))

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return DECAYS[decay](min(1, (step - warm) / max(1, steps - warm)))

    return LambdaLR(optimizer, scale)
