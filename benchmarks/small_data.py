"""Does the default fine-tuning ever harm the probe that it starts from? Six small data sets, several seeds.

    python benchmarks/small_data.py            # the defaults, five seeds, as recorded
    python benchmarks/small_data.py --lr 3e-4 1e-4 3e-5 --seeds 3 --side 128   # other rates

Photographs (hands), scans (digits), surfaces (tiles), cells (solar) and drawings (two colours, two shapes). Signs and
tiles need ``TLBOOK_MIRROR``. Each run draws its own split; the test part is looked at once, after training.
"""

import argparse
import io
import json
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import tlbook as tl
from tlbook.data import Dataset


def few(labels, n, rng):
    """Rows of at most ``n`` examples of each class."""
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:n] for k in np.unique(labels)]))


def colours(rng):
    noise = [rng.integers(0, 90, (160, 160, 3)) for _ in range(40)]
    tint = [np.array([160, 0, 0]), np.array([0, 0, 160])]
    return [Image.fromarray((x + tint[i % 2]).astype(np.uint8)) for i, x in enumerate(noise)], np.arange(40) % 2, None


def shapes(rng):
    pictures = []
    for i in range(44):
        image = Image.fromarray(rng.integers(150, 255, (160, 160, 3)).astype(np.uint8))
        x, y, side = *rng.integers(10, 80, 2), rng.integers(35, 70)
        draw = ImageDraw.Draw(image).ellipse if i % 2 else ImageDraw.Draw(image).rectangle
        draw((int(x), int(y), int(x + side), int(y + side)), fill=tuple(map(int, rng.integers(0, 120, 3))))
        pictures.append(image)
    return pictures, np.arange(44) % 2, None


def digits(rng):
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = few(found.target, 20, rng)
    scaled = (found.images[rows] * 15.9).astype(np.uint8)
    return [Image.fromarray(x).resize((160, 160)) for x in scaled], found.target[rows], None


def from_tar(name, members, rng, n, group=None):
    path = Path(os.environ["TLBOOK_MIRROR"]) / name / "images.tar"
    with tarfile.open(path) as tar:
        files = sorted(m.name for m in tar.getmembers() if m.isfile() and m.name.lower().endswith((".jpg", ".png")))
        files = [f for f in files if members is None or f.split("/")[-2] in members]
        classes = sorted({f.split("/")[-2] for f in files})
        labels = np.array([classes.index(f.split("/")[-2]) for f in files])
        rows = few(labels, n, rng)
        pictures = [Image.open(io.BytesIO(tar.extractfile(files[i]).read())).convert("RGB") for i in rows]
    return pictures, labels[rows], None if group is None else group(files)[rows]


def signers(files):
    """Each showed 0 to 9 in turn, and files are numbered as they were taken: where the digit falls a new one begins.

    A small fall is two pictures out of turn. (Two signers whose pictures are mostly missing may count as one.)
    """
    number = [int("".join(c for c in Path(file).name if c.isdigit())) for file in files]
    digit, turn = np.array([int(Path(file).parent.name) for file in files]), np.argsort(number)
    groups = np.empty(len(files), dtype=int)
    groups[turn] = np.cumsum(np.diff(digit[turn], prepend=0) <= -4)
    return groups


def signs(rng):
    return from_tar("signs", None, rng, 20, signers)


def tiles(rng):
    return from_tar("tiles", None, rng, 30)


def solar(rng):
    data = tl.data.solar_cells(224)
    rows = np.flatnonzero(np.isin(data.groups, rng.permutation(44)[:16]))
    rows = rows[few(data.labels[rows], 90, rng)]
    return [Image.fromarray(data[i][0][0].numpy()) for i in rows], data.labels[rows], data.groups[rows]


SETS = {f.__name__: f for f in (colours, shapes, digits, signs, tiles, solar)}


def dataset(name, seed, side):
    pictures, labels, groups = SETS[name](np.random.default_rng(1000 + seed))
    if side:
        pictures = [
            torch.from_numpy(np.array(p.convert("RGB").resize((side, side)))).permute(2, 0, 1) for p in pictures
        ]
    return Dataset(pictures, labels, [str(k) for k in range(labels.max() + 1)], groups, name=name)


def run(name, seed, side, **options):
    data = dataset(name, seed, side)
    split = data.split(by="random" if data.groups is None else "group", seed=seed)
    started = time.perf_counter()
    found = tl.finetune(tl.load_backbone(), data, split, seed=seed, **options)
    seconds = time.perf_counter() - started
    tuned = found.evaluate(data, split.test)
    found.model.load_state_dict(found.start)
    probe = found.evaluate(data, split.test)
    row = {"data": name, "seed": seed, **options, "epoch": found.epoch, "seconds": round(seconds, 1)}
    for metric in ("accuracy", "auc", "log_loss"):
        c = tl.compare(tuned, probe, metric=metric)
        row[metric] = [round(float(v), 4) for v in (getattr(probe, metric), getattr(tuned, metric), *c.interval)]
    return row


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("--data", nargs="*", default=list(SETS))
    a.add_argument("--seeds", type=int, default=5)
    a.add_argument("--side", type=int, default=0)
    a.add_argument("--lr", type=float, nargs="*", default=[None])
    a.add_argument("--epochs", type=int, nargs="*", default=[None])
    a.add_argument("--augment", nargs="*", default=[None])
    a.add_argument("--recipe", nargs="*", default=["lp_ft"])
    a.add_argument("--out", default="")
    o = a.parse_args()
    rows = []
    for name in o.data:
        for seed in range(o.seeds):
            for lr in o.lr:
                for epochs in o.epochs:
                    for augment in o.augment:
                        for recipe in o.recipe:
                            options = {"recipe": recipe}
                            options |= {} if lr is None else {"lr": lr}
                            options |= {} if epochs is None else {"epochs": epochs}
                            options |= {} if augment is None else {"augment": None if augment == "none" else augment}
                            try:
                                row = run(name, seed, o.side, **options)
                            except RuntimeError as error:
                                row = {"data": name, "seed": seed, **options, "error": str(error)[:80]}
                            rows.append(row)
                            print(json.dumps(row), flush=True)
    if o.out:
        Path(o.out).write_text(
            json.dumps({"command": "python benchmarks/small_data.py", "runs": rows}, indent=1) + "\n"
        )
