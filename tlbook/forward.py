"""The forward pass without gradients, by the fastest engine that the machine has and that the work pays for.

On a CPU that is OpenVINO, where it is installed: it computes several batches at once, a core each, so that no thread
waits for another at every layer, whatever else the machine is doing. Else it is PyTorch. To compile a network for
OpenVINO costs seconds, which a small job would not win back.
"""

import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import tempfile
import warnings
from collections import Counter, deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tlbook import cache
from tlbook.device import full_float32, inference_dtype, never_waiting
from tlbook.fingerprint import LIBRARIES, has_hooks

WORTH_COMPILING = 400e9  # floating-point operations: PyTorch takes about five seconds for them on two cores
AT_ONCE = 8  # images in a request to OpenVINO: more take more memory, and no less time
AHEAD = 2  # batches that are submitted before the outputs of the first are asked for
# Convolutions of a pass in bfloat16 that are computed in float32, the first ones: rounding the second of
# EfficientNet-Lite0's 49 moves the features more than rounding all that come after it.
IN_FULL = 2
WORTH_RECORDING = 4  # batches of a shape on a GPU: to record a pass takes about as long as a few
MOST_RECORDED = 4  # shapes that are recorded: each keeps its memory


@dataclass(frozen=True)
class Engine:
    """What computes a forward pass ("torch" or "openvino"), and in which dtype."""

    name: str
    dtype: torch.dtype

    def __str__(self):
        names = {"torch": "PyTorch", "openvino": f"OpenVINO {_openvino_version()}"}
        return f"{names[self.name]}, {str(self.dtype).removeprefix('torch.')}"


def choose_engine(network, example, images, precision="auto"):
    """Choose the `Engine` of a job: OpenVINO on a CPU, if it is installed and the job is long enough to compile for.

    The environment variable ``TLBOOK_ENGINE`` ("torch" or "openvino") overrides the choice.

    Args:
        network: module. example: a prepared batch of one. images: how many there will be.
        precision: "auto", "float32" or "bfloat16".

    Raises:
        ValueError: an unknown engine or precision, or one that is not here.
    """
    dtype, wanted = inference_dtype(example.device, precision), os.environ.get("TLBOOK_ENGINE") or "auto"
    if wanted not in ("auto", "torch", "openvino"):
        raise ValueError(f"TLBOOK_ENGINE must be torch or openvino, or not set, got {wanted!r}")
    can_compile = example.device.type == "cpu" and _openvino_version() is not None
    if wanted == "openvino" and not can_compile:
        raise ValueError("TLBOOK_ENGINE=openvino needs a CPU and the package openvino: pip install openvino")
    if wanted == "auto":
        wanted = "openvino" if can_compile and images * flops(network, example) >= WORTH_COMPILING else "torch"
    return Engine(wanted, dtype)


def flops(network, example):
    """Floating-point operations of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    networks = [network] if isinstance(network, nn.Module) else []  # a prefix is a function of one
    with in_eval_mode(*networks), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(example)  # in eval mode: no statistics move, and no random number is drawn
    return counter.get_total_flops()


def is_recordable(network):
    """Whether a pass does the same at every call, as far as can be known: a replay runs no Python and no hook."""
    known = all(type(module).__module__.split(".")[0] in LIBRARIES for module in network.modules())
    return known and not has_hooks(network)


class Forward:
    """A network without gradients: `submit` a batch, and ask for its outputs when they are needed.

    Args:
        network: module from a batch to a tuple of tensors, in eval mode.
        engine: `Engine`.
        key: text that stands for the network's weights and structure, so that what is compiled can be kept; or None.
    """

    def __init__(self, network, engine, key=None):
        self.network, self.engine, self.key, self.requests = network, engine, key, {}
        self.seen, self.replays = Counter(), {}

    def submit(self, batch):
        """Return something whose ``result()`` is the outputs for a batch (B, …): a tuple of float32 tensors.

        Until then the batch must not change: its memory is read.
        """
        if self.engine.name == "openvino":
            try:
                return self._start(batch)
            except Exception as error:  # a network of a family that cannot be converted fails in many ways
                self.engine = Engine("torch", self.engine.dtype)
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                warnings.warn(f"OpenVINO cannot run this network, so PyTorch does ({reason})", stacklevel=2)
        run = self._replay if batch.is_cuda and self.is_recordable else self._run
        return _Job(None, len(batch), run(batch))

    @functools.cached_property
    def is_recordable(self):
        return is_recordable(self.network)

    def _run(self, batch):
        """The outputs by PyTorch."""
        in_full = full_float32() if batch.is_cuda else nullcontext()
        with torch.inference_mode(), autocast(batch.device.type, self.engine.dtype), in_full:
            return tuple(z.float() for z in self.network(batch))

    def _replay(self, batch):
        """The outputs on a GPU: a shape of batches that keeps coming is recorded."""
        shape = batch.shape
        self.seen[shape] += 1
        if self.seen[shape] == WORTH_RECORDING and len(self.replays) < MOST_RECORDED:
            self.replays[shape] = self._record(batch)
        return self.replays.get(shape, self._run)(batch)

    def _record(self, example):
        """A function like `_run` for batches of the example's shape, which launches all its kernels at once."""
        with torch.cuda.device(example.device):
            static, stream, graph = example.clone(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
            try:
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream), never_waiting():
                    self._run(static)
                torch.cuda.current_stream().wait_stream(stream)
                with torch.cuda.graph(graph, stream=stream):
                    outputs = self._run(static)
            except RuntimeError:  # a network that looks at a number in between, or no memory for it
                return self._run

        def replay(batch):
            static.copy_(batch)
            graph.replay()
            return tuple(z.clone() for z in outputs)

        return replay

    def _start(self, batch):
        """Hand a batch to OpenVINO in pieces of one size, each to the request that was idle for longest.

        Whole pieces of a contiguous batch are not copied.
        """
        shape = tuple(batch.shape[1:])
        if shape not in self.requests:
            example = batch.new_zeros(AT_ONCE, *shape)
            requests = _compile(self.network, example, self.engine.dtype, self.key)
            self.requests[shape] = deque(_Job(request, 0, ()) for request in requests)
        jobs = []
        for piece in batch.split(AT_ONCE):
            oldest = self.requests[shape].popleft()
            oldest.result()
            jobs.append(_Job(oldest.request, len(piece)))
            if len(piece) < AT_ONCE:
                piece = torch.cat([piece, piece.new_zeros(AT_ONCE - len(piece), *shape)])
            oldest.request.start_async({0: piece.contiguous().numpy()}, share_inputs=True)
            self.requests[shape].append(jobs[-1])
        return _Jobs(jobs)


@contextmanager
def autocast(device_type, dtype):
    """PyTorch's autocast to ``dtype``, for all but the first `IN_FULL` convolutions; to float32 it is none."""
    low = dtype != torch.float32
    with torch.autocast(device_type, dtype, low), _FirstInFull(device_type) if low else nullcontext():
        yield


class _FirstInFull(TorchFunctionMode):
    """The first `IN_FULL` convolutions are computed in float32, if that is what their weights are."""

    def __init__(self, device_type):
        super().__init__()
        self.device_type, self.left = device_type, IN_FULL

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.left and function in (torch.conv1d, torch.conv2d, torch.conv3d):
            self.left -= 1
            if (args[1] if len(args) > 1 else kwargs["weight"]).dtype == torch.float32:
                with torch.autocast(self.device_type, enabled=False):
                    return function(*map(_full, args), **{name: _full(value) for name, value in kwargs.items()})
        return function(*args, **kwargs)


def _full(value):
    return value.float() if isinstance(value, torch.Tensor) else value


def outputs(network, batches, examples, precision="auto"):
    """Yield the output of a network for each batch, in order, by the engine that this many examples pay for.

    Args:
        network: module from a batch to a tensor, in eval mode. batches: iterable of tensors (B, …).
        examples: how many there will be in all. precision: "auto", "float32" or "bfloat16".
    """
    forward, pending = None, deque()
    for batch in batches:
        if forward is None:
            only = Only(network)
            forward = Forward(only, choose_engine(only, batch[:1], examples, precision))
        pending.append(forward.submit(batch))
        while len(pending) > (AHEAD if forward.engine.name == "openvino" else 0):
            yield pending.popleft().result()[0]
    while pending:
        yield pending.popleft().result()[0]


def gathered(network, batches, examples, precision="auto"):
    """Return the `outputs` of all batches as one tensor on the CPU, of at most ``examples`` rows.

    The room is taken at once. Small pieces that stay among the large ones of a forward pass, which come and go, would
    keep the C library from using the room between them again: six megabytes a batch.
    """
    found, n = torch.empty(0), 0
    for z in outputs(network, batches, examples, precision):
        found = found if n else torch.empty(examples, *z.shape[1:])
        found[n : n + len(z)] = z
        n += len(z)
    return found[:n]


class _Job:
    """The outputs of a batch of n, or the request that will have them."""

    def __init__(self, request, n, outputs=None):
        self.request, self.n, self.outputs = request, n, outputs

    def result(self):
        if self.outputs is None:
            self.request.wait()
            tensors = self.request.output_tensors
            self.outputs = tuple(torch.from_numpy(t.data[: self.n].copy()).float() for t in tensors)
        return self.outputs

    def __del__(self):  # what is still computed reads the memory of its batch, which nobody else may hold
        if self.outputs is None:
            self.request.wait()


class OnCPU:
    """The outputs of a job, on their way to the CPU: to ask for them waits for nothing that a GPU was given later."""

    def __init__(self, job):
        self.job, self.arrived = job, None
        if isinstance(job, _Job) and job.outputs is not None and job.outputs[0].is_cuda:
            self.job = _Job(None, job.n, tuple(z.to("cpu", non_blocking=True) for z in job.outputs))
            self.arrived = torch.cuda.current_stream(job.outputs[0].device).record_event()

    def result(self):
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.job.result()


@dataclass(frozen=True)
class _Jobs:
    """The outputs of a batch that was handed over in pieces."""

    jobs: list

    def result(self):
        return tuple(torch.cat(pieces) for pieces in zip(*(job.result() for job in self.jobs), strict=True))


def _compile(network, example, dtype, key):
    """OpenVINO's requests to the network for batches of the example's shape; the conversion is kept under ``key``."""
    core, path = _core(), None
    if key is not None:
        words = json.dumps([key, list(example.shape), IN_FULL, _openvino_version()])
        path = cache.folder() / "engines" / f"{hashlib.sha256(words.encode()).hexdigest()[:32]}.xml"
    if path is not None and path.exists() and path.with_suffix(".bin").exists():
        model = core.read_model(path)
        cache.note_use(path.with_suffix(".bin"))
    else:
        model = _convert(network, example)
        if path is not None:
            _keep(model, path)
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(model, "CPU", settings)
    streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    return [compiled.create_infer_request() for _ in range(streams + 1)]  # one waits while the others are computed


def _convert(network, example):
    """A network as OpenVINO's model for batches of the example's shape, with its first convolutions marked."""
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    with warnings.catch_warnings(), torch.no_grad(), in_eval_mode(network):
        warnings.simplefilter("ignore")  # of torch.jit, which OpenVINO traces with
        model = openvino.convert_model(network, example_input=example.contiguous(), input=list(example.shape))
    gc.collect()  # tracing leaves reference cycles, which would keep the network's weights after its last use
    # What compiling would do later: a convolution that takes in the padding before it is a new one, without a mark
    apply_moc_transformations(model, cf=True)
    return _marked(model)


def _marked(model):
    """The same model, of which OpenVINO computes all that comes before convolution `IN_FULL` in float32.

    By this mark OpenVINO's files say of an operation that it must not be rounded (newer versions read it, and write it
    by another name). Its Python has no name for it.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder, "network.xml")
        openvino.save_model(model, xml, compress_to_fp16=False)
        tree, weights = ElementTree.parse(xml), xml.with_suffix(".bin").read_bytes()
    layers = tree.findall("layers/layer")
    places = [i for i, layer in enumerate(layers) if layer.get("type") in ("Convolution", "GroupConvolution")]
    for layer in layers[: places[IN_FULL] if len(places) > IN_FULL else max(places, default=-1) + 1]:
        info = layer.find("rt_info")
        info = ElementTree.SubElement(layer, "rt_info") if info is None else info
        ElementTree.SubElement(info, "attribute", name="precise", version="0")
    return _core().read_model(ElementTree.tostring(tree.getroot()), weights)


@functools.cache
def _core():
    """The one Core of this process, which is never given up.

    On CPUs with AMX each Core sets a stack for signals, and one that ends out of turn leaves the process with a stack
    that is gone: Ctrl-C would kill it.
    """
    import openvino

    return openvino.Core()


def _keep(model, path):
    """Save a converted network as .xml and .bin, each whole; the .xml, which says that both are there, comes last."""
    import openvino

    with cache.atomic(path) as part:
        xml = part.with_suffix(".xml")
        openvino.save_model(model, xml, compress_to_fp16=False)
        os.replace(xml.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(xml, part)
    cache.trim(path.parent, ".bin")  # an .xml that has lost its .bin is a network that was not kept


def _openvino_version():
    return importlib.metadata.version("openvino") if importlib.util.find_spec("openvino") else None


@contextmanager
def in_eval_mode(*networks):
    """Every module of the networks in eval mode; afterwards each is in the mode that it was in."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Only(nn.Module):
    """A network of one output, as one of a tuple of outputs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return (self.network(batch),)


class Prefix(nn.Module):
    """A network up to and with one of its stages, as a module from a batch to that stage's output, not pooled."""

    def __init__(self, model, stage):
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, batch):
        return self.model.prefix(self.stage)(batch)


class Stages(nn.Module):
    """A backbone as a network from a batch to the pooled outputs of some stages."""

    def __init__(self, backbone, stages):
        super().__init__()
        self.backbone, self.stages = backbone, stages

    def forward(self, batch):
        return tuple(self.backbone.forward_stages(batch, self.stages).values())
