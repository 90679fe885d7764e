"""The optimizers, and the learning rate over a training."""

import math
from collections.abc import Callable
from functools import partial

from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": AdamW,
    "sgd": partial(SGD, momentum=0.9),
}
WARM_UP = 0.1  # share of the steps
# The rate as a share of its peak, at a share 0..1 of the steps after the warm-up.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "poly": lambda share: (1 - share) ** 0.9,  # Chen et al., "DeepLab", 2017
    "none": lambda share: 1.0,
}


def warm_up_and_decay(optimizer: Optimizer, steps: int, decay: str = "cosine") -> LambdaLR:
    """Linear warm-up to the optimizer's rates over the first tenth of the steps, then a decay.

    Step the schedule once after each of the `steps` steps of the optimizer. `decay` is a name in
    `DECAYS`.
    """
    warm_up = max(1, round(WARM_UP * steps))

    def scale(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return DECAYS[decay](min(1, (step - warm_up) / max(1, steps - warm_up)))

    return LambdaLR(optimizer, scale)
