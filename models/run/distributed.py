"""The processes of one run under `torchrun`; alone, all of it is trivial.

Rank 0 is the main process: it alone writes and prints. Every process makes the same calls in the
same order.
"""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import RunError


def world_size() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0)) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


def is_one_machine() -> bool:
    """Whether all processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) == world_size()


def share(count: int) -> range:
    """The indices, of 0 to `count` - 1, that this process works on."""
    return range(rank(), count, world_size())


def init(device: torch.device) -> None:
    """Meets the other processes: NCCL between GPUs, gloo between CPUs. The others fall silent.

    Raises:
        RunError: the device cannot do it.
    """
    if world_size() == 1 or dist.is_initialized():
        return
    if device.type not in ("cpu", "cuda"):
        raise RunError(
            f"--device {device}: several processes need cpu or cuda; start it with python, "
            "not torchrun"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)


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


def local_gradients(network: nn.Module, enabled: bool) -> AbstractContextManager:
    """A context in which gradients only add up in each process, for micro-batches but the last."""
    return network.no_sync() if enabled and world_size() > 1 else nullcontext()


def mean(value: float) -> float:
    """The mean of a number over the processes, on all of them."""
    return total(torch.tensor(value, dtype=torch.float64)).item() / world_size()


def total(tensor: Tensor) -> Tensor:
    """The sum of a CPU tensor over the processes, on all of them."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def gather(value: Any) -> list[Any]:
    """On rank 0 the values of all processes, by rank; elsewhere an empty list."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size() if is_main() else None
    dist.gather_object(value, values)
    return values or []


def check_same(value: Any) -> None:
    """Compares a plain value, flags and what was found on disk, over the processes.

    Raises:
        RunError: it is not the same everywhere.
    """
    if world_size() > 1:
        values = [None] * world_size()
        dist.all_gather_object(values, value)
        for other, theirs in enumerate(values):
            if theirs != values[0]:
                raise RunError(
                    f"rank {other} has other flags, data or run folder than rank 0; "
                    "start all processes alike"
                )
