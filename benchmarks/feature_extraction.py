"""Feature extraction beside what a user would use instead, on the same images in one run.

    python benchmarks/feature_extraction.py

All run EfficientNet-Lite0 with the same weights on real solar cells at 160 px and must agree on the features. Each way
runs once before any runs again, so that a busy moment hits them all; quoted are medians, and of ratios the median over
rounds with the smallest and the largest.
"""

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

import tlbook as tl
from tlbook import device
from tlbook.forward import Engine, Forward, Stages

SIZE, BATCH, ROUNDS = 160, 32, 2
FILES, READY = 512, 512  # image files, and examples in a pass over a ready tensor


def eager(backbone, batch):
    """PyTorch's forward pass alone, on a ready tensor, channels last, float32."""
    with torch.inference_mode():
        for _ in range(READY // BATCH):
            backbone.forward_stages(batch)
    return READY


def compiled(forward, batch):
    """The engine alone, on a ready tensor, as many batches in flight as it wants."""
    jobs = [forward.submit(batch) for _ in range(READY // BATCH)]
    for job in jobs:
        job.result()
    return READY


def extract(backbone, data, **options):
    found = tl.extract(backbone, data, cache=False, batch_size=BATCH, **options)
    return len(found.X)


def tutorial(backbone, folder, workers):
    """The loop that tutorials teach: image files, a DataLoader, float32, the default memory layout."""
    scale = v2.ToDtype(torch.float32, scale=True)
    transform = v2.Compose([v2.ToImage(), scale, v2.Normalize(backbone.mean, backbone.std)])
    loader = DataLoader(datasets.ImageFolder(folder, transform), batch_size=BATCH, num_workers=workers)
    model = backbone.to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        found = [model.forward_head(model.forward_features(x.to(model.device)), pre_logits=True) for x, _ in loader]
    return len(torch.cat(found))


def timm_inference(backbone, folder):
    """timm's loader with what its inference script sets on a CPU: channels last, prefetching, two workers."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=folder), (3, SIZE, SIZE), BATCH, use_prefetcher=False, mean=backbone.mean,
        std=backbone.std, crop_pct=1.0, num_workers=os.cpu_count(),
    )  # fmt: skip
    model = backbone.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return sum(
            len(model.forward_stages(x.contiguous(memory_format=torch.channels_last))["final"]) for x, _ in loader
        )


def fastai_features(backbone, folder):
    """fastai's data loaders and its get_preds, with the network's own features as the output."""
    from fastai.vision.all import ImageDataLoaders, Learner, Normalize

    files = sorted(Path(folder).rglob("*.jpg"))
    loaders = ImageDataLoaders.from_path_func(
        folder, files, lambda path: path.parent.name, valid_pct=0.1, bs=BATCH, num_workers=0,
        batch_tfms=Normalize.from_stats(backbone.mean, backbone.std),
    )  # fmt: skip
    body = torch.nn.Sequential(backbone.to(memory_format=torch.contiguous_format), torch.nn.Identity())
    body[0].forward = lambda x: backbone.forward_head(backbone.forward_features(x), pre_logits=True)
    learner = Learner(loaders, body, loss_func=torch.nn.MSELoss())
    with learner.no_bar():
        return len(learner.get_preds(dl=loaders.test_dl(files))[0])


def write_files(folder, data):
    for i in range(FILES):
        path = Path(folder, "ab"[i % 2], f"{i:05}.jpg")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(data[i][0][0].numpy()).convert("RGB").save(path, quality=95)


def ways(backbone, data, folder):
    """{name: function that returns how many images it did}"""
    batch = backbone.prepare([data[i][0] for i in range(BATCH)])
    files = tl.data.image_folder(folder)
    backbone.set_input_size(SIZE, SIZE)  # the files are of this size: no way resizes
    found = {"PyTorch, ready tensor": lambda: eager(backbone, batch)}
    for name in ("float32", "bfloat16"):
        engine = Forward(Stages(backbone, ("final",)), Engine("openvino", getattr(torch, name)))
        found[f"OpenVINO {name}, ready tensor"] = lambda engine=engine: compiled(engine, batch)
        found[f"tl.extract {name}"] = lambda name=name: extract(backbone, data, precision=name)
        found[f"tl.extract {name}, JPEG files"] = lambda name=name: extract(backbone, files, precision=name)
    found["tutorial loop, JPEG files"] = lambda: tutorial(tl.load_backbone(), folder, os.cpu_count())
    found["timm loader, JPEG files"] = lambda: timm_inference(tl.load_backbone(), folder)
    found["fastai get_preds, JPEG files"] = lambda: fastai_features(tl.load_backbone(), folder)
    return found


def measure():
    data, backbone = tl.data.solar_cells(SIZE), tl.load_backbone()
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, data)
        found = ways(backbone, data, folder)
        speed = {name: [] for name in found}
        for round_ in range(ROUNDS + 1):  # the first one warms up
            for name, way in list(found.items()):
                start = time.perf_counter()
                try:
                    images = way()
                except ImportError as error:
                    print(f"left out: {name} ({error})")
                    del found[name], speed[name]
                    continue
                if round_:
                    speed[name].append(images / (time.perf_counter() - start))
    return speed


def ratios(speed):
    """{what is compared: [median, smallest, largest] over rounds}"""
    pairs = {
        f"tl.extract {p} / {of}": (f"tl.extract {p}", of)
        for p in ("float32", "bfloat16")
        for of in (f"OpenVINO {p}, ready tensor", "PyTorch, ready tensor")
    }
    for p in ("float32", "bfloat16"):
        for of in speed:
            if "JPEG" in of and "tl.extract" not in of:
                pairs[f"tl.extract {p}, JPEG files / {of}"] = (f"tl.extract {p}, JPEG files", of)
    found = {}
    for name, (a, b) in pairs.items():
        each = [x / y for x, y in zip(speed[a], speed[b], strict=True)]
        found[name] = [round(v, 2) for v in (statistics.median(each), min(each), max(each))]
    return found


def agreement():
    """How far the features of the two precisions are from the plain pass, and what bfloat16 does to lesson 00's AUC."""
    data, backbone = tl.data.solar_cells(SIZE), tl.load_backbone()
    split, auc = data.split(seed=0), {}
    with torch.inference_mode(), device.memory_kept():
        plain = np.concatenate(
            [
                backbone.forward_stages(backbone.prepare([data[j][0] for j in range(i, min(i + 32, len(data)))]))[
                    "final"
                ]
                for i in range(0, len(data), 32)
            ]
        )
    apart = {}
    for name in ("float32", "bfloat16"):
        features = tl.extract(backbone, data, precision=name)
        apart[name] = float(np.linalg.norm(features.X - plain) / np.linalg.norm(plain))
        auc[name] = tl.linear_probe(features, split).evaluate(features, split.test).auc
    return {"relative distance to the plain pass": apart, "AUC of lesson 00's probe": auc}


if __name__ == "__main__":
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = next((line for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    speed = measure()
    result = {
        "command": "python benchmarks/feature_extraction.py",
        "commit": commit,
        "date": date.today().isoformat(),
        "hardware": f"{cpu.split(':')[-1].strip()}, {os.cpu_count()} cores, {tl.device.describe()['precision']}",
        "versions": {name: version(name) for name in ("torch", "timm", "openvino", "fastai") if find_spec(name)},
        "load before": os.getloadavg()[0],
        "images/s, median": {name: round(statistics.median(values), 1) for name, values in speed.items()},
        "images/s, rounds": {name: [round(v, 1) for v in values] for name, values in speed.items()},
        "ratios, median, smallest, largest": ratios(speed),
        "agreement": agreement(),
    }
    target = Path(__file__).parent / "results" / "feature_extraction.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
