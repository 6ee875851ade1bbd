"""Why is LP-FT ahead of full fine-tuning? The two recipes differ in three things; here each of them is switched alone.

    python benchmarks/probe_start.py

Start at the probe or at a random head × hold BatchNorm's statistics or let them move × the head's rate as the rest's
or ten times that: eight arms, each trained for the same three epochs at the same learning rate and with the same order
of examples, on two halves of the panels, so that all 44 panels are judged. ``SEEDS`` says with which training seeds.
Nothing is chosen by validation: the last epoch is kept. Writes benchmarks/results/probe_start.json. Fits are kept in
build/probe_start as they end, so that a run that was cut goes on where it was: remove that folder to start anew.
"""

import itertools
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
from tlbook.evaluation import _draws, _interval
from tlbook.training.recipes import LPFT, Full

HERE = Path(__file__).parent
FITS = HERE.parent / "build" / "probe_start"
SIZE, EPOCHS, LR, SEEDS = 64, 3, 3e-4, (0,)
SWITCHES = itertools.product((10.0, 1.0), (True, False), (True, False))
ARMS = [(probe, held, rate) for rate, probe, held in SWITCHES]  # probe start, BatchNorm held, head's rate


def name_of(arm):
    probe, held, rate = arm
    return f"{'probe' if probe else 'random'}-{'held' if held else 'moving'}-{rate:g}"


def fit(arm, data, fold, seed):
    """{"p": test probabilities, "seconds": …} of one arm on one half, from disk if it was fitted before."""
    probe, held, rate = arm
    path = FITS / f"{name_of(arm)}-{fold[0]}-{seed}.json"
    if not path.exists():
        recipe = (LPFT if probe else Full)(freeze_batchnorm=held, head_multiplier=rate)
        start = time.perf_counter()
        how = {"epochs": EPOCHS, "lr": LR, "augment": "flips", "seed": seed}
        found = tl.finetune(tl.load_backbone(), data, fold[1], recipe=recipe, **how)
        value = {"seconds": time.perf_counter() - start, "p": found.predict(data.subset(fold[1].test)).tolist()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(value))
        path.with_suffix(".part").replace(path)
        print(path.stem, f"{value['seconds']:.0f} s", flush=True)
    return json.loads(path.read_text())


def auc_of(p, data, fold):
    return tl.evaluate(p, data.labels[fold.test], resamples=1).auc


def mean_over_seeds(judged):
    """(mean AUC over seeds, its draws over panels): every draw takes the same panels for all seeds and arms."""
    draws = [_draws(e.probabilities, e.labels, e.sample_weight, e.groups, 2000, 0)["auc"] for e in judged]
    return np.mean([e.auc for e in judged]), np.mean(draws, axis=0)


def effect(found, sign):
    """A signed mean over arms of the mean AUC over seeds, with its interval over panels."""
    value = sum(s * found[arm][0] for arm, s in sign.items())
    draws = sum(s * found[arm][1] for arm, s in sign.items())
    return {"AUC": float(value), "interval": list(_interval(draws, 44))}


def main():
    data = tl.data.solar_cells(SIZE)
    folds = list(enumerate(data.folds(2, by="group", val=0, seed=0)))
    fits = {}
    for seed, arm, fold in itertools.product(SEEDS, ARMS, folds):
        fits[arm, fold[0], seed] = fit(arm, data, fold, seed)
    index = np.concatenate([fold.test for _, fold in folds])

    # The eight arms, each a mean over seeds
    judged = {
        (arm, seed): tl.evaluate(
            np.concatenate([fits[arm, k, seed]["p"] for k, _ in folds]), data.labels[index], groups=data.groups[index]
        )
        for arm in ARMS
        for seed in SEEDS
    }
    found = {arm: mean_over_seeds([judged[arm, seed] for seed in SEEDS]) for arm in ARMS}
    table = [
        {"probe start": arm[0], "BatchNorm held": arm[1], "head's rate": arm[2], **effect(found, {arm: 1.0})}
        | {"AUC of each seed": [judged[arm, seed].auc for seed in SEEDS]}
        | {"AUC of each half, first seed": [auc_of(fits[arm, k, SEEDS[0]]["p"], data, fold) for k, fold in folds]}
        | {"within panels": float(np.mean([judged[arm, seed].within_group_auc for seed in SEEDS]))}
        | {"seconds a fit, median": float(np.median([fits[arm, k, s]["seconds"] for k, _ in folds for s in SEEDS]))}
        for arm in ARMS
    ]

    # What one switch does, whatever the other two: half of the arms less the other half
    what = ("probe start", "BatchNorm held", "head's rate as the rest's")
    on = (True, True, 1.0)
    effects = {
        name: effect(found, {arm: (1 if arm[k] == on[k] else -1) / 4 for arm in ARMS}) for k, name in enumerate(what)
    }
    for held, rate in itertools.product((True, False), (1.0, 10.0)):
        name = f"probe start, BatchNorm {'held' if held else 'moving'}, head's rate × {rate:g}"
        effects[name] = effect(found, {(True, held, rate): 1, (False, held, rate): -1})
    for probe, rate in itertools.product((True, False), (1.0, 10.0)):
        name = f"BatchNorm held, {'probe' if probe else 'random'} start, head's rate × {rate:g}"
        effects[name] = effect(found, {(probe, True, rate): 1, (probe, False, rate): -1})
    effects["LP-FT − full"] = effect(found, {(True, True, 1.0): 1, (False, False, 10.0): -1})

    describe = ["git", "describe", "--always", "--dirty"]
    result = {
        "command": "python benchmarks/probe_start.py",
        "commit": subprocess.run(describe, capture_output=True, text=True, cwd=HERE).stdout.strip(),
        "date": date.today().isoformat(),
        "hardware": f"{tl.device.describe()}, {os.cpu_count()} cores, {torch.get_num_threads()} in use, "
        f"{platform.machine()}",
        "size": SIZE,
        "epochs": EPOCHS,
        "lr": LR,
        "seeds": list(SEEDS),
        "arms": table,
        "effects": effects,
    }
    for row in table:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    for name, e in effects.items():
        print(f"{name:<60} {e['AUC']:+.3f} ({e['interval'][0]:+.3f} … {e['interval'][1]:+.3f})")
    (HERE / "results" / "probe_start.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
