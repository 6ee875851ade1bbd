"""Tensors, and what is known about them as JSON, in one safetensors file; and whether it is of this very run."""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tlbook import cache


def write(path, tensors, facts):
    """Write {name: tensor} and the JSON value ``facts`` to ``path``, atomically; pickles take no part.

    Raises:
        OSError: there is no room on the disk, or another of the system's reasons.
    """
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    cache.save_tensors(path, save_file, tensors, {"tlbook": json.dumps(finite(facts), allow_nan=False)})


def read(path):
    """Return (tensors, facts) as written.

    Raises:
        ValueError: not such a file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["tlbook"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or was not written by tlbook ({error}): remove it") from error


def finite(facts):
    """The JSON value with null where a float is NaN or infinite, for which JSON has no words."""
    if isinstance(facts, dict):
        return {key: finite(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def pack(**states):
    """{part: {name: tensor}} -> {"part/name": tensor}, for one file."""
    return {f"{part}/{name}": tensor for part, state in states.items() for name, tensor in state.items()}


def unpack(tensors, part):
    """{name: tensor} of one part."""
    return {name.removeprefix(f"{part}/"): t for name, t in tensors.items() if name.startswith(f"{part}/")}


def optimizer_state(optimizer):
    """{"number of the parameter/quantity": tensor} of a torch optimizer."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{key}": torch.as_tensor(value) for i, of in state.items() for key, value in of.items()}


def load_optimizer_state(optimizer, tensors):
    """Give a fresh optimizer over the same parameters what `optimizer_state` returned, in its parameters' layout."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {}
    for name, tensor in tensors.items():
        i, key = name.split("/")
        like = parameters[int(i)]
        if (
            tensor.shape == like.shape
        ):  # a channels-last parameter has channels-last moments: the same sums, bit for bit
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def file_of(folder):
    """Where a run keeps its checkpoint."""
    return Path(folder) / "checkpoint.safetensors"


def key_of(run):
    """What a run is the same run by: {name: text} of all that its weights depend on."""
    backbone, data, split, objective = run.backbone, run.data, run.split, run.objective
    if backbone.has_hooks:
        raise ValueError(
            f"{backbone.name} has hooks or replaced methods, which a checkpoint cannot tell apart from others: remove "
            "them, or train without checkpoint="
        )
    seen = np.concatenate([split.train, split.val]).astype(np.int64)
    sizes = np.array([len(split.train), len(split.val)])
    arrays = [sizes, split.train, split.val, objective.weights(data, split.train)[seen], data.labels[seen]]
    if objective.soft_targets is not None:
        arrays += [objective.targets(data)[split.train], np.array(objective.temperature)]
    key = {
        "backbone": backbone.fingerprint,
        "inputs": data.subset(seen).fingerprint,
        "labels, weights, split": hashlib.sha256(b"".join(np.ascontiguousarray(a) for a in arrays)).hexdigest(),
        "parameters that learn": [name for name, p in backbone.named_parameters() if p.requires_grad],
        "objective": terms_of(objective),
        "recipe": [_name_of(run.recipe), asdict(run.recipe)],
        "dtype": run.dtype,
        "processes": run.processes.size,
    }
    return {name: str(value) for name, value in (key | asdict(run.settings)).items()}


def terms_of(objective):
    """What an `Objective` adds up, its targets and weights left out."""
    return [_name_of(objective), objective.l2_sp, objective.l2_head, objective.label_smoothing]


def _name_of(value):
    return f"{type(value).__module__}.{type(value).__qualname__}"


def load(folder, resume, key):
    """Return (model's tensors, best weights, optimizer's, losses at the start, progress) of the checkpoint, or None.

    Raises:
        ValueError: there is one and ``resume`` is False, or it is of a run with another key.
    """
    if folder is None or not file_of(folder).exists():
        if resume and folder is None:
            raise ValueError("resume=True needs the folder of the checkpoint: give checkpoint=")
        return None
    if not resume:
        raise ValueError(f"{folder} holds the checkpoint of a run: resume=True goes on with it; or take another folder")
    tensors, facts = read(file_of(folder))
    differ = [name for name in key if key[name] != facts.get("key", {}).get(name)]
    if differ:
        raise ValueError(
            f"{folder} holds a run with other {', '.join(differ)}: repeat its arguments to go on with it; or, to start "
            "anew without resume, remove the folder or take another"
        )
    return (*(unpack(tensors, part) for part in ("model", "best", "optimizer", "start")), facts["progress"])
