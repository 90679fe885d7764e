"""Samples from disk to the loop: in order, decoded ahead by worker processes; errors and Ctrl-C arrive whole."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Dataset

from data import DataError
from data.voc import Sample, VOCFolder


class _ErrorsAsValues(Dataset):
    """Hands a DataError over as a value: raised in a worker process it would come back wrapped in a traceback."""

    def __init__(self, dataset: VOCFolder):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return self.dataset[index]
        except DataError as error:
            return error


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Holds Ctrl-C back for a moment, where the system can: raised in the middle of a fork, Python would swallow it.

    Processes forked meanwhile keep it blocked, which leaves stopping to the main process.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stream(
    dataset: VOCFolder, batch_size: int, workers: int, order: Sequence[int] | None = None
) -> Iterator[list[Sample]]:
    """Samples in order, `batch_size` at a time, decoded by `workers` processes ahead of their use (0: in this one).

    Args:
        order: indices into the data set; None means all, first to last. Nothing is dropped: the last list is shorter.

    Raises:
        DataError: at the first sample that cannot be read.
    """
    sampler = range(len(dataset)) if order is None else order
    loader = DataLoader(
        _ErrorsAsValues(dataset),
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator(),  # so that the number of workers does not touch the global random state
    )
    with _ctrl_c_waits():
        batches = iter(loader)
    try:
        for samples in batches:
            for sample in samples:
                if isinstance(sample, DataError):
                    raise sample
            yield samples
    finally:
        del batches  # ends the workers now, and not when an error's traceback lets go of this frame
