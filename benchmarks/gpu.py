"""What a CUDA GPU makes of it, in at most six minutes and without a network: the GPU tests, then speeds and memory.

    make gpu            # writes benchmarks/results/gpu.json; without a GPU it is a rehearsal, printed and not written

Made-up images and random weights: only speed and memory are asked for. Everything runs in float32 and in bfloat16, and
each beside the bare forward pass or step of the same network, launched kernel by kernel as every tutorial does, at the
same batch size, on tensors that lie ready. In training float32 is what PyTorch makes of it: convolutions in TF32.
"""

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

import tlbook as tl
from tlbook.data import Dataset
from tlbook.device import full_float32
from tlbook.feature_extraction import Features
from tlbook.training.recipes import Full

CUDA = torch.cuda.is_available()
NETWORKS = ("tf_efficientnet_lite0", "resnet18", "vit_small_patch16_224")
EXTRACTED = {224: (256, 4096), 64: (256, 8192)} if CUDA else {64: (16, 64)}  # side: (a batch, images)
TRAINED = {224: (64, 1280), 64: (16, 960)} if CUDA else {64: (16, 64)}
PRECISIONS = ("float32", "bfloat16")


def timed(function):
    """Seconds of the first call and of the second, and the most memory that tensors took in it, in MB."""
    seconds = []
    for i in range(2):
        if CUDA and i == 1:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        function()
        if CUDA:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return *seconds, torch.cuda.max_memory_allocated() / 1e6 if CUDA else None


def row(n, function):
    first, seconds, memory = timed(function)
    return {"images/s": round(n / seconds), "first call, s": round(first, 1), "peak MB": memory and round(memory)}


def images(n, side):
    """A Dataset of noise, 64 images over and over: memory stays small."""
    pool = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset([pool[i % 64] for i in range(n)], np.arange(n) % 10, [str(k) for k in range(10)])


def autocast(backbone, precision):
    return torch.autocast(backbone.device.type, torch.bfloat16, enabled=precision == "bfloat16")


def extraction(name, side, precision):
    (size, n), backbone = EXTRACTED[side], tl.load_backbone(name, weights=None).eval()
    data = images(n, side)
    batch = backbone.prepare([data[i][0] for i in range(size)])

    def bare():
        in_full = full_float32() if precision == "float32" else nullcontext()
        with torch.inference_mode(), autocast(backbone, precision), in_full:
            for _ in range(n // size):
                z = backbone.forward_stages(batch)["final"]
            z.float().cpu()

    def ours():
        tl.extract(backbone, data, precision=precision, batch_size=size, cache=False)

    return {"bare pass": row(n, bare), "tl.extract": row(n, ours)}


def fine_tuning(name, side, precision):
    (size, n), backbone = TRAINED[side], tl.load_backbone(name, weights=None)
    data, rows = images(n, side), np.arange(n)
    split = tl.data.Split(rows, rows[:0], rows[:0])
    x = backbone.prepare([data[i][0] for i in range(size)])
    y = torch.from_numpy(data.labels[:size]).to(x.device)
    model = tl.load_backbone(name, weights=None)
    model.reset_head(10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def bare():
        model.train()
        for _ in range(n // size):
            optimizer.zero_grad()
            with autocast(model, precision):
                logits = model(x)
            torch.nn.functional.cross_entropy(logits.float(), y).backward()
            optimizer.step()

    def ours():
        tl.finetune(
            backbone, data, split, recipe=Full(), epochs=2, lr=1e-5, batch_size=size, precision=precision, augment=None
        )

    return {"bare step": row(n, bare), "tl.finetune": row(2 * n, ours)}


def probe():
    n, D, K = (50_000, 1280, 10) if CUDA else (2_000, 128, 10)
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, n)
    X = rng.normal(size=(n, D)).astype(np.float32) + rng.normal(size=(K, D)).astype(np.float32)[y] / 4
    rows = np.arange(n)
    split = tl.data.Split(rows, rows[:0], rows[:0])
    start = time.perf_counter()
    tl.linear_probe(Features(X, y, None, {"x": slice(0, D)}), split)
    return {"shape": f"{n:,} × {D:,} × {K}", "seconds": round(time.perf_counter() - start, 1)}


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def said_by(*command):
    """The lines that a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()


if __name__ == "__main__":
    begin = time.perf_counter()
    tests = ["tests/test_gpu.py", "tests/test_fine_tuning.py", "tests/test_feature_extraction.py"]
    only = "gpu or recorded or replayed or hook or launched or plain or views"
    said = said_by(sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *tests, "-k", only)
    result = {
        "command": "make gpu",
        "commit": "".join(said_by("git", "describe", "--always", "--dirty")),
        "date": date.today().isoformat(),
        "device": tl.device.describe()["device"],
        "versions": {name: installed(name) for name in ("torch", "torchvision", "timm")},
        "tests": [line for line in said if line.startswith(("FAILED", "ERROR"))] + said[-1:],
        "probe": probe(),
    }
    for name in NETWORKS if CUDA else NETWORKS[:2]:
        for precision in PRECISIONS:
            for side in EXTRACTED:
                if side == 224 or "vit" not in name:
                    key = f"{name}, {side} px, {precision}"
                    rows = {"extraction": extraction(name, side, precision)}
                    rows["training"] = fine_tuning(name, side, precision)
                    result[key] = rows
                    result["seconds in all"] = round(time.perf_counter() - begin)
                    print(result["seconds in all"], "s:", key, rows, flush=True)
                    if CUDA:
                        path = Path(__file__).parent / "results" / "gpu.json"
                        path.write_text(json.dumps(result, indent=1) + "\n")
    if not CUDA:
        print("a rehearsal without a GPU: nothing was written")
