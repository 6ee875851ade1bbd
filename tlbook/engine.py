"""What the fine-tuning loop rests on and what would hide its formula: seeds, interrupts, checks, resuming."""

import hashlib
import math
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from tlbook import checkpoints
from tlbook.device import inference_dtype


def number_of(*words):
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def snapshot(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


class Trained(nn.Module):
    """The network from where the frozen prefix ends: what Accelerate wraps, and what is called in a step."""

    def __init__(self, model, until):
        super().__init__()
        self.model, self.until = model, until

    def forward(self, z):
        if self.until is None:
            return self.model(z)
        return self.model.head(z) if self.until == "final" else self.model.suffix(self.until)(z)


def prefix_of(model, until):
    if until is None:
        return None
    return (lambda x: model.forward_stages(x)["final"]) if until == "final" else model.prefix(until)


def frozen_until(model, learning):
    """The last of the leading stages in which nothing learns, or None."""
    until = None
    for stage in model.stages:
        if stage in learning:
            break
        until = stage
    return until


@torch.no_grad()
def softmax(network, batches, jobs, K):
    """(N, K) float64 probabilities, in eval mode."""
    modes = [(m, m.training) for m in network.modules()]
    network.eval()
    found = [network(z).cpu().double().softmax(1).numpy() for z in batches(jobs)]
    for m, mode in modes:
        m.training = mode
    return np.concatenate(found) if found else np.zeros((0, K))


def look(pending, now, accelerator, interrupts, lr, dtype, K):
    """Add up the losses since the last look, stop what diverges, and tell whether Ctrl-C was pressed anywhere."""
    values = torch.stack([value for value, _ in pending]).cpu().double()
    stop = torch.tensor(float(bool(interrupts)))
    if accelerator.num_processes > 1:
        values = accelerator.reduce(values.to(accelerator.device).float(), "mean").cpu()
        stop = accelerator.reduce(stop.to(accelerator.device), "sum").cpu()
    for i, ((loss, norm), (_, size)) in enumerate(zip(values.tolist(), pending, strict=True)):
        step = now["step"] - len(pending) + i + 1
        now["loss"] += loss * size
        now["smooth"] = loss if now["smooth"] is None else 0.9 * now["smooth"] + 0.1 * loss
        now.setdefault("limit", 10 * max(loss, math.log(K)))
        what = "the gradient" if math.isfinite(loss) else "the loss"
        if not (math.isfinite(loss) and math.isfinite(norm) and now["smooth"] < now["limit"]):
            finite = math.isfinite(loss) and math.isfinite(norm)
            problem = f"the loss diverges (about {now['smooth']:.3g})" if finite else f"{what} is not finite"
            raise trouble(problem, step, lr, dtype)
    return bool(stop > 0)


def trouble(problem, step, lr, dtype):
    """The error that ends a run: what happened where, and what to try."""
    advice = f"try lr={lr / 10:.1g}" + (", precision='float32'" if dtype != torch.float32 else "")
    return RuntimeError(
        f"{problem} at step {step}, with the learning rate {lr:.3g}: {advice}, clip=1.0, and look at the inputs, the "
        "weights of the backbone and of the examples, and the objective's coefficients. No weights were kept from it"
    )


@contextmanager
def one_ctrl_c():
    """Let the first Ctrl-C wait for the end of the step, but not a second one. Yields the list of those caught."""
    caught = []

    def note(number, frame):
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def accelerator_for(device, dtype):
    """An Accelerator for this run; one that an earlier run left behind may be of another precision or device."""
    AcceleratorState._reset_state(reset_partial_state=int(os.environ.get("WORLD_SIZE", 1)) == 1)
    precision = "bf16" if dtype == torch.bfloat16 else "no"
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision, device_placement=False)


def training_dtype(device, precision):
    if precision == "auto" and device.type != "cuda":
        return torch.float32  # a CPU's backward pass of depthwise convolutions is slower in bfloat16
    return inference_dtype(device, precision)


def file_of(checkpoint):
    return Path(checkpoint) / "checkpoint.safetensors"


def key_of(backbone, data, split, recipe, objective, run):
    """What a run is the same run by."""
    seen = np.concatenate([split.train, split.val]).astype(np.int64)
    weights, sizes = objective.weights(data, split.train)[seen], np.array([len(split.train), len(split.val)])
    arrays = [sizes, split.train, split.val, weights, data.labels[seen]]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
    numbers = {k: getattr(objective, k) for k in ("l2_sp", "l2_head", "label_smoothing")}
    inputs = {
        "backbone": backbone.fingerprint,
        "inputs": data.subset(seen).fingerprint,
        "labels, weights, split": digest,
        "parameters that learn": [name for name, p in backbone.named_parameters() if p.requires_grad],
    }
    return {
        k: str(v) for k, v in (inputs | numbers | {"recipe": (type(recipe).__name__, asdict(recipe))} | run).items()
    }


def resume_from(checkpoint, resume, key, model):
    """(progress, best weights, optimizer tensors) of the checkpoint, whose weights ``model`` takes; or nothing."""
    if checkpoint is None or not file_of(checkpoint).exists():
        if resume and checkpoint is None:
            raise ValueError("resume=True needs the folder of the checkpoint: give checkpoint=")
        return None, None, None
    if not resume:
        raise ValueError(
            f"{checkpoint} holds the checkpoint of a run: resume=True goes on with it; or take another folder"
        )
    tensors, now = checkpoints.read(file_of(checkpoint))
    old = now.pop("key")
    differ = [name for name in key if key[name] != old.get(name)]
    if differ:
        raise ValueError(
            f"{checkpoint} holds a run with other {', '.join(differ)}: repeat its arguments, or start anew"
        )
    model.load_state_dict(checkpoints.unpack(tensors, "model"))
    best = {name: t.to(model.device) for name, t in checkpoints.unpack(tensors, "best").items()}
    return now, best, checkpoints.unpack(tensors, "optimizer")
