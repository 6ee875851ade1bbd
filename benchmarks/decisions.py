"""What calibration, sets and distances promise, beside what they reach on panels that nobody has seen.

    python benchmarks/decisions.py

The solar cells are dealt by panel into four quarters: two are fitted on, one is calibrated on, one is judged on, and
each quarter is judged once; five times over. The probe reads the middle stage at 96 px. Panels 29 and 38 are one panel
that was photographed twice, and stay together. Pictures of faces and of stone stand for what is none of the classes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from record import about

import tlbook as tl
from tlbook import decisions
from tlbook.data import Dataset, Split

SEEDS, COVERAGE, STRANGE, MISS = 5, 0.9, 0.05, 10
STAGE, SIDE = "blocks.4", 96


def solar():
    """Features, labels and groups of the cells; panel 38 is counted as panel 29."""
    data = tl.data.solar_cells(SIDE)
    stages = ("blocks.1", "blocks.2", STAGE, "final")
    return with_one_panel_29(tl.extract(tl.load_backbone(), data, stages=stages, precision="float32").select(STAGE))


def with_one_panel_29(features):
    """The features with the two photographs of a panel as one group."""
    groups = np.where(features.groups == 38, 29, features.groups)
    return tl.feature_extraction.Features(features.X, features.y, groups, features.blocks)


def strange():
    """Features of pictures that are no solar cells: faces and other small pictures, and stone, in grey."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import leaky

    found = {}
    for name, (pictures, _) in {"faces and others": leaky.faces(), "stone": leaky.stones(40)}.items():
        tensors = [torch.from_numpy(np.array(p.convert("L").resize((SIDE, SIDE))))[None] for p in pictures]
        data = Dataset(tensors, np.zeros(len(tensors), int), ("none",))
        found[name] = tl.extract(tl.load_backbone(), data, stages=(STAGE,), precision="float32").X
    return found


def quarters(features, seed):
    """Splits in which each quarter of the groups is judged once, and the next one calibrates."""
    cells = Dataset(features.y, features.y, ("healthy", "defective"), features.groups)
    parts = [fold.test for fold in cells.folds(k=4, seed=seed)]
    for test, val in zip(parts, parts[1:] + parts[:1], strict=True):
        yield Split(np.setdiff1d(np.arange(len(features.y)), np.r_[test, val]), val, test)


def judged(features, others, seed, C):
    """What is promised and reached for every cell, when its quarter was judged: {name: (N,) or (N, K)}."""
    N = len(features.y)
    out = {"raw": np.zeros((N, 2)), "calibrated": np.zeros((N, 2)), "known": np.zeros(N)}
    out |= {by: np.zeros((N, 2), bool) for by in ("by cell", "by panel")}
    temperatures, caught = [], {name: [] for name in others}
    for split in quarters(features, seed):
        probe = tl.linear_probe(features, split, C=C)
        p, X, y = probe.predict_proba(features.X), features.X, features.y
        for by, groups in (("by cell", None), ("by panel", features.groups[split.val])):
            decider = decisions.fit(p[split.val], y[split.val], X[split.val], X[split.train], groups, COVERAGE)
            calibrated = decider.probabilities(p[split.test])
            out[by][split.test] = decider.sets(calibrated)
        out["raw"][split.test], out["calibrated"][split.test] = p[split.test], calibrated
        out["known"][split.test] = decider.known(X[split.test])
        temperatures.append(decider.T)
        for name, x in others.items():
            caught[name].append(float((decider.known(x) < STRANGE).mean()))
    return out, temperatures, {name: float(np.mean(rates)) for name, rates in caught.items()}


def scores(out, y, groups):
    """What was promised and reached, as numbers."""
    names, rows = np.unique(groups), {}
    for name in ("raw", "calibrated"):
        e = tl.evaluate(out[name], y, groups=groups)
        rows |= {
            f"log loss, {name}": e.log_loss,
            f"calibration error, {name}": decisions.calibration_error(out[name], y),
        }
    for by in ("by cell", "by panel"):
        held = out[by][np.arange(len(y)), y]
        of_panel = np.array([held[groups == g].mean() for g in names])
        rows |= {f"coverage {by}, mean over panels": of_panel.mean(), f"coverage {by}, worst panel": of_panel.min()}
        rows[f"both labels {by}"] = (out[by].sum(1) == 2).mean()
    alarm = out["known"] < STRANGE
    of_panel = np.array([alarm[groups == g].mean() for g in names])
    rows |= {"strange, mean over panels": of_panel.mean(), "strange, worst panel": of_panel.max()}
    price = np.array([1, MISS])
    answers = {"at 0.5": out["raw"].argmax(1), "least cost": decisions.least_cost(out["calibrated"], price)}
    answers |= {
        "least cost, raw": decisions.least_cost(out["raw"], price),
        "alarm for every cell": np.ones(len(y), int),
    }
    rows |= {f"cost a cell, {name}": (price[y] * (found != y)).mean() for name, found in answers.items()}
    return {name: float(value) for name, value in rows.items()}


def result(seeds=SEEDS):
    """{probe: {number: [mean over the seeds, smallest, largest]}}."""
    features, others, found = solar(), strange(), {}
    for name, C in (("C chosen", None), ("C = 100", 100.0)):
        runs = [run(features, others, seed, C) for seed in range(seeds)]
        found[name] = {key: [float(f([r[key] for r in runs])) for f in (np.mean, min, max)] for key in runs[0]}
    return found


def run(features, others, seed, C):
    """The numbers of one seed."""
    out, temperatures, caught = judged(features, others, seed, C)
    found = scores(out, features.y, features.groups) | {f"strange, {name}": share for name, share in caught.items()}
    return found | {"temperature, smallest": min(temperatures), "temperature, largest": max(temperatures)}


if __name__ == "__main__":
    promised = {"coverage": COVERAGE, "strange": STRANGE, "a miss costs": MISS}
    record = about("python benchmarks/decisions.py") | {"seeds": SEEDS, "promised": promised, "reached": result()}
    print(json.dumps(record, indent=1))
    (Path(__file__).parent / "results" / "decisions.json").write_text(json.dumps(record, indent=1) + "\n")
