"""Feature extraction and the linear probe, beside what a user would use instead, on the same images in one run.

    python benchmarks/feature_extraction.py

All extractors run EfficientNet-Lite0 with the same weights on the same 512 solar cells at 160 px and must agree on the
features. The forward pass and extract run five times in turn, the others three times; the best time counts.
"""

import json
import os
import platform
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

import tlbook as tl
from tlbook import device
from tlbook.probes import CS, fit_path

N, SIZE, BATCH = 512, 160, 32


def timed(function, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def in_turn(functions, repeats=5):
    """The best time of each, and what it returned; all run once before any runs again: a busy moment hits them all."""
    times, results = {name: [] for name in functions}, {}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds, results[name] = timed(function, 1)
            times[name].append(seconds)
    return {name: min(found) for name, found in times.items()}, list(results.values())


def bare(backbone, batch):
    """The forward pass alone, on a ready-made tensor, in the precision that extract chooses."""
    dtype = device.inference_dtype(backbone.device)
    with torch.inference_mode(), torch.autocast(backbone.device.type, dtype, enabled=dtype != torch.float32):
        for _ in range(N // BATCH):
            z = backbone.forward_head(backbone.forward_features(batch), pre_logits=True)
        return z.float().cpu()  # waits for the GPU


def kept(backbone, batch):
    """The same with the setting of the memory allocator that extract uses on a CPU."""
    with device.memory_kept(backbone.device):
        return bare(backbone, batch)


def tutorial(backbone, folder, workers):
    """The loop that tutorials teach: image files, a DataLoader, float32, the default memory layout."""
    transform = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(backbone.mean, backbone.std)]
    )
    loader = DataLoader(datasets.ImageFolder(folder, transform), batch_size=BATCH, num_workers=workers)
    model = backbone.to(memory_format=torch.contiguous_format)
    found = []
    with torch.no_grad():
        for x, _ in loader:
            found.append(model.forward_head(model.forward_features(x.to(model.device)), pre_logits=True).cpu())
    return torch.cat(found).numpy()


def fastai_features(backbone, folder):
    """fastai's data loaders and its get_preds, with the network's own features as the output."""
    from fastai.vision.all import ImageDataLoaders, Learner, Normalize

    files = sorted(Path(folder).rglob("*.png"))
    loaders = ImageDataLoaders.from_path_func(
        folder, files, lambda path: path.parent.name, valid_pct=0.1, bs=BATCH, num_workers=0,
        batch_tfms=Normalize.from_stats(backbone.mean, backbone.std),
    )  # fmt: skip
    body = torch.nn.Sequential(backbone.to(memory_format=torch.contiguous_format), torch.nn.Identity())
    body[0].forward = lambda x: backbone.forward_head(backbone.forward_features(x), pre_logits=True)
    learner = Learner(loaders, body, loss_func=torch.nn.MSELoss())
    with learner.no_bar():
        return learner.get_preds(dl=loaders.test_dl(files))[0].numpy()


def extraction():
    data = tl.data.solar_cells(SIZE).subset(range(N))
    backbone = tl.load_backbone()
    batch = backbone.prepare([data[i][0] for i in range(BATCH)])
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(N):
            path = Path(folder, "all", f"{i:05}.png")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(data[i][0][0].numpy()).convert("RGB").save(path)
        files = tl.data.from_dataset(datasets.ImageFolder(folder, v2.PILToTensor()))
        bare(backbone, batch)  # warm up
        rows, (_, _, ours, _) = in_turn(
            {
                "bare forward pass": lambda: bare(backbone, batch),
                "the same, memory kept": lambda: kept(backbone, batch),
                "tlbook.extract": lambda: tl.extract(backbone, data, cache=False, batch_size=BATCH).X,
                "tlbook.extract, image files": lambda: tl.extract(backbone, files, cache=False, batch_size=BATCH).X,
            }
        )
        workers = {w: timed(lambda w=w: tutorial(tl.load_backbone(), folder, w), 1) for w in (0, 1, os.cpu_count())}
        best = min(workers, key=lambda w: workers[w][0])
        rows[f"tutorial loop, {best} workers"], theirs = timed(lambda: tutorial(tl.load_backbone(), folder, best))
        assert np.allclose(ours, theirs, atol=1e-3)
        try:
            rows["fastai get_preds"], fast = timed(lambda: fastai_features(tl.load_backbone(), folder))
            assert np.allclose(ours, fast, atol=1e-2)
        except ImportError:
            print("fastai is not installed: pip install 'tlbook[bench]'")
    speed = {name: N / seconds for name, seconds in rows.items()}
    for name, value in speed.items():
        print(f"{name:<30} {value:7.1f} images/s   tlbook.extract / this: {speed['tlbook.extract'] / value:.2f}")
    return speed


def probe_path():
    """The whole grouped path of C, against scikit-learn's LogisticRegressionCV on the same folds."""
    data = tl.data.solar_cells(SIZE)
    backbone = tl.load_backbone()
    seconds = {}
    for stage in ("blocks.4", "final"):
        features = tl.extract(backbone, data, stages=tuple(backbone.stages)).select(stage)
        X, y, folds = np.asarray(features.X, dtype=np.float64), features.y, data.folds(4)

        def ours(X=X, y=y, folds=folds):
            for split in folds:
                list(fit_path(X[split.train], y[split.train], CS, tol=1e-4))

        def theirs(X=X, y=y, folds=folds):
            pairs = [(split.train, split.test) for split in folds]
            path = LogisticRegressionCV(
                Cs=CS,
                cv=pairs,
                tol=1e-4,
                max_iter=5000,
                scoring="neg_log_loss",
                refit=False,
                use_legacy_attributes=False,
            )
            path.fit(StandardScaler().fit_transform(X), y)

        seconds[stage] = {"tlbook": timed(ours, 1)[0], "scikit-learn": timed(theirs, 1)[0]}
        a, b = seconds[stage].values()
        print(
            f"path of {len(CS)} C, 4 panel folds, {stage}: tlbook {a:.1f} s, scikit-learn {b:.1f} s, ratio {b / a:.1f}"
        )
    return seconds


if __name__ == "__main__":
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {
        "command": "python benchmarks/feature_extraction.py",
        "commit": commit,
        "date": date.today().isoformat(),
        "hardware": f"{tl.device.describe()}, {os.cpu_count()} cores, {platform.machine()}",
        "images/s": extraction(),
        "probe path, seconds": probe_path(),
    }
    target = Path(__file__).parent / "results" / "feature_extraction.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
