"""The stream of samples: order, errors, random state and Ctrl-C, with and without worker processes."""

import signal

import pytest
import torch

from data import DataError
from data.stream import stream
from data.voc import VOCFolder, read_ids
from tests.test_voc import keep, same, truncate


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("order", [None, [5, 0, 17, 3, 3]], ids=["all", "chosen"])
def test_stream_keeps_the_order_and_the_last_short_batch(workers, order, drawn):
    dataset = VOCFolder(drawn, "train", keep)
    batches = list(stream(dataset, 4, workers, order))
    indices = range(18) if order is None else order
    assert [len(samples) for samples in batches] == ([4, 4, 4, 4, 2] if order is None else [4, 1])
    samples = [sample for batch in batches for sample in batch]
    assert all(same(sample, dataset[index]) for sample, index in zip(samples, indices, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_raises_what_is_wrong_with_the_data_on_one_line(workers, shapes):
    path = truncate(shapes / "JPEGImages" / (read_ids(shapes, "train")[3] + ".jpg"))
    batches = stream(VOCFolder(shapes, "train", keep), 2, workers)
    assert len(next(batches)) == 2  # what can be read before comes out
    with pytest.raises(DataError) as raised:
        next(batches)
    assert type(raised.value) is DataError
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_leaves_the_global_random_state_alone(workers, drawn):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(stream(VOCFolder(drawn, "val", keep), 2, workers))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_ctrl_c_is_left_to_the_main_process(drawn):
    def spared() -> bool:
        blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return blocked or signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    dataset = VOCFolder(drawn, "val", lambda image, mask: (image, torch.full((1, 1), spared(), dtype=torch.uint8)))
    samples = [sample for batch in stream(dataset, 2, workers=2) for sample in batch]
    assert [sample.mask.item() for sample in samples] == [1, 1, 1]
    assert not spared()
