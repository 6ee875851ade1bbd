"""On CUDA a small step is bound by Python, which launches hundreds of kernels: they are recorded once, and replayed.

Launched one by one, a step of EfficientNet-Lite0 on sixteen images of 64 pixels took an H200 24 ms: no more than a
quarter of the images/s that it reached with 64 images of 224 pixels (`benchmarks/results/gpu.json`).
"""

import copy
import gc
import warnings

import torch
from torch import nn

from tlbook.device import never_waiting

WORTH_RECORDING = 20  # steps: to record one takes about as long as five of them


class Recorded(nn.Module):
    """A network in training whose forward and backward pass are recorded for each shape of its batches.

    Gradients of one backward pass are overwritten by the next: it is no network to accumulate gradients with.

    Args:
        network: module from a batch to logits, on a CUDA device, which does the same at every call, and whose parts
            stay in the mode that they are in. See `tlbook.forward.is_recordable`.
    """

    def __init__(self, network):
        super().__init__()
        self.network, self.recorded, self.fails = network, {}, False

    def forward(self, inputs):
        if self.fails:
            return self.network(inputs)
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
                with never_waiting(), torch.no_grad():
                    network(inputs)
                torch.cuda.graph.default_capture_stream = None  # the last one may be of another GPU
                return torch.cuda.make_graphed_callables(network, (inputs.clone(),), allow_unused_input=True)
        except (RuntimeError, AssertionError) as error:  # it looks at a number in between, or there is no memory for it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            warnings.warn(f"a step of this network cannot be recorded, so it is launched ({reason})", stacklevel=2)
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        self.fails = True
        self.recorded.clear()
        gc.collect()  # recordings lie in cycles of references, and hold their memory
        torch.cuda.empty_cache()
        return self.network
