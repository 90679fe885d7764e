"""The processes of one run under `torchrun`: who is who, and what they tell each other. Alone, all of it is trivial.

All of it is PyTorch's own engine: NCCL between GPUs, gloo between CPUs. Rank 0 is the main process: it alone writes and
speaks. Every process must make the same calls in the same order.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import RunError


def count() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", 0)) if count() > 1 else 0


def is_main() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


def join(device: torch.device) -> None:
    """Meets the other processes; to be called before any other exchange. From here on only rank 0 prints.

    Raises:
        RunError: they cannot work together on this kind of device, or do not find each other.
    """
    if count() == 1 or dist.is_initialized():
        return
    if device.type not in ("cpu", "cuda"):
        raise RunError(f"--device {device}: several processes need cpu or cuda; start it with python, not torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the {count()} processes do not find each other ({error}); see the flags of torchrun") from None
    if not is_main():
        mute()


def mute() -> None:
    """From here on this process says nothing but what is wrong."""
    sys.stdout = open(os.devnull, "w")


def is_muted() -> bool:
    """Whether `mute` was called."""
    return getattr(sys.stdout, "name", None) == os.devnull


def leave() -> None:
    """Takes leave of the other processes, at the end of a run that went well."""
    if dist.is_initialized():
        dist.destroy_process_group()


def describe(device: torch.device) -> str:
    """The device, and how many processes work side by side, in words."""
    return str(device) if count() == 1 else f"{device.type}, {count()} processes"


def wrap(network: nn.Module) -> nn.Module:
    """The network, its gradients averaged over the processes at every backward pass outside `no_sync`."""
    return DistributedDataParallel(network) if count() > 1 else network


def turns(batches: Sequence[list[int]]) -> list[list[int]]:
    """The batches of this process: whole ones, in turns; empty ones at the end, so that all have equally many.

    Whole ones, since how images are grouped moves results by a rounding: so each is what one process makes of it.
    """
    mine = list(batches[rank() :: count()])
    return mine + [[]] * (-(-len(batches) // count()) - len(mine))


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, on all of them."""
    if count() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def gather(value: Any) -> list[Any]:
    """On rank 0 what all processes have, by rank; elsewhere an empty list."""
    if count() == 1:
        return [value]
    values = [None] * count() if is_main() else None
    dist.gather_object(value, values)
    return values or []


def agree(flag: bool) -> bool:
    """Whether any process says so, on all of them."""
    return bool(total(torch.tensor(int(flag))))


def is_parting(error: RuntimeError) -> bool:
    """Whether an error says no more than that another process has gone."""
    return count() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))


def same(value: Any) -> None:
    """Returns when all processes are here, with the same plain value: their flags, and what they see on disk.

    Raises:
        RunError: they have not.
    """
    if count() > 1:
        values = [None] * count()
        dist.all_gather_object(values, value)
        other = next((rank for rank, theirs in enumerate(values) if theirs != values[0]), None)
        if other is not None:
            raise RunError(f"rank {other} has other flags, data or run folder than rank 0; start all processes alike")
