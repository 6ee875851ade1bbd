"""Small networks and data that train in a second, for the tests of fine-tuning."""

import copy
import functools
import os
from unittest import mock

import numpy as np
import torch

import tlbook as tl
from tlbook import device
from tlbook.data import Dataset, Split
from tlbook.training.recipes import Gradual

CUT = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]


@functools.cache
def built(name, seed):
    """The same to the last bit in every process: a CPU makes its sums, by one thread, whoever asks for it first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with mock.patch.dict(os.environ, TLBOOK_DEVICE="cpu"):
        backbone = tl.load_backbone(name, weights=None)
    tl.recalibrate_batchnorm(backbone, DATA, range(24))  # as a trained network's statistics fit its features
    torch.set_num_threads(threads)
    return backbone


def tiny(name="test_resnet", seed=0):
    """A copy for the caller, on the device that a backbone would be loaded to now."""
    return copy.deepcopy(built(name, seed)).to(device.choose())


def spots(n=48, K=2, side=32):
    """Noise, in which class k has a brighter square at the k-th place; the second half repeats the first."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randint(0, 100, (n, 1, side, side), dtype=torch.uint8, generator=g), np.arange(n) % K
    for k in range(K):
        x[y == k, :, 4 + 8 * k : 12 + 8 * k, 4:12] += 150
    x[n // 2 :] = x[: n - n // 2]
    return Dataset(list(x), y, tuple("abc"[:K]), np.arange(n) // 6)


DATA = spots()


SPLIT = Split(np.arange(30), np.arange(30, 39), np.arange(39, 48))  # what is learned helps in validation


NO_VAL = SPLIT._replace(val=SPLIT.val[:0])  # the last weights are kept


FAST = {"recipe": "full", "epochs": 3, "lr": 1e-3, "batch_size": 8}


def same(a, b):
    assert a.epoch and b.epoch, "the start would be the same whatever training did"
    a, b = a.model.state_dict(), b.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def apart(a, b):
    assert a.epoch and b.epoch, "the start would be the same whatever training did"
    a, b = a.model.state_dict(), b.model.state_dict()
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


RUN = {"recipe": Gradual(), "epochs": 3, "lr": 1e-3, "batch_size": 12, "augment": "dihedral"}


def dropping():
    """A backbone with dropout, so that the random state matters."""
    backbone = tiny()
    backbone.model.drop_rate = 0.3
    return backbone
