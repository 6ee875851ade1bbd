"""The command's default on small data sets, beside its own probe, the PyTorch tutorial's loop and fastai.

    python benchmarks/own_data.py            # two hours on one core; goes on after the last row that is recorded
    python benchmarks/own_data.py --table    # the rows that are recorded, as a table

Every arm has the same weights (EfficientNet-Lite0), pixels and split, and may learn from all but the test part: auto
and the probe from train and val together; the tutorial's loop and fastai choose by val (the epoch; the learning rate),
as they are written. The test part is looked at once, by each. Signs and tiles need ``TLBOOK_MIRROR``; fastai is left
out where it is not installed. The sets are those of ``benchmarks/small_data.py``.
"""

import argparse
import importlib.util
import itertools
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import small_data
import torch
from record import about, kept

import tlbook as tl
from tlbook.data import Split

HERE = Path(__file__).parent
FITS, RESULT = HERE.parent / "build" / "own_data", HERE / "results" / "own_data.json"
DATA = ("digits", "tiles", "signs", "solar", "shapes", "colours")
LINES = {"auto": 1, "probe": 4, "tutorial": 38, "fastai": 12}  # that a user writes, from a folder to test scores
METRICS = ("accuracy", "auc", "log_loss")


def auto(data, split, seed, minutes):
    found = tl.finetune(tl.load_backbone(), data, split, recipe=tl.recipes.Auto(minutes=minutes), seed=seed)
    (row,) = (row for row in found.tried if row.kept)
    return found.predict(data.subset(split.test)), row.name


def probe(data, split, seed, minutes):
    features = tl.extract(tl.load_backbone(), data, precision="float32")
    rows = np.sort(np.concatenate([split.train, split.val]))
    fitted = tl.linear_probe(features, Split(rows, rows[:0], split.test), seed=seed)
    return fitted.predict_proba(features.X[split.test]), f"C = {fitted.C:.0e}"


def tutorial(data, split, seed, minutes):
    """PyTorch's transfer-learning tutorial: its transforms, optimizer, schedule and choice of the epoch."""
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    torch.manual_seed(seed)
    backbone = tl.load_backbone()
    model, K = backbone.model.to(memory_format=torch.contiguous_format), len(data.class_names)
    model.reset_classifier(K)
    side = data[0][0].shape[-1]
    tail = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(backbone.mean, backbone.std)]
    train = v2.Compose([v2.RandomResizedCrop(side), v2.RandomHorizontalFlip(), *tail])

    def loader(rows, seen, shuffle):
        def collate(batch):
            return torch.stack([seen(as_rgb(data, i)) for i in batch]), torch.tensor(data.labels[batch])

        return DataLoader(rows.tolist(), batch_size=4, shuffle=shuffle, collate_fn=collate)

    def predict(rows):
        model.eval()
        with torch.no_grad():
            batches = [model(x) for x, _ in loader(rows, v2.Compose(tail), False)]
        return torch.cat(batches).softmax(1).double().numpy()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, state = -1, None
    for epoch in range(25):
        model.train()
        for x, y in loader(split.train, train, True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        scheduler.step()
        accuracy = (predict(split.val).argmax(1) == data.labels[split.val]).mean()
        if accuracy > best:
            best, chosen, state = accuracy, epoch + 1, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return predict(split.test), f"epoch {chosen} of 25"


def fastai(data, split, seed, minutes):
    """fastai: vision_learner with the same weights and its own augmentations, lr_find, fine_tune.

    Its batches of 64 are two steps an epoch on 120 images, so they hold 16, and val chooses between 5 and 20 epochs.
    """
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        PILImage,
        aug_transforms,
        set_seed,
        vision_learner,
    )  # fmt: skip

    backbone, rows = tl.load_backbone(), np.concatenate([split.train, split.val])
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(len(data.class_names))))),
        get_x=lambda i: PILImage.create(as_rgb(data, i).permute(1, 2, 0).numpy()),
        get_y=lambda i: int(data.labels[i]),
        splitter=IndexSplitter(range(len(split.train), len(rows))),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(backbone.mean, backbone.std)],
    )
    tried = []
    for epochs in (5, 20):
        set_seed(seed)
        loaders = block.dataloaders(list(rows), bs=16 if len(split.train) < 1_000 else 64, num_workers=0)
        with tempfile.TemporaryDirectory() as folder:
            learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, normalize=False, path=folder)
            body = learner.model[0].model  # timm's network without its head
            body.load_state_dict(
                {k: v for k, v in backbone.model.state_dict().items() if not k.startswith("classifier")}
            )
            with learner.no_bar(), learner.no_logging():
                lr = float(learner.lr_find(show_plot=False).valley)
                learner.fine_tune(epochs, lr)
                loss = learner.validate()[0]
                p = learner.get_preds(dl=loaders.test_dl(list(split.test)))[0].double().numpy()
        tried.append((loss, p, f"{epochs} epochs, lr {lr:.1e}"))
    _, p, chose = min(tried, key=lambda row: row[0])
    return p / p.sum(1, keepdims=True), chose


def as_rgb(data, i):
    return data[i][0].expand(3, -1, -1)


ARMS = {"auto": auto, "probe": probe, "tutorial": tutorial, "fastai": fastai}


def fit(arm, data, split, seed, minutes):
    """The test probabilities of an arm, its seconds with an empty cache, and what it chose."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TLBOOK_CACHE"] = empty
        started = time.perf_counter()
        p, chose = ARMS[arm](data, split, seed, minutes)
        return {"seconds": round(time.perf_counter() - started, 1), "chose": chose, "p": p.round(6).tolist()}


def row_of(name, seed, data, split, fits):
    """Scores of each arm on the test part, and auto less each other, with the paired 95 % interval."""
    groups = None if data.groups is None else data.groups[split.test]
    scores = {
        arm: tl.evaluate(np.array(f["p"]) / np.sum(f["p"], 1, keepdims=True), data.labels[split.test], groups=groups)
        for arm, f in fits.items()
    }
    row = {"data": name, "seed": seed, "examples": [len(part) for part in split], "classes": len(data.class_names)}
    for arm, e in scores.items():
        row[arm] = {metric: round(getattr(e, metric), 4) for metric in METRICS}
        row[arm] |= {"seconds": fits[arm]["seconds"], "chose": fits[arm]["chose"]}
    for arm in scores.keys() - {"auto"}:
        for metric in METRICS:
            c = tl.compare(scores["auto"], scores[arm], metric=metric)
            row[arm][f"auto − it, {metric}"] = [round(float(v), 4) for v in (c.difference, *c.interval)]
    return row


def table(runs):
    """Of each set and arm: mean scores and seconds over seeds, and how often auto is clearly better or worse."""
    for name, side in dict.fromkeys((row["data"], row["side"]) for row in runs):
        rows = [row for row in runs if (row["data"], row["side"]) == (name, side)]
        print(f"{name}, {side} px: {len(rows)} seeds, {rows[0]['examples']} examples, {rows[0]['classes']} classes")
        for arm in (arm for arm in ARMS if arm in rows[0]):
            means = "  ".join(f"{m} {np.mean([row[arm][m] for row in rows]):.3f}" for m in METRICS)
            line = f"  {arm:<9} {means}  {np.median([row[arm]['seconds'] for row in rows]):6.1f} s"
            if arm != "auto":
                gaps = [row[arm]["auto − it, accuracy"] for row in rows]
                line += f"  auto better in {sum(g[1] > 0 for g in gaps)}, worse in {sum(g[2] < 0 for g in gaps)}"
            print(line)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--data", nargs="*", default=list(DATA))
    a.add_argument("--seeds", type=int, default=5)
    a.add_argument("--side", type=int, default=64)
    a.add_argument("--minutes", type=float, default=10)
    a.add_argument("--table", action="store_true")
    o = a.parse_args()
    record = {"lines that a user writes": LINES, "runs": json.loads(RESULT.read_text())["runs"]}
    recorded = {(row["data"], row["seed"], row["side"], row["minutes"]) for row in record["runs"]}
    arms = [arm for arm in ARMS if arm != "fastai" or importlib.util.find_spec("fastai")]
    for seed, name in itertools.product(range(o.seeds), o.data):
        if o.table or (name, seed, o.side, o.minutes) in recorded:
            continue
        data = small_data.dataset(name, seed, o.side)
        split = data.split(by="random" if data.groups is None else "group", seed=seed)
        place = FITS / f"{name}_{o.side}_{seed}_{o.minutes:g}"
        fits = {arm: kept(place / f"{arm}.json", partial(fit, arm, data, split, seed, o.minutes)) for arm in arms}
        made = about("python benchmarks/own_data.py")
        row = row_of(name, seed, data, split, fits) | {"side": o.side, "minutes": o.minutes, "made": made}
        record["runs"].append(row)
        RESULT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        table([row])
    table(record["runs"])


if __name__ == "__main__":
    main()
