"""A training beside its network: optimizer, schedule, moving average, and where it stands."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data.files import atomic_file
from models.checkpoint import save_segmenter
from models.run import distributed
from models.run.folder import save_chart, save_csv
from models.segmenter import Segmenter

OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.__name__.lower(): kind for kind in (AdamW, Adam, NAdam, RAdam, Adagrad, RMSprop, SGD)
}
DECAYS = ("cosine", "poly", "step", "exponential", "constant")


def parameter_groups(
    segmenter: Segmenter, lr: float, backbone_lr: float, frozen_stages: int | None
) -> list[dict[str, Any]]:
    """The optimizer's groups: the head, then the backbone behind its frozen stages, unless None."""
    groups = [{"params": list(segmenter.head.parameters()), "lr": lr}]
    if frozen_stages is not None:
        segmenter.origin = segmenter.origin or segmenter.hypercolumn.spec()["fingerprint"]
        segmenter.hypercolumn.unfreeze(frozen_stages)
        backbone = [p for p in segmenter.hypercolumn.parameters() if p.requires_grad]
        groups.append({"params": backbone, "lr": backbone_lr})
    return groups


def build_optimizer(
    name: str,
    parameters: Iterable[Any],
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """The optimizer called `name` in `OPTIMIZERS`; the last two are of sgd alone."""
    options = {"momentum": momentum, "nesterov": nesterov} if name == "sgd" else {}
    return OPTIMIZERS[name](parameters, lr=lr, weight_decay=weight_decay, **options)


def build_schedule(
    optimizer: Optimizer,
    decay: str,
    epochs: int,
    steps_per_epoch: float,
    warmup: float = 0.1,
    milestones: Iterable[float] = (),
    gamma: float = 1.0,
) -> LambdaLR:
    """Linear warm-up to the optimizer's rates, then their decay; to be stepped every step.

    Args:
        decay: one of `DECAYS`.
        warmup: share of all steps over which the rate rises.
        milestones: epochs after which "step" lowers the rate.
        gamma: factor of "step" at each of them, of "exponential" an epoch.
    """
    steps = epochs * steps_per_epoch
    warm_up = max(1, round(warmup * steps))

    def scale(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        share = min(1, (step - warm_up) / max(1, steps - warm_up))  # of the decay
        if decay == "cosine":
            return (1 + math.cos(math.pi * share)) / 2
        if decay == "poly":
            return (1 - share) ** 0.9  # Chen et al., "DeepLab", 2017
        if decay == "step":
            return gamma ** sum(step >= epoch * steps_per_epoch for epoch in milestones)
        if decay == "exponential":
            return gamma ** ((step - warm_up) / steps_per_epoch)
        return 1.0  # constant

    return LambdaLR(optimizer, scale)


def enough_steps(pixels: int, images: int) -> int:
    """Steps in which a shallow head learns what labelled pixels of so many images tell.

    By measurement, see models/results.md: fewer lose up to 1.5 points of mIoU, and with the pixels
    of few images more lose as much. Of more than 4,000 images it was not measured.
    """
    return round(38 * pixels ** (1 / 3) * min(4, max(1, images / 1000)))


class Training:
    """The state of step 3's training, kept in last.pt and taken up again by a resumed run.

    Args:
        network: whose weights are trained.
        optimizer: of its parameters, a group for each part that learns.
        schedule: of the optimizer's rates, stepped every step.
        ema: decay of the moving average of the weights, 0 for none.
        fp16: whether gradients are float16 and need scaling.

    Attributes:
        scored: the network to score and keep: the moving average, if there is one.
        losses: one per step.
        log: one row per epoch, from epoch 0, the network as it came.
        began: when it began, by `time.perf_counter`, less what interruptions have lost.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedule: LambdaLR,
        ema: float = 0.0,
        fp16: bool = False,
    ):
        self.network, self.optimizer, self.schedule = network, optimizer, schedule
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=fp16)
        average = get_ema_multi_avg_fn(ema)
        self.average = AveragedModel(network, multi_avg_fn=average) if ema else None
        self.scored = self.average.module if self.average else network
        self.losses: list[float] = []
        self.log: list[dict[str, Any]] = []
        self.began = time.perf_counter()

    @property
    def best(self) -> dict[str, Any]:
        """The row of the log with the best mIoU."""
        return max(self.log, key=lambda row: row["miou"])

    def step(self, loss: Tensor) -> bool:
        """Changes the weights by the gradients that are there, if they and the loss are finite.

        In float16 the scaler leaves out the steps whose gradients are not. This is the one moment
        of a step in which the device is waited for.

        Args:
            loss: of the step in this process, a scalar.

        Returns:
            Whether all was finite; else nothing was changed.
        """
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = get_total_norm(gradients)  # gradients are the same in all processes
        here, norm = torch.stack([loss.detach().float(), norm.float()]).tolist()
        mean = sum(distributed.gather(here)) / distributed.world_size()
        if not math.isfinite(mean) or not (math.isfinite(norm) or self.scaler.is_enabled()):
            return False
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.scaler.get_scale() >= before:  # smaller: float16 overflowed, no step was made
            self.schedule.step()
            if self.average:
                self.average.update_parameters(self.network)
        self.losses.append(mean)
        return True

    def end_epoch(self, scores: Mapping[str, float], steps: int) -> bool:
        """Logs an epoch of so many steps: rates, seconds, mean loss, scores; whether it is best."""
        epoch, losses, last = len(self.log), self.losses[-steps:], self.schedule.last_epoch - 1
        seconds = time.perf_counter() - self.began - sum(row["seconds"] for row in self.log)
        loss = sum(losses) / len(losses) if losses else None  # epoch 0 has none
        names = zip(("lr", "backbone_lr"), self.schedule.base_lrs, self.schedule.lr_lambdas)
        rates = {name: lr * scale(last) if losses else None for name, lr, scale in names}
        is_best = all(scores["miou"] > row["miou"] for row in self.log)
        self.log.append({"epoch": epoch, **rates, "seconds": seconds, "loss": loss, **scores})
        return is_best

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own beside the network."""
        parts = {"optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
        return parts | ({"average": self.average} if self.average else {})

    def state_dict(self) -> dict[str, Any]:
        """All but the network, as plain values."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"losses": self.losses, "log": self.log}
        return state | {"seconds": time.perf_counter() - self.began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.losses, self.log = state["losses"], state["log"]
        self.began = time.perf_counter() - state["seconds"]


def save_last(place: Path, training: Training, facts: Mapping[str, Any]) -> None:
    """Saves last.pt, to go on from; `facts` are what every checkpoint of the training holds."""
    state = training.state_dict()
    save_segmenter(place / "last.pt", training.network, **facts, training=state)


def save_epoch(
    place: Path,
    training: Training,
    facts: Mapping[str, Any],
    is_best: bool,
    previews: Mapping[str, Image],
) -> None:
    """Saves what there is after an epoch: best.pt, previews, steps.csv, the log; last.pt last."""
    if is_best:
        save_segmenter(place / "best.pt", training.scored, **facts)
    for name, picture in previews.items():
        folder = place / "previews" / f"epoch_{training.log[-1]['epoch']:03d}"
        with atomic_file(folder / f"{name}.png") as file:
            picture.save(file, "PNG")
    losses = enumerate([None, *training.losses])  # step 0 is before the training
    save_csv(place / "steps.csv", [{"step": step, "loss": loss} for step, loss in losses])
    new = training.log[-1:] if facts["tensorboard"] else ()
    save_log(place, training.log, "Step 3: fine-tuning on whole images", new)
    save_last(place, training, facts)


def save_log(
    place: Path, log: Sequence[Mapping[str, Any]], title: str, new: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Saves a log, a row per epoch, as log.csv and curve.png; its `new` rows for TensorBoard."""
    save_csv(place / "log.csv", log)
    save_chart(place / "curve.png", "curve", log, title)
    if new:
        from torch.utils.tensorboard import SummaryWriter  # a package that need not be there

        with SummaryWriter(place / "tensorboard") as writer:
            for row in new:
                for name in row.keys() - {"epoch"}:
                    if row[name] is not None:
                        writer.add_scalar(name, row[name], row["epoch"])
