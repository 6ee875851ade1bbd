"""Fine-tuning beside a published number, and how fast it is beside what a user would use instead.

    python benchmarks/fine_tuning.py paper      # one run under the split and the weights of Deitsch et al. (2019)
    python benchmarks/fine_tuning.py peers      # seconds to a validation AUC, beside PyTorch's tutorial and fastai

Each writes benchmarks/results/fine_tuning_<name>.json. The peers run as each project documents its recipe, so they do
not do the same work: what is compared is how long a user of each waits for the same validation AUC. Fits of `peers` are
kept in build/fine_tuning as they end, so that a run that was cut goes on later: remove that folder to start anew.
"""

import json
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from record import about, kept

import tlbook as tl
from tlbook.course.runner import anonymous_memory
from tlbook.training.recipes import LPFT, Full

HERE = Path(__file__).parent
FITS = HERE.parent / "build" / "fine_tuning"


def file_of(name):
    return FITS / f"{name}.json"


def write(name, **found):
    found = about(f"python benchmarks/fine_tuning.py {name}") | found
    target = HERE / "results" / f"fine_tuning_{name}.json"
    target.write_text(json.dumps(found, indent=1) + "\n")
    print("written:", target)


# Beside the paper


def paper():
    """Unsure cells count as defective, weighted by their probability; a stratified random 75/25 split; 224 px."""
    cells = tl.data.solar_cells(224)
    p = cells.columns["probability"]
    defective = (p > 0).astype(int)
    weight = np.where(p > 0, p, 1.0)
    data = tl.data.Dataset(cells.inputs, defective, cells.class_names, cells.groups)
    split = data.split(by="random", seed=0)
    start = time.perf_counter()
    objective = tl.Objective(sample_weight=weight)
    found = tl.finetune(
        tl.load_backbone(),
        data,
        split,
        recipe=LPFT(until="blocks.1"),
        objective=objective,
        epochs=8,
        augment="dihedral",
    )
    q, y, w, groups = found.predict(data.subset(split.test)), defective[split.test], weight[split.test], data.groups
    e = tl.evaluate(
        q, y, groups=groups[split.test], sample_weight=w, reference=(defective[split.train], groups[split.train])
    )
    print(e)
    write(
        "paper",
        size=224,
        accuracy=e.accuracy,
        interval=e.interval["accuracy"],
        auc=e.auc,
        baselines=e.baselines,
        epoch=found.epoch,
        seconds=time.perf_counter() - start,
        paper=0.8842,
    )


# Beside the PyTorch tutorial's loop and fastai

PEER_SIZE, SEEDS = 128, 3
TARGETS, SECONDS = (0.70, 0.75, 0.80, 0.85), "seconds to validation AUC"


class Watch:
    """Seconds since the start without what is spent here on judging; the test AUC where validation was best."""

    def __init__(self, data, split):
        self.data, self.split, self.rows, self.paid, self.start = data, split, [], 0.0, time.perf_counter()

    def __call__(self, predict):
        """``predict``: index -> (N, 2) probabilities."""
        begin = time.perf_counter()
        aucs = [
            tl.evaluate(predict(index), self.data.labels[index], resamples=1).auc
            for index in (self.split.val, self.split.test)
        ]
        seconds = begin - self.start - self.paid
        self.rows.append({"seconds": seconds, "val": aucs[0], "test": aucs[1]})
        self.paid += time.perf_counter() - begin
        print("   ", {k: round(v, 3) for k, v in self.rows[-1].items()}, flush=True)


def ours(data, split, seed, watch):
    """tlbook: LP-FT of the last stages on a stored prefix. Its own judging on val each epoch is counted."""
    found = tl.finetune(
        tl.load_backbone(), data, split, recipe=LPFT(until="blocks.3"), epochs=5, augment="flips", seed=seed
    )
    left = time.perf_counter() - watch.start  # less what was still to come at the end of each epoch
    test = found.evaluate(data, split.test).auc  # of the weights that are kept
    for row in reversed(found.history[1:]):  # not the probe that it starts from, though its AUC may do
        watch.rows.insert(0, {"seconds": left, "val": row["val AUC"], "test": test})
        left -= row["seconds"]
    print("   ", [{k: round(v, 3) for k, v in row.items()} for row in watch.rows], flush=True)


def as_rgb(data, i):
    return data[i][0].expand(3, -1, -1)


def tutorial(data, split, seed, watch):
    """The fine-tuning loop of PyTorch's transfer-learning tutorial, with its transforms, optimizer and batch size."""
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    torch.manual_seed(seed)
    backbone = tl.load_backbone()
    model = backbone.model.to(memory_format=torch.contiguous_format)
    model.reset_classifier(2)
    tail = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(backbone.mean, backbone.std)]
    seen = {
        "train": v2.Compose([v2.RandomResizedCrop(PEER_SIZE), v2.RandomHorizontalFlip(), *tail]),
        "val": v2.Compose(tail),
    }

    def loader(index, phase):
        pairs = [(i, int(data.labels[i])) for i in index]
        collate = lambda batch: (  # noqa: E731
            torch.stack([seen[phase](as_rgb(data, i)) for i, _ in batch]),
            torch.tensor([y for _, y in batch]),
        )
        return DataLoader(pairs, batch_size=4, shuffle=phase == "train", collate_fn=collate)

    def predict(index):
        model.eval()
        with torch.no_grad():
            return torch.cat([model(x) for x, _ in loader(index, "val")]).softmax(1).double().numpy()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    for _ in range(5):
        model.train()
        for x, y in loader(split.train, "train"):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        scheduler.step()
        watch(predict)


def fastai(data, split, seed, watch):
    """fastai: vision_learner with the same weights, its default augmentations, and fine_tune."""
    from fastai.vision.all import (
        Callback,
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

    set_seed(seed)
    backbone = tl.load_backbone()
    rows = np.concatenate([split.train, split.val])
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=[0, 1])),
        get_x=lambda i: PILImage.create(as_rgb(data, i).permute(1, 2, 0).numpy()),
        get_y=lambda i: int(data.labels[i]),
        splitter=IndexSplitter(range(len(split.train), len(rows))),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(backbone.mean, backbone.std)],
    )
    loaders = block.dataloaders(list(rows), bs=64, num_workers=0)
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, normalize=False)
    body = learner.model[0].model  # timm's network without its head
    weights = {k: v for k, v in backbone.model.state_dict().items() if not k.startswith("classifier")}
    body.load_state_dict(weights)

    def predict(index):
        with learner.no_bar(), learner.no_logging():
            return learner.get_preds(dl=loaders.test_dl(list(index)))[0].double().numpy()

    class Judge(Callback):
        def after_epoch(self):
            if not hasattr(self.learn, "gather_preds"):
                self.learn.model.eval()
                with torch.no_grad():
                    watch(self.look)

        def look(self, index):
            found = [self.learn.model(x[0]).softmax(1) for x in loaders.test_dl(list(index))]
            return torch.cat(found).double().numpy()

    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(3, cbs=Judge())


def one(which, seed, out):
    """One run in a process of its own and with an empty cache, with its peak memory."""
    peak, done = [0], threading.Event()

    def sample():
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous_memory(os.getpid()))

    with tempfile.TemporaryDirectory() as empty:
        os.environ["TLBOOK_CACHE"] = empty
        data = tl.data.solar_cells(PEER_SIZE)
        split = data.split(seed=0)
        threading.Thread(target=sample, daemon=True).start()
        watch = Watch(data, split)
        {"tlbook": ours, "tutorial": tutorial, "fastai": fastai}[which](data, split, seed, watch)
        done.set()
    out.put({"rows": watch.rows, "peak MB": peak[0] / 2**20})


def apart(which, seed):
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=one, args=(which, seed, out))
    process.start()
    found = out.get()
    process.join()
    return found


def speed():
    """Images/s of fine-tuning everything, beside forward, backward and step alone on a batch that is ready."""
    data = tl.data.solar_cells(PEER_SIZE).subset(range(512))
    everything = np.arange(512)
    split = tl.data.Split(everything, everything[:0], everything[:0])

    def bare(memory):
        model = tl.load_backbone()
        model.model.reset_classifier(2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        x, y = model.prepare([data[i][0] for i in range(32)]), torch.tensor(data.labels[:32])
        model.train()
        with memory():
            start = time.perf_counter()
            for _ in range(16):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            return 512 / (time.perf_counter() - start)

    def finetune():
        found = tl.finetune(tl.load_backbone(), data, split, recipe="full", epochs=1, lr=1e-5, augment="flips")
        return 512 / found.history[1]["seconds"]

    found = {"bare forward, backward, step": [], "the same, memory kept": [], "tlbook.finetune": []}
    for _ in range(3):
        for name, run in zip(
            found, (lambda: bare(nullcontext), lambda: bare(tl.device.memory_kept), finetune), strict=True
        ):
            found[name].append(run())
    return {name: max(values) for name, values in found.items()}


def prefix():
    """The frozen prefix stored once, or computed anew: seconds, and how far the weights are apart."""
    data = tl.data.solar_cells(PEER_SIZE)
    split = data.split(seed=0)
    seconds, weights = {}, {}
    for store in (True, False):
        start = time.perf_counter()
        found = tl.finetune(
            tl.load_backbone(),
            data,
            split,
            recipe=Full(until="blocks.3"),
            epochs=8,
            augment="flips",
            store_prefix=store,
        )
        seconds["stored" if store else "computed anew"] = time.perf_counter() - start
        weights[store] = found.model.state_dict()
    apart = max(float((weights[True][k].double() - v.double()).abs().max()) for k, v in weights[False].items())
    return seconds | {"ratio": seconds["computed anew"] / seconds["stored"], "weights apart": apart}


def peers():
    found = {"images/s": kept(file_of("speed"), speed), "frozen prefix, 8 epochs": kept(file_of("prefix"), prefix)}
    print(found, flush=True)
    runs = {}
    for seed in range(SEEDS):
        for which in ("tlbook", "tutorial", "fastai"):
            print(which, seed, flush=True)
            runs.setdefault(which, []).append(
                kept(file_of(f"peer-{which}-{seed}"), lambda w=which, s=seed: apart(w, s))
            )
    summary = {}
    for which, of in runs.items():
        times = {
            str(target): [next((row["seconds"] for row in run["rows"] if row["val"] >= target), None) for run in of]
            for target in TARGETS
        }
        tests = [max(run["rows"], key=lambda row: row["val"])["test"] for run in of]
        summary[which] = {
            SECONDS: times,  # None: not within its epochs
            "test AUC": tests,  # tlbook: of the epoch with the lowest validation loss; the others: with the best AUC
            "peak MB": max(run["peak MB"] for run in of),
        }
        print(which, summary[which])
    medians = {
        which: {t: float(np.median([math.inf if s is None else s for s in of])) for t, of in row[SECONDS].items()}
        for which, row in summary.items()
    }
    ratios = {t: min(medians["tutorial"][t], medians["fastai"][t]) / s for t, s in medians["tlbook"].items()}
    ratios = {t: r if math.isfinite(r) else "not reached by the others in most runs" for t, r in ratios.items()}
    print("median seconds of the faster of the others / tlbook's:", ratios)
    write("peers", size=PEER_SIZE, summary=summary, ratios=ratios, runs=runs, **found)


if __name__ == "__main__":
    {"paper": paper, "peers": peers}[sys.argv[1]]()
