"""On CUDA a small step is bound by Python, which launches hundreds of kernels: they are recorded once, and replayed.

Sixteen images of 64 pixels keep a large GPU busy for two milliseconds, and Python for eighteen (`benchmarks/gpu.py`).
"""

import copy
import warnings

import torch
from torch import nn

WORTH_RECORDING = 20  # steps: to record one takes about as long as five of them


class Recorded(nn.Module):
    """A network in training whose forward and backward pass are recorded for each shape of its batches.

    Gradients of one backward pass are overwritten by the next: it is no network to accumulate gradients with.

    Args:
        network: module from a batch to logits, on a CUDA device, whose parts stay in the mode that they are in.
    """

    def __init__(self, network):
        super().__init__()
        self.network, self.recorded = network, {}

    def forward(self, inputs):
        if inputs.shape not in self.recorded:
            self.recorded[inputs.shape] = self._record(inputs)
        return self.recorded[inputs.shape](inputs)

    def _record(self, inputs):
        """The network for batches of one shape; what a few passes to warm up have moved is put back."""
        network = copy.copy(self.network)  # PyTorch replaces the forward method of what it records
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):  # PyTorch records on another
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        try:
            with torch.cuda.device(inputs.device), torch.random.fork_rng([inputs.device]):
                return torch.cuda.make_graphed_callables(network, (inputs.clone(),), allow_unused_input=True)
        except RuntimeError as error:  # a network that looks at a number in between, or no memory for it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            warnings.warn(f"a step of this network cannot be recorded, so it is launched ({reason})", stacklevel=2)
            return self.network
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
