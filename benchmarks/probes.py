"""The linear probe beside scikit-learn's LogisticRegressionCV: the same features, folds and path of C, in four shapes.

    python benchmarks/probes.py [shape ...]

The features are those of real cells (EfficientNet-Lite0 at 96 px); where more rows are asked for, each is a random mix
of three of them, plus a mean for its class, plus a little noise: their spectrum is kept. The two run in turn, three
times (`Shape.repeats`); the ratio is the median of the ratios of neighbours. Each run is a process of its own, which
reports its peak memory beyond that of the features. The two largest shapes are run once, on the stronger Cs only.
"""

import contextlib
import json
import os
import pickle
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

HERE = Path(__file__).parent


@dataclass
class Shape:
    N: int
    D: int
    K: int
    grouped: bool = False
    Cs: int = 15  # of the path, from strong to weak
    repeats: int = 3


SHAPES = {
    "1,600 × 1,280, 2 classes, groups": Shape(1600, 1280, 2, grouped=True),
    "3,000 × 768, 37 classes": Shape(3000, 768, 37),
    "10,000 × 2,048, 100 classes": Shape(10_000, 2048, 100, Cs=5, repeats=1),
    "50,000 × 1,280, 10 classes": Shape(50_000, 1280, 10, Cs=5, repeats=1),
}


def made_features(shape, seed=0):
    """(X float32, y, groups) of that shape."""
    import tlbook as tl

    backbone = tl.load_backbone()
    real = tl.extract(backbone, tl.data.solar_cells(96), stages=tuple(backbone.stages), precision="float32")
    X = np.asarray(real.select("final").X if shape.D <= 1280 else real.X, dtype=np.float64)
    if shape.grouped:
        return X[: shape.N, : shape.D].astype(np.float32), real.y[: shape.N], real.groups[: shape.N]
    rng = np.random.default_rng(seed)
    X = X[:, np.sort(rng.permutation(X.shape[1])[: shape.D])]
    X = (X - X.mean(0)) / (X.std(0) + 1e-9)
    y = rng.integers(0, shape.K, shape.N)
    means = 0.3 * X[rng.integers(0, len(X), shape.K)]
    made = np.empty((shape.N, shape.D), dtype=np.float32)
    for rows in np.array_split(np.arange(shape.N), 1 + shape.N // 5000):
        share = rng.dirichlet([0.5] * 3, len(rows))
        share /= np.sqrt((share**2).sum(1, keepdims=True))
        mixed = sum(share[:, [j]] * X[rng.integers(0, len(X), len(rows))] for j in range(3))
        made[rows] = means[y[rows]] + mixed + 0.1 * rng.normal(size=(len(rows), shape.D))
    return made, y, None


def run_ours(X, y, groups, Cs):
    from tlbook import probes
    from tlbook.data import Split
    from tlbook.feature_extraction import Features

    probes.CS = Cs
    rows = np.arange(len(y))
    features = Features(X, y, groups, {"made": slice(0, X.shape[1])})
    start = time.perf_counter()
    probe = probes.linear_probe(features, Split(rows, rows[:0], rows[:0]))
    seconds = time.perf_counter() - start
    _, mean, deviation = standardised(X)
    return seconds, probe.C, probe.coef * deviation, probe.intercept + probe.coef @ mean


def standardised(X):
    """Z, mean and deviation as tlbook takes them (float64): both sides shall solve one problem."""
    from tlbook.logistic import standardise

    return [tensor.cpu().numpy() for tensor in standardise(X)[:3]]


def run_theirs(X, y, groups, Cs, solver, dtype, jobs):
    from sklearn.linear_model import LogisticRegressionCV

    from tlbook.data import Dataset

    names = [str(k) for k in range(y.max() + 1)]
    folds = Dataset(y, y, names, groups).folds(4, by="random" if groups is None else "group", seed=0)
    start = time.perf_counter()
    Z = standardised(X)[0].astype(dtype)
    model = LogisticRegressionCV(
        Cs=Cs,
        cv=[(fold.train, fold.test) for fold in folds],
        scoring="neg_log_loss",
        solver=solver,
        tol=1e-4 if y.max() == 1 else 1e-5,  # at 1e-4 it ends 7e-5 above the optimum with 37 classes
        max_iter=5000,
        n_jobs=jobs,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    ).fit(Z, y)
    return time.perf_counter() - start, float(model.C_), model.coef_, model.intercept_


def objective(X, y, W, b, C):
    """f at W and b, which act on standardised features, in float64."""
    Z = standardised(X)[0]
    logits = Z @ W.T + b
    logits = np.hstack([np.zeros_like(logits), logits]) if len(W) == 1 else logits
    top = logits.max(1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return -C * log_p[np.arange(len(y)), y].sum() + 0.5 * (W**2).sum()


class PeakMemory(threading.Thread):
    """The most anonymous memory that this process and its children held, beyond what it holds now: in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.most, self.done = self.held(), 0, threading.Event()

    def held(self):
        me = psutil.Process()
        total = 0
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = process.memory_info()
                total += memory.rss - getattr(memory, "shared", 0)
        return total / 2**20

    def run(self):
        while not self.done.wait(0.05):
            self.most = max(self.most, self.held() - self.before)


def measure(folder, who, Cs, jobs):
    """In a process of its own: run one side, and write down what came out."""
    X, y, groups = pickle.loads(Path(folder, "data.pkl").read_bytes())
    import sklearn.linear_model  # noqa: F401
    import torch

    import tlbook.probes  # noqa: F401

    torch.zeros(2, 2) @ torch.zeros(2, 2)
    memory = PeakMemory()
    memory.start()
    if who == "ours":
        seconds, C, W, b = run_ours(X, y, groups, Cs)
    else:
        seconds, C, W, b = run_theirs(X, y, groups, Cs, *who.split(), jobs)
    memory.done.set()
    Path(folder, "out.pkl").write_bytes(pickle.dumps((seconds, C, W, b, memory.most)))


def in_process(folder, who, Cs, jobs=None):
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import probes; "
    code += f"probes.measure({str(folder)!r}, {who!r}, {list(Cs)!r}, {jobs!r})"
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    if jobs:
        env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env)
    return pickle.loads(Path(folder, "out.pkl").read_bytes())


def compare(shape):
    from tlbook.probes import CS

    with tempfile.TemporaryDirectory() as folder:
        X, y, groups = made_features(shape)
        Path(folder, "data.pkl").write_bytes(pickle.dumps((X, y, groups)))
        # scikit-learn's best setting is looked for on the four strongest C of the first shape only; the others take
        # lbfgs in float32, a process for each core, which is assumed and not searched for
        tried, best = {}, ("lbfgs float32", os.cpu_count())
        if shape.K == 2:
            settings = [(f"lbfgs {dtype}", jobs) for dtype in ("float64", "float32") for jobs in (None, os.cpu_count())]
            settings += [("newton-cholesky float64", None), ("newton-cg float64", None)]
            tried = {s: in_process(folder, s[0], CS[:4], s[1])[0] for s in settings}
            best = min(tried, key=tried.get)
        runs = {"tlbook": [], "scikit-learn": []}
        for _ in range(shape.repeats):
            runs["tlbook"].append(in_process(folder, "ours", CS[: shape.Cs]))
            runs["scikit-learn"].append(in_process(folder, best[0], CS[: shape.Cs], best[1]))
            print(*[f"{name} {found[-1][0]:.1f} s" for name, found in runs.items()], flush=True)
    C = runs["tlbook"][0][1]
    f = {name: objective(X, y, *found[0][2:4], C) for name, found in runs.items() if found[0][1] == C}
    seconds = {name: [round(run[0], 2) for run in found] for name, found in runs.items()}
    return {
        "C on the path": shape.Cs,
        "seconds": seconds,
        "ratio": round(float(np.median(np.divide(seconds["scikit-learn"], seconds["tlbook"]))), 2),
        "chosen C": {name: found[0][1] for name, found in runs.items()},
        "objective above the lower of both, relative": {name: v / min(f.values()) - 1 for name, v in f.items()},
        "peak memory beyond the features, MiB": {n: round(max(r[4] for r in found)) for n, found in runs.items()},
        "scikit-learn's setting": f"{best[0]}, n_jobs={best[1]}",
        "its settings tried, seconds for four C": {f"{a}, n_jobs={b}": round(t, 2) for (a, b), t in tried.items()},
    }


def hardware():
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"cpu": platform.processor(), "cores": os.cpu_count()}
    flags = set(re.search(r"flags\s*: (.*)", info)[1].split())
    name, model = re.search(r"model name\s*: (.*)", info)[1], re.search(r"model\s*: (.*)", info)[1]
    return {
        "cpu": f"{name}, model {model}",
        "cores": os.cpu_count(),
        "flags": sorted(flags & {"avx512f", "avx512_bf16", "amx_bf16"}),
        "other load": f"{os.getloadavg()[0]:.1f} processes at the start",
    }


if __name__ == "__main__":
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    target = HERE / "results" / "probes.json"
    known = json.loads(target.read_text())["shapes"] if target.exists() else {}
    result = {
        "command": "python benchmarks/probes.py",
        "commit": commit,
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": {name: version(name) for name in ("torch", "scikit-learn", "numpy", "scipy")},
        "shapes": known,
    }
    for name, shape in SHAPES.items():
        if not sys.argv[1:] or any(word in name for word in sys.argv[1:]):
            result["shapes"][name] = compare(shape)
            print(name, json.dumps(result["shapes"][name], indent=1, ensure_ascii=False), flush=True)
            target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
