"""The optimizers, and the learning rate over a training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adamw": AdamW,
    "adam": Adam,
    "nadam": NAdam,
    "radam": RAdam,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
DECAYS = ("cosine", "poly", "step", "exponential", "constant")
MILESTONES = 0.6, 0.8  # of the epochs
GAMMAS = {"step": 0.1, "exponential": 0.9}


@dataclass(frozen=True)
class Optimization:
    """How weights are changed.

    Attributes:
        optimizer: a name in `OPTIMIZERS`; weight_decay: its own.
        momentum, nesterov: of "sgd".
        decay: a name in `DECAYS`.
        warmup: share of the steps over which the rate rises to its peak.
        milestones: epochs after which "step" lowers the rate; None means `MILESTONES`.
        gamma: factor of "step" at each of them, of "exponential" an epoch; None means `GAMMAS`.
    """

    optimizer: str = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    decay: str = "cosine"
    warmup: float = 0.1
    milestones: tuple[int, ...] | None = None
    gamma: float | None = None

    def build_optimizer(self, groups: Iterable[Any], lr: float = 0.0) -> Optimizer:
        """The optimizer of parameters, or of groups of them with rates of their own."""
        only_sgd = {"momentum": self.momentum, "nesterov": self.nesterov}
        options = only_sgd if self.optimizer == "sgd" else {}
        chosen = OPTIMIZERS[self.optimizer]
        return chosen(groups, lr=lr, weight_decay=self.weight_decay, **options)

    def build_schedule(self, optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> LambdaLR:
        """Linear warm-up to the optimizer's rates, then their decay; to be stepped every step."""
        steps = epochs * steps_per_epoch
        warm_up = max(1, round(self.warmup * steps))
        gamma = GAMMAS.get(self.decay) if self.gamma is None else self.gamma
        milestones = self.milestones or [share * epochs for share in MILESTONES]

        def scale(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            share = min(1, (step - warm_up) / max(1, steps - warm_up))  # of the decay
            if self.decay == "cosine":
                return (1 + math.cos(math.pi * share)) / 2
            if self.decay == "poly":
                return (1 - share) ** 0.9  # Chen et al., "DeepLab", 2017
            if self.decay == "step":
                return gamma ** sum(step >= epoch * steps_per_epoch for epoch in milestones)
            if self.decay == "exponential":
                return gamma ** ((step - warm_up) / steps_per_epoch)
            return 1.0  # constant

        return LambdaLR(optimizer, scale)
