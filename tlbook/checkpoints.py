"""Tensors, and what is known about them as JSON, in one safetensors file that appears whole or not at all."""

import json
import os

import torch

from tlbook import cache


def write(path, tensors, facts):
    """Write {name: tensor} and the JSON value ``facts`` to ``path``, atomically; pickles take no part."""
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    with cache.atomic(path) as part:
        save_file(tensors, part, {"tlbook": json.dumps(facts)})
        with part.open("rb+") as file:
            os.fsync(file.fileno())


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


def pack(**states):
    """{part: {name: tensor}} -> {"part/name": tensor}, for one file."""
    return {f"{part}/{name}": tensor for part, state in states.items() for name, tensor in state.items()}


def unpack(tensors, part):
    """The {name: tensor} of one part."""
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
