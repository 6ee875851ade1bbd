"""LogME of 10,000 × 2,048 features and 100 classes, beside the obvious loop over the classes.

    python benchmarks/ranking.py

The loop is Algorithm 1 of You et al. (ICML 2021), written from its formulas: FᵀF is decomposed once; then, for each
class, α and β are set in turn to what the last weights say until their ratio stands still, to a loose or to a strict
tolerance. How far the result is from the converged evidence is recorded with the seconds.
"""

import json
import os
import platform
import subprocess
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

import tlbook as tl

N, D, K, RUNS = 10_000, 2_048, 100, 3
TOLERANCES = 1e-2, 1e-6


def made_features(seed=0):
    """Rectified features with a spectrum that decays, as those of a network do, and classes that differ in mean."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, N)
    latent = (rng.normal(size=(N, D)) + rng.normal(size=(K, D))[y]) / np.sqrt(1 + np.arange(D))
    mixing = rng.normal(size=(D, D)) / np.sqrt(D)
    return np.maximum(latent @ mixing + 0.01, 0).astype(np.float32), y


def loop_over_classes(X, y, tolerance):
    """Mean evidence an example over the classes, and the steps that it took."""
    F = torch.from_numpy(X).double()
    sigma, V = torch.linalg.eigh(F.T @ F)
    sigma = sigma.clamp_min(0)
    total, steps = 0.0, 0
    for k in range(K):
        target = torch.from_numpy(y == k).double()
        projected = V.T @ (F.T @ target)
        alpha = beta = 1.0
        while True:
            steps += 1
            m = V @ (beta * projected / (alpha + beta * sigma))
            gamma = (beta * sigma / (alpha + beta * sigma)).sum().item()
            norm, misfit = (m @ m).item(), ((F @ m - target) ** 2).sum().item()
            ratio, alpha, beta = alpha / beta, gamma / norm, (N - gamma) / misfit
            if abs(alpha / beta - ratio) <= tolerance * ratio:
                break
        m = V @ (beta * projected / (alpha + beta * sigma))
        norm, misfit = (m @ m).item(), ((F @ m - target) ** 2).sum().item()
        log_det = (alpha + beta * sigma).log().sum().item()
        evidence = D * np.log(alpha) + N * np.log(beta / 2 / np.pi) - beta * misfit - alpha * norm - log_det
        total += evidence / 2 / N
    return total / K, steps


def timed(function):
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    os.environ["TLBOOK_DEVICE"] = "cpu"  # the loop runs there
    X, y = made_features()
    tl.ranking.logme(X[:300], y[:300])  # what is loaded when first used is loaded now
    ours, loops = [], {tolerance: [] for tolerance in TOLERANCES}
    for _ in range(RUNS):  # in turn, so that a busy minute of the machine meets all
        ours.append(timed(lambda: tl.ranking.logme(X, y)))
        for tolerance, runs in loops.items():
            runs.append(timed(lambda tolerance=tolerance: loop_over_classes(X, y, tolerance)))
    seconds, value = float(np.median([s for s, _ in ours])), ours[0][1]
    rows = []
    for tolerance, runs in loops.items():
        (its_value, steps), median = runs[0][1], float(np.median([s for s, _ in runs]))
        rows.append(
            {
                "tolerance of the loop": tolerance,
                "seconds": median,
                "all seconds": [s for s, _ in runs],
                "steps": steps,
                "ratio": median / seconds,
                "LogME minus tlbook's": its_value - value,
            }
        )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    threads = os.environ.get("OMP_NUM_THREADS")
    result = {
        "command": (f"OMP_NUM_THREADS={threads} " if threads else "") + "python benchmarks/ranking.py",
        "commit": commit,
        "date": date.today().isoformat(),
        "hardware": f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        "load average": os.getloadavg()[0]
        if hasattr(os, "getloadavg")
        else None,  # above the cores: shared with others
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "size": {"examples": N, "features": D, "classes": K, "runs": RUNS},
        "tlbook": {"seconds": seconds, "all seconds": [s for s, _ in ours], "LogME": value},
        "loop over the classes": rows,
    }
    print(json.dumps(result, indent=1))
    target = Path(__file__).parent / "results" / "ranking.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
