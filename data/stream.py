"""Samples from disk to the loop: in order, decoded ahead by worker processes; errors and signals arrive whole."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from data import DataError
from data.voc import Sample, VOCFolder

Item = TypeVar("Item")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
def _signals_wait() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back for a moment: raised while a worker process starts or ends, they leave it astray.

    Handlers that only take note, since a blocked signal would still reach the main thread by way of any other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _leave_signals_to_main(worker: int) -> None:
    """A worker process does not stop by itself: the main one ends it, in order."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """The items in order, `size` at a time; nothing is dropped: the last list is shorter."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def stream(dataset: VOCFolder, plan: Sequence[Sequence[int]], workers: int) -> Iterator[list[Sample]]:
    """The samples of each list of indices in `plan`, decoded ahead by `workers` processes (0: in this one).

    Raises:
        DataError: at the first sample that cannot be read.
    """
    loader = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_leave_signals_to_main,
        generator=torch.Generator(),  # so that the number of workers does not touch the global random state
    )
    samples_ahead = None
    try:
        with _signals_wait():
            samples_ahead = iter(loader)
        for samples in samples_ahead:
            for sample in samples:
                if isinstance(sample, DataError):
                    raise sample
            yield samples
    finally:
        with _signals_wait():
            del samples_ahead  # ends the workers now, and not when an error's traceback lets go of this frame
