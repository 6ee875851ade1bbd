"""The one place that decides where the numbers are computed, and how precisely."""

import os

import torch
from accelerate import PartialState


def choose():
    """Return the device to compute on: CUDA, then Apple's MPS, then the CPU.

    The environment variable ``TLBOOK_DEVICE`` ("cpu", "cuda:1", …) overrides the choice. Under ``torchrun`` each
    process gets its own GPU.
    """
    if "TLBOOK_DEVICE" in os.environ:
        return torch.device(os.environ["TLBOOK_DEVICE"])
    if torch.cuda.is_available():
        return PartialState().device
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_fast_bfloat16(device):
    """Tell whether ``device`` multiplies bfloat16 matrices in hardware: CUDA from Ampere on, CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def inference_dtype(device, precision="auto"):
    """Return the dtype of a forward pass on ``device``.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 where the hardware is fast at it.

    Raises:
        ValueError: for any other ``precision``.
    """
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', got {precision!r}")
    return getattr(torch, precision)


def describe():
    """Return {"device": …, "precision": …}: what an extraction on this machine will use, in words."""
    device = choose()
    words = {"cuda": lambda: torch.cuda.get_device_name(device), "mps": lambda: "Apple GPU"}
    name = words.get(device.type, lambda: f"CPU, {torch.get_num_threads()} threads")()
    return {"device": name, "precision": str(inference_dtype(device)).removeprefix("torch.")}
