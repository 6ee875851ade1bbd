"""Several processes that share one run, as ``torchrun`` starts them: which one is this, and what do all agree on?

Whatever starts them sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT (and LOCAL_RANK on a node with several GPUs).
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """This process among ``size`` of them; alone, every method is the identity.

    Attributes:
        rank: its number, from 0. size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self):
        return self.rank == 0

    def share(self, rows):
        """This process's part of ``rows``."""
        return np.array_split(np.asarray(rows), self.size)[self.rank]

    def wait(self):
        """Wait until all have come here."""
        if self.size > 1:
            distributed.barrier()

    def from_first(self, value):
        """The first process's ``value``, in all: what one alone must decide, such as whether a file exists."""
        box = [value]
        if self.size > 1:
            distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, value):
        """Everyone's ``value``, in a list, in all."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def sum(self, tensor):
        """The sum of everyone's tensor."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor


def join(device):
    """Join the processes that this one was started with, if any, and return its place among them."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes()
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), distributed.get_world_size())


def parallel(network, device, processes):
    """The network as all processes train it: gradients are averaged over them."""
    if processes.size == 1:
        return network
    devices = [device] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(network, device_ids=devices)
