"""Where the numbers are computed: a GPU for each process, and a word where there are too few."""

import pytest
import torch

from tlbook import device


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that has two, as far as PyTorch says; nothing is computed on them."""
    monkeypatch.delenv("TLBOOK_DEVICE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_each_process_takes_a_gpu_of_its_own(two_gpus, monkeypatch):
    assert device.choose() == torch.device("cuda", 0)
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert device.choose() == torch.device("cuda", rank)


def test_a_process_without_a_gpu_is_told_how_many_there_are_and_what_works(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"process 3 .*LOCAL_RANK=2.* there are 2: .*--nproc-per-node 2.*=cpu"):
        device.choose()
    monkeypatch.setenv("TLBOOK_DEVICE", "cpu")
    assert device.choose() == torch.device("cpu")
