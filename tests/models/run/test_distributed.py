"""Processes: alone all is trivial; two together share sums and compare flags."""

import os
import socket

import pytest
import torch
from torch import nn
from torch.multiprocessing import spawn

from data import UserError
from models.run import distributed


def test_alone_all_is_trivial():
    network, tensor = nn.Linear(2, 1), torch.tensor([1.0, 2.0])
    distributed.init(torch.device("cpu"))
    distributed.barrier()
    distributed.check_same("anything")
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.wrap(network) is network
    assert distributed.share(3) == range(3) and distributed.is_one_machine()
    assert distributed.gather("a") == ["a"]
    assert torch.equal(distributed.total(tensor), tensor)
    distributed.shutdown()


def test_several_processes_need_a_device_that_can_do_it(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="^--device mps: several processes need cpu or cuda"):
        distributed.init(torch.device("mps"))


def test_each_process_has_a_share_and_knows_of_other_machines(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert distributed.world_size() == 1, "a scheduler may leave that behind"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    shares = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        shares.append(list(distributed.share(5)))
    assert shares == [[0, 3], [1, 4], [2]]
    for here, is_one in (("3", True), ("2", False)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        assert distributed.is_one_machine() is is_one


def one_of_two(rank: int, port: int) -> None:
    """What each of two processes checks."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(place, WORLD_SIZE="2", RANK=str(rank), TORCHELASTIC_RUN_ID="a")
    torch.set_num_threads(1)
    distributed.init(torch.device("cpu"))
    assert distributed.is_main() == (rank == 0)
    mine = torch.tensor([rank, 10])
    assert distributed.total(mine).tolist() == [1, 20] and mine.tolist() == [rank, 10]
    assert distributed.gather(f"of {rank}") == ["of 0", "of 1"]
    distributed.check_same(["same", 1])
    with pytest.raises(UserError, match="^rank 1 has other flags, data or run folder than rank 0"):
        distributed.check_same(["lr", rank])
    distributed.barrier()
    distributed.shutdown()


def test_two_processes_share_sums_and_compare_flags():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(one_of_two, (port,), nprocs=2)
