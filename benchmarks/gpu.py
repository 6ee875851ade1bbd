"""What a CUDA GPU makes of it, in at most six minutes and without a network: the GPU tests, then speeds and memory.

    make gpu            # writes benchmarks/results/gpu.json; without a GPU it is a rehearsal, printed and not written

Made-up images and random weights: only speed and memory are asked for. Everything runs in float32 and in bfloat16, and
each beside the bare forward pass or step of the same network, at the same batch size, on tensors that lie ready.
"""

import json
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

import tlbook as tl
from tlbook.data import Dataset
from tlbook.feature_extraction import Features
from tlbook.training.recipes import Full

CUDA = torch.cuda.is_available()
SIDE, BATCH, IMAGES = (224, 256, 8192) if CUDA else (96, 32, 128)
TRAIN_SIDE, TRAIN_BATCH, TRAIN_IMAGES = (224, 64, 2048) if CUDA else (64, 16, 64)


def timed(function, repeats=3):
    """The median of the seconds, after a warm-up, and the most memory that tensors took, in MB."""
    function()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if CUDA:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), torch.cuda.max_memory_allocated() / 1e6 if CUDA else None


def images(n, side):
    """A Dataset of noise, which is the same image over and over but for its first pixel: memory stays small."""
    pool = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset([pool[i % 64] for i in range(n)], np.arange(n) % 10, [str(k) for k in range(10)])


def autocast(backbone, precision):
    return torch.autocast(backbone.device.type, torch.bfloat16, enabled=precision == "bfloat16")


def extraction(name, precision):
    backbone, data = tl.load_backbone(name, weights=None), images(IMAGES, SIDE)
    batch = backbone.prepare([data[i][0] for i in range(BATCH)])

    def bare():
        with torch.inference_mode(), autocast(backbone, precision):
            for _ in range(IMAGES // BATCH):
                z = backbone.forward_stages(batch)["final"]
            z.float().cpu()

    def ours():
        tl.extract(backbone, data, precision=precision, batch_size=BATCH, cache=False)

    rows = {}
    for way, function in (("bare pass", bare), ("tl.extract", ours)):
        seconds, memory = timed(function)
        rows[way] = {"images/s": round(IMAGES / seconds), "peak MB": memory}
    return rows


def fine_tuning(name, precision):
    backbone, data = tl.load_backbone(name, weights=None), images(TRAIN_IMAGES, TRAIN_SIDE)
    rows = np.arange(TRAIN_IMAGES)
    split = tl.data.Split(rows, rows[:0], rows[:0])
    options = {"recipe": Full(), "epochs": 1, "lr": 1e-5, "batch_size": TRAIN_BATCH, "precision": precision}
    x = backbone.prepare([data[i][0] for i in range(TRAIN_BATCH)])
    y = torch.from_numpy(data.labels[:TRAIN_BATCH]).to(x.device)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-5)

    def bare():
        backbone.train()
        for _ in range(TRAIN_IMAGES // TRAIN_BATCH):
            optimizer.zero_grad()
            with autocast(backbone, precision):
                logits = backbone(x)
            torch.nn.functional.cross_entropy(logits.float(), y).backward()
            optimizer.step()

    def ours():
        tl.finetune(backbone, data, split, **options)

    found = {}
    for way, function in (("bare step", bare), ("tl.finetune", ours)):
        seconds, memory = timed(function, repeats=2)
        found[way] = {"images/s": round(TRAIN_IMAGES / seconds), "peak MB": memory}
    return found


def probe():
    n, D, K = (50_000, 1280, 10) if CUDA else (2_000, 128, 10)
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, n)
    X = rng.normal(size=(n, D)).astype(np.float32) + rng.normal(size=(K, D)).astype(np.float32)[y] / 4
    rows = np.arange(n)
    split = tl.data.Split(rows, rows[:0], rows[:0])
    seconds, memory = timed(lambda: tl.linear_probe(Features(X, y, None, {"x": slice(0, D)}), split), repeats=1)
    return {"shape": f"{n:,} × {D:,} × {K}", "seconds": round(seconds, 1), "peak MB": memory}


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    begin = time.perf_counter()
    tests = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/test_fine_tuning.py"]
    tests += ["tests/test_feature_extraction.py", "-k", "gpu or cuda or batch_size or plain or views"]
    said = subprocess.run(tests, capture_output=True, text=True).stdout.strip().splitlines()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {
        "command": "make gpu",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "date": date.today().isoformat(),
        "device": tl.device.describe()["device"],
        "versions": {name: installed(name) for name in ("torch", "torchvision", "timm")},
        "tests": said[-1] if said else "none ran",
        "probe": probe(),
    }
    for name in ("tf_efficientnet_lite0", "resnet18"):
        for precision in ("float32", "bfloat16"):
            result[f"{name}, {precision}, extraction at {SIDE} px"] = extraction(name, precision)
            result[f"{name}, {precision}, training at {TRAIN_SIDE} px"] = fine_tuning(name, precision)
    result["seconds in all"] = round(time.perf_counter() - begin)
    text = json.dumps(result, indent=1)
    print(text)
    if CUDA:
        (Path(__file__).parent / "results" / "gpu.json").write_text(text + "\n")
    else:
        print("a rehearsal without a GPU: nothing was written")
