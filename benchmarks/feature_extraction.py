"""Feature extraction beside what a user would use instead, on the same images in one run.

    python benchmarks/feature_extraction.py

All run EfficientNet-Lite0 with the same weights at 160 px: on real solar cells, as tensors and as JPEG files of that
size, and on JPEG files of 12 megapixels (one photograph enlarged, with noise: for speed alone). tlbook's time with
files counts `tl.data.image_folder`, which looks at each before. Each way runs once before any runs again, so that a
busy moment hits them all; quoted are medians, and of ratios the median over rounds with the smallest and the largest.
A last round runs beside a program that keeps one core busy.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
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
FILES, PHOTOGRAPHS, READY = 1024, 48, 1024  # files of either kind, and examples in a pass over a ready tensor


def eager(backbone, batch):
    """PyTorch's forward pass alone, on a ready tensor, its weights channels last, float32."""
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


def extract_files(folder, **options):
    """What a user of tlbook waits for: every file is looked at, then its features are computed."""
    backbone = tl.load_backbone()
    backbone.set_input_size(SIZE, SIZE)
    return extract(backbone, tl.data.image_folder(folder), **options)


def tutorial(folder):
    """The loop that tutorials teach: image files, a DataLoader, float32, the default memory layout."""
    backbone = tl.load_backbone()
    sized = [v2.ToImage(), v2.Resize(SIZE), v2.CenterCrop(SIZE)]
    transform = v2.Compose([*sized, v2.ToDtype(torch.float32, scale=True), v2.Normalize(backbone.mean, backbone.std)])
    loader = DataLoader(datasets.ImageFolder(folder, transform), batch_size=BATCH, num_workers=os.cpu_count())
    model = backbone.to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        found = [model.forward_head(model.forward_features(x.to(model.device)), pre_logits=True) for x, _ in loader]
    return len(torch.cat(found))


def timm_inference(folder):
    """timm's loader with what its inference script sets on a CPU: channels last, prefetching, two workers."""
    from timm.data import create_dataset, create_loader

    backbone = tl.load_backbone()
    loader = create_loader(
        create_dataset("", root=folder), (3, SIZE, SIZE), BATCH, use_prefetcher=False, mean=backbone.mean,
        std=backbone.std, crop_pct=1.0, num_workers=os.cpu_count(),
    )  # fmt: skip
    model = backbone.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return sum(
            len(model.forward_stages(x.contiguous(memory_format=torch.channels_last))["final"]) for x, _ in loader
        )


def fastai_features(folder):
    """fastai's data loaders and its get_preds, with the network's own features as the output."""
    from fastai.vision.all import ImageDataLoaders, Learner, Normalize, Resize

    backbone = tl.load_backbone()
    files = sorted(Path(folder).rglob("*.jpg"))
    loaders = ImageDataLoaders.from_path_func(
        folder, files, lambda path: path.parent.name, valid_pct=0.1, bs=BATCH, num_workers=0, item_tfms=Resize(SIZE),
        batch_tfms=Normalize.from_stats(backbone.mean, backbone.std),
    )  # fmt: skip
    body = torch.nn.Sequential(backbone.to(memory_format=torch.contiguous_format), torch.nn.Identity())
    body[0].forward = lambda x: backbone.forward_head(backbone.forward_features(x), pre_logits=True)
    learner = Learner(loaders, body, loss_func=torch.nn.MSELoss())
    with learner.no_bar():
        return len(learner.get_preds(dl=loaders.test_dl(files))[0])


def pipeline_features(folder):
    """Hugging Face's image-feature-extraction pipeline, pooled; one image at a time was its best setting here."""
    from transformers import TimmWrapperConfig, TimmWrapperImageProcessor, TimmWrapperModel, pipeline

    backbone, architecture = tl.load_backbone(), "tf_efficientnet_lite0"
    model = TimmWrapperModel(TimmWrapperConfig(architecture=architecture)).eval()
    own = model.timm_model.state_dict()
    model.timm_model.load_state_dict({name: backbone.model.state_dict()[name] for name in own})
    shown = {key: getattr(backbone, key) for key in ("mean", "std", "interpolation")}
    shown |= {"input_size": (3, SIZE, SIZE), "crop_pct": 1.0}
    processor = TimmWrapperImageProcessor(pretrained_cfg=shown, architecture=architecture)
    run = pipeline("image-feature-extraction", model=model, image_processor=processor, pool=True)
    return len(run([str(path) for path in Path(folder).rglob("*.jpg")]))


PEERS = {
    "tutorial loop": tutorial,
    "timm loader": timm_inference,
    "fastai get_preds": fastai_features,
    "Hugging Face pipeline": pipeline_features,
}
KINDS = ("JPEG files", "12-megapixel JPEG files")


def write_files(folder, data):
    """The first cells as JPEG files in two folders."""
    for i in range(FILES):
        path = Path(folder, "ab"[i % 2], f"{i:05}.jpg")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(data[i][0][0].numpy()).convert("RGB").save(path, quality=95)


def write_photographs(folder):
    """Files of 4,000 × 3,000 pixels and about 3 MB: a real photograph enlarged, each with noise of its own."""
    from sklearn.datasets import load_sample_image

    whole = Image.fromarray(load_sample_image("china.jpg")).resize((4000, 3000), Image.Resampling.BICUBIC)
    pixels, rng = np.asarray(whole).astype(np.int16), np.random.default_rng(0)
    for i in range(PHOTOGRAPHS):
        path = Path(folder, "ab"[i % 2], f"{i:05}.jpg")
        path.parent.mkdir(exist_ok=True)
        noise = rng.normal(0, 6, pixels.shape).astype(np.int16)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path, quality=92)


def ways(backbone, data, folders):
    """{name: function that returns how many images it did}"""
    batch = backbone.prepare([data[i][0] for i in range(BATCH)])
    found = {"PyTorch, ready tensor": lambda: eager(backbone, batch)}
    for name in ("float32", "bfloat16"):
        engine = Forward(Stages(backbone, ("final",)), Engine("openvino", getattr(torch, name)))
        found[f"OpenVINO {name}, ready tensor"] = lambda engine=engine: compiled(engine, batch)
        found[f"tl.extract {name}"] = lambda name=name: extract(backbone, data, precision=name)
        for kind, folder in folders.items():
            found[f"tl.extract {name}, {kind}"] = lambda name=name, folder=folder: extract_files(folder, precision=name)
    for kind, folder in folders.items():
        for peer, run in PEERS.items():
            found[f"{peer}, {kind}"] = lambda run=run, folder=folder: run(folder)
    return found


def measure():
    data, backbone = tl.data.solar_cells(SIZE), tl.load_backbone()
    with tempfile.TemporaryDirectory() as cells, tempfile.TemporaryDirectory() as photographs:
        write_files(cells, data)
        write_photographs(photographs)
        found = ways(backbone, data, dict(zip(KINDS, (cells, photographs), strict=True)))
        available = {name: way for name, way in found.items() if warmed_up(name, way)}
        idle = timed(available, ROUNDS)
        with busy_neighbour():
            return idle, timed(available, 1)


def warmed_up(name, way):
    try:
        way()
    except ImportError as error:
        print(f"left out: {name} ({error})")
        return False
    return True


def timed(ways, rounds):
    """{name: images/s in each round}"""
    speed = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            images = way()
            speed[name].append(images / (time.perf_counter() - start))
    return speed


@contextmanager
def busy_neighbour():
    """Another program that always computes, on one core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ratios(speed):
    """{what is compared: [median, smallest, largest] over rounds}"""
    pairs = {
        f"tl.extract {p} / {of}": (f"tl.extract {p}", of)
        for p in ("float32", "bfloat16")
        for of in (f"OpenVINO {p}, ready tensor", "PyTorch, ready tensor")
    }
    for p in ("float32", "bfloat16"):
        for kind in KINDS:
            for peer in PEERS:
                if f"{peer}, {kind}" in speed:
                    pairs[f"tl.extract {p} / {peer}, {kind}"] = (f"tl.extract {p}, {kind}", f"{peer}, {kind}")
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
    idle, busy = measure()
    peers = ("torch", "timm", "openvino", "fastai", "transformers")
    result = {
        "command": "python benchmarks/feature_extraction.py",
        "commit": commit,
        "date": date.today().isoformat(),
        "hardware": f"{cpu.split(':')[-1].strip()}, {os.cpu_count()} cores, {tl.device.describe()['precision']}",
        "versions": {name: version(name) for name in peers if find_spec(name)},
        "load before": os.getloadavg()[0],
        "images/s, median": {name: round(statistics.median(values), 1) for name, values in idle.items()},
        "images/s, rounds": {name: [round(v, 1) for v in values] for name, values in idle.items()},
        "ratios, median, smallest, largest": ratios(idle),
        "images/s beside a busy neighbour": {name: round(values[0], 1) for name, values in busy.items()},
        "ratios beside a busy neighbour": {name: middle for name, (middle, _, _) in ratios(busy).items()},
        "agreement": agreement(),
    }
    target = Path(__file__).parent / "results" / "feature_extraction.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
