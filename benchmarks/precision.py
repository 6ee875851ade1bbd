"""What bfloat16 features cost a linear probe, beside float32 ones: the AUC on unseen panels, all 44 of them held out.

    python benchmarks/precision.py    # five minutes on one core

Three sizes, and for each five draws of four folds of whole panels. Writes benchmarks/results/precision.json: the AUCs
of each draw, and for each size the difference of the probabilities averaged over the draws, with its interval over
panels.
"""

import json
from pathlib import Path

import numpy as np
from record import about

import tlbook as tl

SIZES, DRAWS = (96, 160, 224), 5


def differences(size):
    """(a row for each draw, the `Comparison` of bfloat16 with float32)"""
    data, backbone = tl.data.solar_cells(size), tl.load_backbone()
    features = {p: tl.extract(backbone, data, precision=p) for p in ("float32", "bfloat16")}
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


def main():
    found = {size: differences(size) for size in SIZES}
    rows = [row for of_size, _ in found.values() for row in of_size]
    gaps = [row["bfloat16"] - row["float32"] for row in rows]
    result = about("python benchmarks/precision.py") | {"rows": rows, "mean difference": float(np.mean(gaps))}
    result["difference over panels"] = {
        str(size): [comparison.difference, *comparison.interval] for size, (_, comparison) in found.items()
    }
    path = Path(__file__).parent / "results" / "precision.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"bfloat16 less float32: mean {np.mean(gaps):+.4f}, from {min(gaps):+.4f} to {max(gaps):+.4f}")
    print(result["difference over panels"])


if __name__ == "__main__":
    main()
