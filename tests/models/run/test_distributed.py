"""Which processes there are and what is whose; tests/scripts/test_distributed.py runs them."""

import pytest
import torch

from data import UserError
from models.run import distributed


def test_only_torchruns_own_launch_counts(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert (distributed.world_size(), distributed.rank()) == (1, 0), "a scheduler left that behind"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    assert (distributed.world_size(), distributed.rank()) == (3, 2)


def test_each_process_knows_of_other_machines(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    for here, is_one in (("3", True), ("2", False)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        assert distributed.is_one_machine() is is_one


def test_several_processes_need_a_device_that_can_do_it(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="^--device mps: several processes need cpu or cuda"):
        distributed.init(torch.device("mps"))
