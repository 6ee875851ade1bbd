"""What bfloat16 features cost a linear probe, beside float32 ones.

    python benchmarks/precision.py    # ten minutes on two cores

Solar cells: the AUC on unseen panels, all 44 of them held out; three sizes, and for each five draws of four folds of
whole panels. Five small sets of ``benchmarks/small_data.py``: accuracy and log loss over four folds, five draws of
examples; signs and tiles need ``TLBOOK_MIRROR``. Each is computed by the engine that `tl.extract` chooses: OpenVINO for
the cells from 160 px on, PyTorch for the smaller jobs. And how far the features move, relative to their length, by
which convolutions are rounded. Writes benchmarks/results/precision.json: each draw, and for each size of cells the
difference of the probabilities averaged over the draws, with its interval over panels.
"""

import json
from pathlib import Path

import numpy as np
import small_data
import torch
from record import about
from torch import nn

import tlbook as tl
from tlbook import forward
from tlbook.forward import Engine, Forward, Stages

SIZES, DRAWS = (96, 160, 224), 5
SMALL = ("digits", "tiles", "signs", "shapes", "colours")
METRICS = ("accuracy", "log_loss")


def both(data):
    """{precision: the `Features` of a data set}"""
    backbone = tl.load_backbone()
    return {p: tl.extract(backbone, data, precision=p) for p in ("float32", "bfloat16")}


def of_cells(size):
    """(a row for each draw, the `Comparison` of bfloat16 with float32)"""
    data = tl.data.solar_cells(size)
    features = both(data)
    rows, total = [], dict.fromkeys(features, 0)
    for seed in range(DRAWS):
        folds, row = data.folds(4, by="group", seed=seed), {"size": size, "seed": seed}
        for precision, f in features.items():
            p = tl.cross_val_predict(f, folds)
            row[precision] = tl.evaluate(p, data.labels, groups=data.groups, resamples=1).auc
            total[precision] = total[precision] + p / DRAWS
        rows.append(row)
        print(row, flush=True)
    judged = {precision: tl.evaluate(p, data.labels, groups=data.groups) for precision, p in total.items()}
    return rows, tl.compare(judged["bfloat16"], judged["float32"])


def of_small(name, seed):
    """{"data", "seed", precision: {metric: value}}"""
    data = small_data.dataset(name, seed, side=0)
    folds, row = data.folds(4, by="random" if data.groups is None else "group", seed=seed), {"data": name, "seed": seed}
    for precision, f in both(data).items():
        found = tl.evaluate(tl.cross_val_predict(f, folds), data.labels, groups=data.groups, resamples=1)
        row[precision] = {metric: getattr(found, metric) for metric in METRICS}
    print(row, flush=True)
    return row


def distances(size=160):
    """{what is rounded: distance of the features of 64 cells to those in float32, relative}"""
    data, backbone = tl.data.solar_cells(size), tl.load_backbone()
    x = backbone.prepare([data[i][0] for i in range(0, len(data), 41)])
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]

    def features(engine="torch", dtype="float32"):
        with forward.in_eval_mode(backbone):
            run = Forward(Stages(backbone, ("final",)), Engine(engine, getattr(torch, dtype)))
            (z,) = run.submit(x).result()
            assert run.engine.name == engine, "needs OpenVINO: pip install openvino"
            return z

    def rounded(some):
        """The features in float32, but for the inputs and the weights of some convolutions."""
        kept = [(m, m.weight.data) for m in some]
        hooks = [m.register_forward_pre_hook(lambda m, args: (args[0].bfloat16().float(),)) for m in some]
        for module, weight in kept:
            module.weight.data = weight.bfloat16().float()
        try:
            return features()
        finally:
            for hook in hooks:
                hook.remove()
            for module, weight in kept:
                module.weight.data = weight

    plain, first = features(), forward.IN_FULL
    found = {
        "the second convolution alone": rounded(convolutions[1:2]),
        f"the {len(convolutions) - 2} after it": rounded(convolutions[2:]),
    }
    for in_full in (0, first):
        forward.IN_FULL = in_full
        for engine in ("torch", "openvino"):
            found[f"by {engine}, all but the first {in_full}"] = features(engine, "bfloat16")
    return {name: float((z - plain).norm() / plain.norm()) for name, z in found.items()}


def main():
    moved = distances()
    print(moved, flush=True)
    small = [of_small(name, seed) for name in SMALL for seed in range(DRAWS)]
    found = {size: of_cells(size) for size in SIZES}
    rows = [row for of_size, _ in found.values() for row in of_size]
    gaps = [row["bfloat16"] - row["float32"] for row in rows]
    result = about("python benchmarks/precision.py") | {"rows": rows, "mean difference": float(np.mean(gaps))}
    result["difference over panels"] = {
        str(size): [comparison.difference, *comparison.interval] for size, (_, comparison) in found.items()
    }
    result |= {"distance of the features": moved, "small sets": small, "mean difference, small sets": {}}
    for name in SMALL:
        of_set = [row for row in small if row["data"] == name]
        result["mean difference, small sets"][name] = {
            metric: float(np.mean([row["bfloat16"][metric] - row["float32"][metric] for row in of_set]))
            for metric in METRICS
        }
    path = Path(__file__).parent / "results" / "precision.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"bfloat16 less float32: mean {np.mean(gaps):+.4f}, from {min(gaps):+.4f} to {max(gaps):+.4f}")
    print(result["difference over panels"], result["mean difference, small sets"])


if __name__ == "__main__":
    main()
