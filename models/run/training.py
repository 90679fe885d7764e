"""A training beside its network: optimizer, schedule, moving average, and where it stands."""

import math
import time
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.run.schedule import Optimization


class Training:
    """The state of a training, kept in last.pt and taken up again by a resumed run.

    Args:
        network: whose weights are trained.
        rates: the parts of it that learn, by module, and the peak rate of each.
        epochs: of the whole training.
        steps_per_epoch: of the optimizer.
        how: the weights are changed.
        ema: decay of the moving average of the weights, 0 for none.
        fp16: whether gradients are float16 and need scaling.

    Attributes:
        losses: one per step.
        rates: of the last step, one per part that learns.
        log: one row per epoch, from epoch 0, the network as it came.
        began: when the epoch began, by `time.perf_counter`; of a resumed one, moved forward by
            the time between the runs.
    """

    def __init__(
        self,
        network: nn.Module,
        rates: dict[nn.Module, float],
        epochs: int,
        steps_per_epoch: int,
        how: Optimization,
        ema: float = 0.0,
        fp16: bool = False,
    ):
        self.network, self.steps_per_epoch = network, steps_per_epoch
        groups = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": rate}
            for module, rate in rates.items()
        ]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = how.build_optimizer(groups)
        self.schedule = how.build_schedule(self.optimizer, epochs, steps_per_epoch)
        device = self.parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=fp16)
        average = get_ema_multi_avg_fn(ema)
        self.average = AveragedModel(network, multi_avg_fn=average) if ema else None
        self.losses: list[float] = []
        self.rates: list[float | None] = [None] * len(groups)
        self.log: list[dict[str, Any]] = []
        self.began = time.perf_counter()

    @property
    def scored(self) -> nn.Module:
        """The network to score and keep: the moving average, if there is one."""
        return self.average.module if self.average else self.network

    @property
    def parameter_count(self) -> int:
        """How many parameters learn."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def seconds(self) -> float:
        """How long it has taken, all its runs together, but for what interruptions lost."""
        return sum(row["seconds"] for row in self.log) + time.perf_counter() - self.began

    def gradients_are_finite(self) -> bool:
        """Whether all gradients are; in float16 the scaler leaves out steps where they are not."""
        if self.scaler.is_enabled():
            return True
        return math.isfinite(clip_grad_norm_(self.parameters, math.inf))  # clips nothing

    def step(self, loss: float) -> None:
        """Changes the weights by the gradients that are there, and keeps the step's loss."""
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.rates = self.schedule.get_last_lr()
        if self.scaler.get_scale() >= before:  # smaller: float16 overflowed, no step was made
            self.schedule.step()
            if self.average:
                self.average.update_parameters(self.network)
        self.losses.append(loss)

    def end_epoch(self, scores: dict[str, float]) -> bool:
        """Logs an epoch: rates, seconds, mean loss, scores; whether it is the best."""
        epoch, now = len(self.log), time.perf_counter()
        seconds, self.began = now - self.began, now
        losses = self.losses[max(0, epoch - 1) * self.steps_per_epoch :]
        loss = sum(losses) / len(losses) if losses else None  # epoch 0 has none
        rates = dict(zip(("lr", "backbone_lr"), self.rates))
        is_best = all(scores["miou"] > row["miou"] for row in self.log)
        self.log.append({"epoch": epoch, **rates, "seconds": seconds, "loss": loss, **scores})
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """All but the network, as plain values."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average and self.average.state_dict(),
            "losses": self.losses,
            "rates": self.rates,
            "log": self.log,
            "seconds": time.perf_counter() - self.began,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.losses, self.rates, self.log = state["losses"], state["rates"], state["log"]
        self.began = time.perf_counter() - state["seconds"]
