"""Fine-tuning beside a published number, and how fast it is beside what a user would use instead.

    python benchmarks/fine_tuning.py paper               # one run under the split and weights of Deitsch et al. (2019)
    python benchmarks/fine_tuning.py peers               # seconds to the same test AUC, beside three peers: two hours
    python benchmarks/fine_tuning.py peers solar         # the fits on a set alone, for processes side by side

Each writes benchmarks/results/fine_tuning_<name>.json.

The peers are the loop of PyTorch's transfer-learning tutorial, fastai's ``fine_tune`` and timm's training script, with
the optimizers, schedules and augmentations that they document; the tutorial's and timm's epochs are fewer (10 of 25; 10
of 300, one of warm-up in place of five), and timm's batches smaller (32), with the rate that the script makes of that.
All see the same images, weights and folds, in which every solar panel and every signer is held out once, and all choose
the same way: of three learning rates (a third of the documented one, that one, three times it) the one with the lowest
loss on validation groups of the training part, with the first seed; the second seed takes it over. That loss chooses
the epoch, too.

Two fits that end at different AUCs are compared at the lower of the two: how many seconds does each need to be as good
on the test part, for the first time, as the worse of them is in the end? Both are known once an epoch only. What is
spent on judging is not counted, but for the validation that `tlbook.finetune` and fastai do themselves; nor are
imports. The seconds of the probe that LP-FT starts from count, but its AUC is not taken for that of a fine-tuning. Test
labels choose nothing; they only say when a fit was as good as the other.

What that cannot show: which library is faster. Recipes are compared, on one core, of one small network; LP-FT's rate
was once chosen on sets that these two belong to (``small_data.py``), and validation on a few panels chooses badly.

The record was made on two cores, a set on each: ``OMP_NUM_THREADS=1 taskset -c 0 python … peers solar``, and signs on
core 1; the last call, alone, adds images/s of a step beside the bare one, and what storing a frozen prefix saves.

Fits of `peers` are kept in build/fine_tuning as they end, so that a run that was cut goes on later: remove that folder
to start anew. Signs need ``TLBOOK_MIRROR``.
"""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import small_data
import torch
from record import about, kept
from torch.utils.data import DataLoader

import tlbook as tl
from tlbook.course.runner import anonymous_memory
from tlbook.training.recipes import LPFT, Full
from tlbook.training.run import Run

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


# Beside what a user would use instead

SIZE, SEEDS, FOLDS = 64, (0, 1), 2
RATES = {"tlbook": LPFT.lr, "tutorial": 1e-3, "fastai": 2e-3, "timm": 0.1 * 32 / 256}  # as documented


def solar():
    return tl.data.solar_cells(SIZE)


def signs():
    """2,062 photographs of hands that show a digit, by 208 signers."""
    pictures, labels, groups = small_data.from_tar("signs", None, np.random.default_rng(0), 10_000, small_data.signers)
    images = [torch.from_numpy(np.array(x.resize((SIZE, SIZE)))).permute(2, 0, 1) for x in pictures]
    return tl.data.Dataset(images, labels, [str(k) for k in range(10)], groups)


SETS = {"solar": solar, "signs": signs}


class Watch:
    """After each epoch: seconds since the start, without what is spent here on judging, and what val and test say."""

    def __init__(self, data, split):
        self.data, self.split, self.rows, self.paid, self.start = data, split, [], 0.0, time.perf_counter()

    def __call__(self, predict):
        """``predict``: index -> (N, K) probabilities."""
        begin = time.perf_counter()
        row = {"seconds": begin - self.start - self.paid}
        for part in ("val", "test"):
            index = getattr(self.split, part)
            found = tl.evaluate(predict(index), self.data.labels[index], resamples=1)
            row |= {f"{part} loss": found.log_loss, f"{part} AUC": found.auc}
        self.rows.append(row)
        self.paid += time.perf_counter() - begin


def ours(data, split, lr, seed, watch):
    """tlbook: LP-FT of the last stages on a stored prefix, five epochs; cells are flipped, hands have one way up."""
    judged = Run.validate

    def validate(run, epoch):
        judged(run, epoch)
        if epoch:  # 0 is the probe
            watch(run._probabilities)

    Run.validate = validate
    how = {"recipe": LPFT(until="blocks.3"), "augment": "flips" if len(data.class_names) == 2 else None}
    found = tl.finetune(tl.load_backbone(), data, split, lr=lr, seed=seed, **how)
    return {"epoch kept": found.epoch, "test AUC of what is returned": found.evaluate(data, split.test).auc}


def as_rgb(data, i):
    return data[i][0].expand(3, -1, -1)


class Loader:
    """Batches of a part of the data, each image seen through ``view``; an epoch of a PyTorch DataLoader."""

    def __init__(self, data, view, batch_size, drop_last=False):
        self.data, self.view, self.batch_size, self.drop_last = data, view, batch_size, drop_last

    def __call__(self, index, shuffle=False):
        def collate(rows):
            return torch.stack([self.view(as_rgb(self.data, i)) for i in rows]), torch.tensor(self.data.labels[rows])

        rows = index.tolist()
        return DataLoader(rows, self.batch_size, shuffle=shuffle, collate_fn=collate, drop_last=self.drop_last)


def with_new_head(data):
    backbone = tl.load_backbone()
    model = backbone.model.to(memory_format=torch.contiguous_format)
    model.reset_classifier(len(data.class_names))
    return model, backbone.mean, backbone.std


def judged_by(model, loader):
    def predict(index):
        model.eval()
        with torch.no_grad():
            return torch.cat([model(x) for x, _ in loader(index)]).softmax(1).double().numpy()

    return predict


def tutorial(data, split, lr, seed, watch):
    """The fine-tuning loop of PyTorch's transfer-learning tutorial, ten of its 25 epochs."""
    from torchvision.transforms import v2

    torch.manual_seed(seed)
    model, mean, std = with_new_head(data)
    tail = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    train = Loader(data, v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), *tail]), 4)
    predict = judged_by(model, Loader(data, v2.Compose(tail), 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    for _ in range(10):
        model.train()
        for x, y in train(split.train, shuffle=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        scheduler.step()
        watch(predict)


def timm(data, split, lr, seed, watch):
    """timm's training script: its transforms, label smoothing, SGD, and a cosine with a warm-up."""
    from timm.data import create_transform
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from torchvision.transforms.functional import to_pil_image

    for seeded in (torch.manual_seed, random.seed, np.random.seed):  # its transforms draw from all three
        seeded(seed)
    model, mean, std = with_new_head(data)
    train_view = create_transform(SIZE, is_training=True, color_jitter=0.4, interpolation="random", mean=mean, std=std)
    val_view = create_transform(SIZE, mean=mean, std=std, crop_pct=1.0)
    train = Loader(data, lambda x: train_view(to_pil_image(x)), 32, drop_last=True)
    predict = judged_by(model, Loader(data, lambda x: val_view(to_pil_image(x)), 64))
    criterion = LabelSmoothingCrossEntropy(smoothing=0.1)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=lr, weight_decay=2e-5, momentum=0.9)
    updates = len(split.train) // 32
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", 10, warmup_epochs=1, warmup_lr=1e-5, step_on_epochs=False, updates_per_epoch=updates
    )
    scheduler.step_update(0)
    for epoch in range(10):
        model.train()
        for step, (x, y) in enumerate(train(split.train, shuffle=True), 1):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            scheduler.step_update(epoch * updates + step)
        watch(predict)


def fastai(data, split, lr, seed, watch):
    """fastai: vision_learner with the same weights, its default augmentations, and fine_tune of 1 + 5 epochs.

    Where its course looks at ``lr_find``, the rate is chosen as for all others.
    """
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
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(len(data.class_names))))),
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

    class Judge(Callback):
        def after_epoch(self):
            self.learn.model.eval()
            with torch.no_grad():
                watch(self.look)

        def look(self, index):
            found = [self.learn.model(x[0]).softmax(1) for x in loaders.test_dl(list(index))]
            return torch.cat(found).double().numpy()

    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(5, lr, cbs=Judge())


ARMS = {"tlbook": ours, "tutorial": tutorial, "fastai": fastai, "timm": timm}
IMPORTS = {"fastai": ["fastai.vision.all"], "timm": ["timm.data", "timm.loss", "timm.optim", "timm.scheduler"]}


def one(which, of, fold, lr, seed, out):
    """A fit in a process of its own and with an empty cache, with its peak memory."""
    peak, done = [0], threading.Event()

    def sample():
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous_memory(os.getpid()))

    with tempfile.TemporaryDirectory() as empty:
        data = SETS[of]()
        split = folds_of(data)[fold]
        os.environ["TLBOOK_CACHE"] = empty
        threading.Thread(target=sample, daemon=True).start()
        for module in IMPORTS.get(which, ()):
            import_module(module)
        watch = Watch(data, split)
        more = ARMS[which](data, split, lr, seed, watch) or {}
        done.set()
    out.put({"rows": watch.rows, "peak MB": peak[0] / 2**20, "threads": torch.get_num_threads()} | more)


def folds_of(data):
    return data.folds(FOLDS, by="group", val=0.2, seed=0)


def fit(which, of, fold, lr, seed):
    def apart():
        print(which, of, fold, f"{lr:.1e}", seed, flush=True)
        context = multiprocessing.get_context("spawn")
        out = context.SimpleQueue()
        process = context.Process(target=one, args=(which, of, fold, lr, seed, out))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{which} on {of} ended with {process.exitcode}")
        return out.get()

    found = kept(file_of(f"{which}-{of}-{fold}-{lr:.1e}-{seed}"), apart)
    found["end"] = min(found["rows"], key=lambda row: row["val loss"])
    return found | {"lr": lr}


def fits_of(which, of):
    """[a fit for each fold and seed, with ``search``: the seconds of the three that its rate was chosen from]"""
    fits = []
    for fold in range(FOLDS):
        tried = [fit(which, of, fold, RATES[which] * factor, SEEDS[0]) for factor in (1 / 3, 1, 3)]
        best = min(tried, key=lambda found: found["end"]["val loss"])
        search = sum(found["rows"][-1]["seconds"] for found in tried)
        fits += [fit(which, of, fold, best["lr"], seed) | {"search": search} for seed in SEEDS]
    return fits


def first(found, level):
    """Seconds until the test AUC was ``level`` for the first time."""
    return next(row["seconds"] for row in found["rows"] if row["test AUC"] >= level)


def beside(fits, others):
    """Their seconds over ours to the AUC at which the worse of the two ends, for each pair of fits."""
    levels = [min(a["end"]["test AUC"], b["end"]["test AUC"]) for a, b in zip(fits, others, strict=True)]
    ratios = [first(b, level) / first(a, level) for a, b, level in zip(fits, others, levels, strict=True)]
    return {"levels": levels, "ratios": ratios, "median": float(np.median(ratios))}


def probe(of):
    """(test AUC, seconds) of the probe alone in each fold; it extracts the features of all images."""
    data, rows = SETS[of](), []
    for split in folds_of(data):
        with tempfile.TemporaryDirectory() as empty:
            os.environ["TLBOOK_CACHE"] = empty
            begin = time.perf_counter()
            features = tl.extract(tl.load_backbone(), data)
            found = tl.linear_probe(features, split)
            seconds = time.perf_counter() - begin
        judged = tl.evaluate(found.predict_proba(features.X[split.test]), data.labels[split.test], resamples=1)
        rows.append((judged.auc, seconds))
    return rows


SPEED_SIZE = 128


def speed():
    """Images/s of fine-tuning everything, beside forward, backward and step alone on a batch that is ready."""
    data = tl.data.solar_cells(SPEED_SIZE).subset(range(512))
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
    """Seconds with the frozen prefix stored once, and computed anew in each epoch."""
    data = tl.data.solar_cells(SPEED_SIZE)
    split, seconds = data.split(seed=0), {}
    how = {"recipe": Full(until="blocks.3"), "epochs": 8, "augment": "flips"}
    for store in (True, False):
        start = time.perf_counter()
        tl.finetune(tl.load_backbone(), data, split, **how, store_prefix=store)
        seconds["stored" if store else "computed anew"] = time.perf_counter() - start
    return seconds | {"ratio": seconds["computed anew"] / seconds["stored"]}


def peers(*only):
    found = {of: {which: fits_of(which, of) for which in ARMS} for of in only or SETS}
    alone = {of: kept(file_of(f"probe-{of}"), lambda of=of: probe(of)) for of in found}
    if only:
        return
    table = []
    for of, arms in found.items():
        for which, fits in arms.items():
            row = {
                "data": of,
                "method": which,
                "test AUC": [found["end"]["test AUC"] for found in fits],
                "seconds": [found["rows"][-1]["seconds"] for found in fits],
                "seconds of the search": [found["search"] for found in fits],
                "rates": [found["lr"] for found in fits],
                "threads": fits[0]["threads"],
                "peak MB": max(found["peak MB"] for found in fits),
            }
            if which == "tlbook":
                row |= {key: [found[key] for found in fits] for key in ("epoch kept", "test AUC of what is returned")}
            else:
                row["beside tlbook"] = beside(arms["tlbook"], fits)
            table.append(row)
            print(of, which, np.round(row["test AUC"], 3), np.round(row["seconds"]), row.get("beside tlbook"))
    speeds = {"images/s": kept(file_of("speed"), speed), "frozen prefix, 8 epochs": kept(file_of("prefix"), prefix)}
    versions = {name: version(name) for name in ("torch", "torchvision", "timm", "fastai")}
    rows = {
        f"{of}, {which}": [found["rows"] for found in fits]
        for of, arms in found.items()
        for which, fits in arms.items()
    }
    write("peers", size=SIZE, versions=versions, table=table, probe=alone, epochs=rows, **speeds)


if __name__ == "__main__":
    {"paper": paper, "peers": peers}[sys.argv[1]](*sys.argv[2:])
