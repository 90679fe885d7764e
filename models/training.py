"""What a training has come to beside the weights: kept in the checkpoint, and taken up again by a resumed run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models import RunError, runtime


@dataclass
class Training:
    """Optimizer, schedule, loss scaler and log of a training.

    Attributes:
        settings: what a resumed run must have in common with the one it goes on from.
        scaler: keeps float16 gradients in range; disabled, it leaves all as it is.
        log: one row an epoch, epoch 0 first.
    """

    settings: dict[str, Any]
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    log: list[dict[str, Any]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """All of it, and torch's random state, as plain values."""
        return {
            "settings": self.settings,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "log": self.log,
            "random_state": runtime.random_state(),
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes over a saved `state`, and torch's random state with it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.log = state["log"]
        runtime.set_random_state(state["random_state"])


def check_settings(saved: dict[str, Any], given: dict[str, Any], source: Path) -> None:
    """Refuses to resume with other settings.

    Raises:
        RunError: naming the first that differs, or that an earlier version did not know.
    """
    for name, value in given.items():
        if name not in saved:
            raise RunError(f"--resume: {source} does not say {name}, which an earlier version did not have; start over")
        if saved.get(name) != value:
            raise RunError(f"--resume: {source} was trained with {name} {saved.get(name)}, not {value}; keep to that")
