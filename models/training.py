"""A training: one step of it, and what it has come to, kept in the checkpoint and taken up again by a resumed run."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import processes, runtime
from models.schedule import OPTIMIZERS, warm_up_and_decay


@dataclass
class Training:
    """Optimizer, schedule, loss scaler, losses and log of a training.

    Attributes:
        settings: what a resumed run must have in common with the one it goes on from.
        trained: the network whose weights the optimizer changes.
        average: the moving average of its weights over the steps, or None.
        scaler: keeps float16 gradients in range; disabled, it leaves all as it is.
        losses: one a step, of the batch of all processes; nan where the step was left out for not being finite.
        log: one row an epoch, epoch 0 first.
    """

    settings: dict[str, Any]
    trained: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    average: AveragedModel | None = None
    losses: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        settings: dict[str, Any],
        trained: nn.Module,
        rates: Sequence[tuple[nn.Module, float]],
        steps: int,
        *,
        optimizer: str,
        decay: str,
        weight_decay: float,
        ema: float = 0.0,
        float16: bool = False,
    ) -> "Training":
        """A training of so many steps, before the first of them.

        Args:
            settings, trained: see the attributes.
            rates: the parts of the network that learn, each with its peak rate.
            optimizer, decay: names in `models.schedule`.
            ema: decay of the moving average; 0 means none.
            float16: whether the gradients are in half precision, and so need scaling.
        """
        groups = [
            {"params": [parameter for parameter in part.parameters() if parameter.requires_grad], "lr": rate}
            for part, rate in rates
        ]
        made = OPTIMIZERS[optimizer](groups, weight_decay=weight_decay)
        scaler = torch.amp.GradScaler(groups[0]["params"][0].device.type, enabled=float16)
        average = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
        return cls(settings, trained, made, warm_up_and_decay(made, steps, decay), scaler, average)

    def step(self, network: nn.Module, parts: Sequence[tuple[Any, ...]]) -> float:
        """One step of the optimizer over a batch that goes through the network in parts.

        Args:
            network: gives what a part adds to the loss of the batch, a scalar; from `processes.wrap`.
            parts: its arguments, of each part of this process; at least one part, which may be empty.

        Returns:
            The loss of the batch, the same in all processes; it joins `losses`. Where it is not finite, or a gradient
            is not, it is nan and the weights stay as they are.
        """
        self.optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            # Processes exchange their gradients once a step, with the last part.
            with nullcontext() if is_last or processes.count() == 1 else network.no_sync():
                share = network(*part)
                self.scaler.scale(share * processes.count()).backward()  # their exchange is a mean, wanted is a sum
            loss += share.item()
        loss = processes.total(loss).item()
        self.scaler.unscale_(self.optimizer)
        if math.isfinite(loss) and self._gradients_are_finite():
            self.scaler.step(self.optimizer)
            if self.average:
                self.average.update_parameters(self.trained)
        else:
            loss = math.nan
        scale = self.scaler.get_scale()
        self.scaler.update()
        if math.isfinite(loss) and self.scaler.get_scale() >= scale:  # smaller: float16 overflowed, no step was made
            self.schedule.step()
        self.losses.append(loss)
        return loss

    def best(self) -> nn.Module:
        """The network to score and to keep: the average where there is one."""
        return self.average.module if self.average else self.trained

    def _gradients_are_finite(self) -> bool:
        """Whether all gradients are; in float16 a scaler is there to see to those that are not."""
        if self.scaler.is_enabled():
            return True
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())

    def skipped(self) -> int:
        """Steps that were left out for a loss or gradient that was not finite."""
        return sum(map(math.isnan, self.losses))

    def state(self) -> dict[str, Any]:
        """All of it, and torch's random state, as plain values."""
        return {
            "settings": self.settings,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average and self.average.state_dict(),
            "losses": self.losses,
            "log": self.log,
            "random_state": runtime.random_state(),
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes over a saved `state`, and torch's random state with it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.losses = state["losses"]
        self.log = state["log"]
        runtime.set_random_state(state["random_state"])
