"""The league table: every method of the course at one size, on folds in which all 44 panels are held out.

    python benchmarks/league.py            # two and a half hours on one core; goes on where it was cut
    python benchmarks/league.py LoRA head    # these fits alone, for processes side by side; the table takes all

All methods see the same images, folds, flips and training seeds. Each chooses its learning rate by the loss on
validation panels held out of the training part, from three rates, with the first seed; the other seeds take that rate.
Some of the best lie at an end of the three. No wider search was made of it: validation holds four panels, and in one
fold they like a head best that has hardly moved from where it started, at a thirtieth of the least rate.
Gradual unfreezing gets the epochs that it needs to free all stages, training from scratch enough to reach its plateau:
validation chooses the epoch of every method. Fits are kept in results/league as they end, with what they say of
every cell, so that the table can be made again without them: remove that folder to start anew.

Writes tlbook/course/league.json, which lessons 04 and 10 show: the mean AUC over seeds of each method with its interval
over panels (which leaves out the seeds: the AUC of each stands beside it), and paired differences to the probe and to
full fine-tuning.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from record import about, kept

import tlbook as tl
from tlbook.course.league import RECORD
from tlbook.evaluation import _draws, _interval
from tlbook.training.recipes import LPFT, Full, Gradual, Head, Surgical

SIZE, EPOCHS, FOLDS, SEEDS = 64, 5, 2, (0, 1, 2)
LORA = {"rank": 4, "alpha": 8, "targets": [r"model\.blocks\.[56]\..*conv_pwl?", r"model\.conv_head"]}
METHODS = {  # name: (recipe, objective, epochs, three learning rates); the probe has none of these to choose
    "head": (Head(), None, EPOCHS, (1e-4, 3e-4, 1e-3)),
    "full": (Full(), None, EPOCHS, (3e-5, 1e-4, 3e-4)),
    "full, L2-SP": (Full(), tl.Objective(l2_sp=0.1, l2_head=0.01), EPOCHS, (3e-5, 1e-4, 3e-4)),
    "surgical": (Surgical(stage="blocks.1"), None, EPOCHS, (1e-4, 3e-4, 1e-3)),
    "gradual": (Gradual(), None, 12, (3e-5, 1e-4, 3e-4)),
    "LP-FT": (LPFT(), None, EPOCHS, (3e-5, 1e-4, 3e-4)),
    "LoRA": (LPFT(until="blocks.4"), None, EPOCHS, (3e-4, 1e-3, 3e-3)),
    "from scratch": (Full(head_multiplier=1.0), None, 30, (3e-4, 1e-3, 3e-3)),
}


def file_of(name):
    """Where a fit is kept."""
    return Path(__file__).parent / "results" / "league" / f"{name}.json"


def start_of(method, seed):
    torch.manual_seed(seed)
    backbone = tl.load_backbone(weights=None if method == "from scratch" else "default")
    if method == "LoRA":
        tl.lora.inject(backbone, **LORA)
    return backbone


def fit(method, data, fold, lr, seed):
    recipe, objective, epochs, _ = METHODS[method]
    begin = time.perf_counter()
    how = {"recipe": recipe, "objective": objective, "epochs": epochs, "lr": lr, "augment": "flips", "seed": seed}
    found = tl.finetune(start_of(method, seed), data, fold, precision="float32", **how)
    moved = sum(p.numel() for n, p in found.model.named_parameters() if not torch.equal(p.cpu(), found.start[n].cpu()))
    p, val_loss = found.predict(data.subset(fold.test)), found.history[found.epoch]["val loss"]
    return fit_of(p, begin, found.epoch, moved) | {"val loss": val_loss}


def probe(data, fold):
    begin = time.perf_counter()
    features = tl.extract(tl.load_backbone(), data, precision="float32")
    found = tl.linear_probe(features, fold)
    p = found.predict_proba(np.asarray(features.X[fold.test]))
    return fit_of(p, begin, 0, found.coef.size + 1)


def fit_of(p, begin, epoch, moved):
    """What is kept: of two classes the probability of the second is enough."""
    seconds = round(time.perf_counter() - begin, 1)
    device = tl.device.describe()["device"]
    return {"epoch": epoch, "seconds": seconds, "device": device, "moved": moved, "p": p[:, 1].round(5).tolist()}


def of_method(method, data, folds):
    """{seed: [a fit for each fold]}, the rate of each fold chosen on its validation panels."""
    if method == "probe":
        fits = [kept(file_of(f"probe-{k}"), lambda f=fold: probe(data, f)) for k, fold in enumerate(folds)]
        return dict.fromkeys(SEEDS, fits)

    def kept_fit(k, lr, seed):
        found = kept(file_of(f"{method}-{k}-{lr:g}-{seed}"), lambda: fit(method, data, folds[k], lr, seed))
        return found | {"lr": lr}

    searched = [{lr: kept_fit(k, lr, SEEDS[0]) for lr in METHODS[method][3]} for k in range(len(folds))]
    best = [min(of, key=lambda lr: of[lr]["val loss"]) for of in searched]
    return {seed: [kept_fit(k, lr, seed) for k, lr in enumerate(best)] for seed in SEEDS}


def judge(fits, data, folds):
    """(AUC of each seed, draws of their mean over panels, within-panel AUC of each seed)"""
    index = np.concatenate([fold.test for fold in folds])
    ps = [np.concatenate([f["p"] for f in of_seed]) for of_seed in fits.values()]
    judged = [tl.evaluate(np.stack([1 - p, p], 1), data.labels[index], groups=data.groups[index]) for p in ps]
    draws = [_draws(e.probabilities, e.labels, e.sample_weight, e.groups, 2000, 0)["auc"] for e in judged]
    return [e.auc for e in judged], np.mean(draws, axis=0), [e.within_group_auc for e in judged]


def rows_of(found, data, folds):
    judged, n = {name: judge(fits, data, folds) for name, fits in found.items()}, len(np.unique(data.groups))
    for name, (aucs, draws, within) in judged.items():
        fits = [f for of_seed in found[name].values() for f in of_seed]
        row = {"method": name, "AUC": float(np.mean(aucs)), "interval": list(_interval(draws, n))}
        row |= {"AUC of each seed": aucs, "within panels": float(np.mean(within))}
        row |= {
            "moved": max(f["moved"] for f in fits),
            "seconds a fit, median": float(np.median([f["seconds"] for f in fits])),
        }
        row |= {"epochs chosen": [f["epoch"] for f in fits], "rates chosen": [f["lr"] for f in fits if "lr" in f]}
        for other in ("probe", "full"):
            if other != name and other in judged:
                aucs_of, draws_of, _ = judged[other]
                gap = {"AUC": float(np.mean(aucs) - np.mean(aucs_of)), "interval": list(_interval(draws - draws_of, n))}
                row[f"less {other}"] = gap
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="method", help=f"fit these alone: {', '.join(METHODS)}")
    methods, data = parser.parse_args().methods, tl.data.solar_cells(SIZE)
    folds = data.folds(FOLDS, by="group", val=0.2, seed=0)
    found = {method: of_method(method, data, folds) for method in methods or ("probe", *METHODS)}
    if methods:
        return
    rows = list(rows_of(found, data, folds))
    devices = sorted({fit["device"] for of in found.values() for fits in of.values() for fit in fits})
    facts = {"fitted on": devices, "size": SIZE, "folds": FOLDS, "seeds": list(SEEDS)}
    RECORD.write_text(json.dumps({**about("python benchmarks/league.py"), **facts, "table": rows}, indent=1) + "\n")
    for row in rows:
        print("{:<13} {:.3f} ({:.2f} … {:.2f})".format(row["method"], row["AUC"], *row["interval"]))


if __name__ == "__main__":
    main()
