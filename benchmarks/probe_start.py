"""Why is LP-FT ahead of full fine-tuning? The two recipes differ in three things; here each of them is switched alone.

    python benchmarks/probe_start.py              # fits what is not fitted yet, with three training seeds
    python benchmarks/probe_start.py --seeds 1    # with one

Start at the probe or at a random head × hold BatchNorm's statistics or let them move × the head's rate as the rest's
or ten times that: eight arms, each trained for the same three epochs at the same learning rate and with the same order
of examples, on two halves of the panels, so that all 44 panels are judged.
Nothing is chosen by validation: the last epoch is kept. Writes benchmarks/results/probe_start.json. Fits are kept in
results/probe_start as they end, with what they say of every cell, so that a run that was cut goes on where it was:
remove that folder to start anew.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from record import about, kept

import tlbook as tl
from tlbook.evaluation import _draws, _interval
from tlbook.training.recipes import LPFT, Full

HERE = Path(__file__).parent
FITS = HERE / "results" / "probe_start"
SIZE, EPOCHS, LR = 64, 3, 3e-4
SWITCHES = itertools.product((10.0, 1.0), (True, False), (True, False))
ARMS = [(probe, held, rate) for rate, probe, held in SWITCHES]  # probe start, BatchNorm held, head's rate


def name_of(arm):
    probe, held, rate = arm
    return f"{'probe' if probe else 'random'}-{'held' if held else 'moving'}-{rate:g}"


def file_of(arm, half, seed):
    return FITS / f"{name_of(arm)}-{half}-{seed}.json"


def fit(arm, data, fold, seed):
    """{"p": test probabilities of the second class} of one arm on one half, from disk if it is there."""

    def make():
        probe, held, rate = arm
        recipe = (LPFT if probe else Full)(freeze_batchnorm=held, head_multiplier=rate)
        how = {"epochs": EPOCHS, "lr": LR, "augment": "flips", "seed": seed}
        found = tl.finetune(tl.load_backbone(), data, fold[1], recipe=recipe, **how)
        p = found.predict(data.subset(fold[1].test))[:, 1]
        return {"p": p.round(5).tolist()}

    return kept(file_of(arm, fold[0], seed), make)


def auc_of(p, data, fold):
    return tl.evaluate(of_both(p), data.labels[fold.test], resamples=1).auc


def of_both(p):
    """(N, 2) of the probabilities (N,) of the second class."""
    return np.stack([1 - np.asarray(p), p], 1)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds, data = range(parser.parse_args().seeds), tl.data.solar_cells(SIZE)
    folds = list(enumerate(data.folds(2, by="group", val=0, seed=0)))
    fits = {
        (arm, fold[0], seed): fit(arm, data, fold, seed) for seed, arm, fold in itertools.product(seeds, ARMS, folds)
    }
    index = np.concatenate([fold.test for _, fold in folds])

    # The arms, each a mean over seeds
    judged = {
        (arm, seed): tl.evaluate(
            of_both(np.concatenate([fits[arm, k, seed]["p"] for k, _ in folds])),
            data.labels[index],
            groups=data.groups[index],
        )
        for arm in ARMS
        for seed in seeds
    }
    found = {arm: mean_over_seeds([judged[arm, seed] for seed in seeds]) for arm in ARMS}
    table = [
        {"probe start": arm[0], "BatchNorm held": arm[1], "head's rate": arm[2], **effect(found, {arm: 1.0})}
        | {"AUC of each seed": [judged[arm, seed].auc for seed in seeds]}
        | {"AUC of each half, first seed": [auc_of(fits[arm, k, seeds[0]]["p"], data, fold) for k, fold in folds]}
        | {"within panels": float(np.mean([judged[arm, seed].within_group_auc for seed in seeds]))}
        for arm in ARMS
    ]

    # What one switch does: two arms that differ in it alone, and half of all arms less the other half
    effects, on = {}, {"probe start": True, "BatchNorm held": True, "head's rate": 1.0}
    for k, name in enumerate(on):
        for arm in (arm for arm in ARMS if arm[k] == on[name]):
            (off,) = (a for a in ARMS if a[k] != arm[k] and a[:k] + a[k + 1 :] == arm[:k] + arm[k + 1 :])
            effects[f"{name}: {name_of(arm)} − {name_of(off)}"] = effect(found, {arm: 1, off: -1})
        effects[f"{name}, all arms"] = effect(found, {arm: (1 if arm[k] == on[name] else -1) / 4 for arm in ARMS})
    effects["LP-FT − full"] = effect(found, {(True, True, 1.0): 1, (False, False, 10.0): -1})

    result = {
        **about(f"python benchmarks/probe_start.py --seeds {len(seeds)}"),
        "size": SIZE,
        "epochs": EPOCHS,
        "lr": LR,
        "seeds": list(seeds),
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
