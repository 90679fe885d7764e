"""The stream of samples: order, errors, random state and Ctrl-C, with and without worker processes."""

import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader

from data import DataError
from data.stream import batches, stream
from data.voc import VOCFolder, read_ids
from tests.test_voc import keep, same, truncate


@pytest.fixture(autouse=True)
def python_s_own_ctrl_c():
    """In the background of a shell, Ctrl-C is ignored from the start; the tests here want it as a terminal has it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("order", [range(18), [5, 0, 17, 3, 3]], ids=["all", "chosen"])
def test_stream_keeps_the_order_and_the_last_short_batch(workers, order, drawn):
    dataset = VOCFolder(drawn, "train", keep)
    found = list(stream(dataset, batches(order, 4), workers))
    assert [len(samples) for samples in found] == ([4, 4, 4, 4, 2] if len(order) == 18 else [4, 1])
    samples = [sample for batch in found for sample in batch]
    assert all(same(sample, dataset[index]) for sample, index in zip(samples, order, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_gives_an_empty_list_where_the_plan_has_one(workers, drawn):
    found = list(stream(VOCFolder(drawn, "val", keep), [[2], [], [0, 1], []], workers))
    assert [len(samples) for samples in found] == [1, 0, 2, 0]
    assert list(stream(VOCFolder(drawn, "val", keep), [], workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_raises_what_is_wrong_with_the_data_on_one_line(workers, shapes):
    path = truncate(shapes / "JPEGImages" / (read_ids(shapes, "train")[3] + ".jpg"))
    found = stream(VOCFolder(shapes, "train", keep), batches(range(18), 2), workers)
    assert len(next(found)) == 2  # what can be read before comes out
    with pytest.raises(DataError) as raised:
        next(found)
    assert type(raised.value) is DataError
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_leaves_the_global_random_state_alone(workers, drawn):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(stream(VOCFolder(drawn, "val", keep), [[0, 1], [2]], workers))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_ctrl_c_is_left_to_the_main_process(drawn):
    def spared() -> bool:
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    dataset = VOCFolder(drawn, "val", lambda image, mask: (image, torch.full((1, 1), spared(), dtype=torch.uint8)))
    samples = [sample for batch in stream(dataset, [[0, 1], [2]], workers=2) for sample in batch]
    assert [sample.mask.item() for sample in samples] == [1, 1, 1]
    assert not spared()


def test_ctrl_c_while_the_workers_start_comes_when_all_have_started_and_ends_them(drawn, monkeypatch):
    started, start = [], DataLoader.__iter__
    with ThreadPoolExecutor(1) as thread:
        thread.submit(int).result()  # the thread is there before: it has the signal mask of a quiet moment

        def interrupted(loader):
            thread.submit(signal.raise_signal, signal.SIGINT).result()
            started.append(True)
            return start(loader)

        monkeypatch.setattr(DataLoader, "__iter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream(VOCFolder(drawn, "val", keep), [[0, 1], [2]], workers=2))
    assert started and not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
