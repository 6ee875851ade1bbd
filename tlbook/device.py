"""The one place that decides where the numbers are computed, and how precisely."""

import ctypes
import os
import platform
import warnings
from contextlib import contextmanager

import torch


def choose():
    """Return the device to compute on: CUDA, then Apple's MPS, then the CPU.

    The environment variable ``TLBOOK_DEVICE`` ("cpu", "cuda:1", …) overrides the choice. Under ``torchrun`` each
    process gets its own GPU.

    Raises:
        ValueError: the device asked for is not here, or there are more processes on this machine than GPUs.
    """
    if os.environ.get("TLBOOK_DEVICE"):
        return _asked_for(os.environ["TLBOOK_DEVICE"])
    if torch.cuda.is_available():
        rank, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if rank >= gpus:
            raise ValueError(
                f"this is process {rank + 1} of this machine (LOCAL_RANK={rank}), and each takes a GPU of its own, of "
                f"which there are {gpus}: start no more processes than GPUs (torchrun --nproc-per-node {gpus}), or set "
                "TLBOOK_DEVICE=cpu"
            )
        return torch.device("cuda", rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _asked_for(name):
    """The device of TLBOOK_DEVICE, or an error that says why it cannot be had."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"TLBOOK_DEVICE={name} cannot be used here ({str(error).splitlines()[0]}): name another device, such as "
            "cpu, or leave it unset"
        ) from None
    return device


def has_fast_bfloat16(device):
    """Tell whether ``device`` computes in bfloat16 in hardware: CUDA from Ampere on, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in asked)


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


@contextmanager
def full_float32():
    """Compute float32 in float32: the convolutions of CUDA round what they multiply to ten bits (TF32) unless told."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    is_new = hasattr(conv, "fp32_precision")  # from PyTorch 2.9 on; who uses it may not ask the older switch
    switch, name, full = (conv, "fp32_precision", "ieee") if is_new else (torch.backends.cudnn, "allow_tf32", False)
    before = getattr(switch, name)
    setattr(switch, name, full)
    try:
        yield
    finally:
        setattr(switch, name, before)


@contextmanager
def never_waiting():
    """Make whatever waits for the GPU an error: what does cannot be recorded, and to find out in a recording harms."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it may not notice all
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def memory_kept():
    """Keep freed memory of the CPU in the process for a while; give it back at the end.

    A forward pass frees and asks for the same large blocks at every layer, and a loader at every batch. The C library
    of Linux (glibc) returns them to the system each time, which must clear their pages anew: nearly half of the seconds
    of a small network. Where the C library is another, nothing is changed.
    """
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None:
        yield
        return
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # from malloc.h
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**30)
    try:
        yield
    finally:  # to where glibc's own adjustment ends once blocks of 32 MiB have been freed
        libc.mallopt(mmap_max, 65536)
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**26)
        libc.malloc_trim(0)
