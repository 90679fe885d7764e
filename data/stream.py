"""Samples from disk to the loop: in order, decoded ahead by worker processes; errors and Ctrl-C arrive whole."""

import signal
import threading
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
    """Holds Ctrl-C back for a moment: raised while a worker process starts or ends, it would leave it astray.

    A handler that only takes note, since a blocked signal would still reach the main thread by way of any other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _leave_ctrl_c_to_main(worker: int) -> None:
    """A worker process does not stop by itself: the main one ends it, in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
        worker_init_fn=_leave_ctrl_c_to_main,
        generator=torch.Generator(),  # so that the number of workers does not touch the global random state
    )
    batches = None
    try:
        with _ctrl_c_waits():
            batches = iter(loader)
        for samples in batches:
            for sample in samples:
                if isinstance(sample, DataError):
                    raise sample
            yield samples
    finally:
        with _ctrl_c_waits():
            del batches  # ends the workers now, and not when an error's traceback lets go of this frame
