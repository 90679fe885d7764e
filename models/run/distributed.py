"""The processes that `torchrun` started; alone, all of it is trivial.

Rank 0 is the main process: it alone writes and prints. Every process makes the same calls in the
same order.
"""

import os
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data import UserError


def world_size() -> int:
    """How many processes run; 1 without torchrun, whatever a scheduler has left in WORLD_SIZE."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


def local_world_size() -> int:
    """How many processes run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if world_size() > 1 else 1


def share(count: int) -> range:
    """The indices, of 0 to `count` - 1, that this process works on."""
    return range(rank(), count, world_size())


def init(device: torch.device) -> None:
    """Meets the other processes: NCCL between GPUs, gloo between CPUs. The others fall silent."""
    if world_size() == 1 or dist.is_initialized():
        return
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"--device {device}: several processes need cpu or cuda; start it with python, "
            "not torchrun"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if not is_main():
        fall_silent()


def fall_silent() -> None:
    """Prints nothing from now on but what goes to standard error."""
    sys.stdout = open(os.devnull, "w", errors="replace")  # noqa: SIM115 (until the process ends)


def shutdown() -> None:
    """Leaves the group, at the end of a run that went well."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Waits until all processes are here."""
    if world_size() > 1:
        dist.barrier()


def wrap(network: nn.Module) -> nn.Module:
    """The network, with its gradients averaged over the processes in each backward pass."""
    return DistributedDataParallel(network) if world_size() > 1 else network


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank, on all of them."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def merge(rows: np.ndarray, whose: np.ndarray) -> None:
    """Brings rows (N, ..) to rank 0, in place; process r has filled those where `whose` is r."""
    if world_size() > 1:
        parts = [None] * world_size() if is_main() else None
        dist.gather_object(rows[whose == rank()], parts)
        for other, part in enumerate(parts or ()):
            rows[whose == other] = part


def check_same(value: Any) -> None:
    """Refuses flags, or what was found on disk, that are not the same in all processes."""
    for other, theirs in enumerate(gather(value)):
        if theirs != value:
            raise UserError(
                f"rank {max(other, rank())} has other flags, data or run folder than rank 0; "
                "start all processes alike"
            )
