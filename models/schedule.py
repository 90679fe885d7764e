"""The learning rate over a training."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 0.1  # share of the steps


def warm_up_and_cosine(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Linear warm-up to the optimizer's rate over the first tenth of the steps, then half a cosine towards 0.

    Step the schedule once after each of the `steps` steps of the optimizer.
    """
    warm = max(1, round(WARM_UP * steps))

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return (1 + math.cos(math.pi * min(1, (step - warm) / max(1, steps - warm)))) / 2

    return LambdaLR(optimizer, scale)
