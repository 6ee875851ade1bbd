"""What bfloat16 features cost a linear probe, beside float32 ones: the AUC on unseen panels, all 44 of them held out.

    python benchmarks/precision.py    # three minutes on one core

Five draws of four folds of whole panels, 160 px. Writes benchmarks/results/precision.json.
"""

import json
from pathlib import Path

import numpy as np
from record import about

import tlbook as tl


def auc(features, folds):
    """AUC of the probes of all folds, each on the panels that it has not seen."""
    p = np.zeros((len(features.y), 2))
    for fold in folds:
        p[fold.test] = tl.linear_probe(features, fold).predict_proba(np.asarray(features.X[fold.test]))
    return tl.evaluate(p, features.y, groups=features.groups, resamples=1).auc


def main():
    data, backbone = tl.data.solar_cells(), tl.load_backbone()
    features = {p: tl.extract(backbone, data, precision=p) for p in ("float32", "bfloat16")}
    rows = []
    for seed in range(5):
        folds = data.folds(4, by="group", seed=seed)
        rows.append({"seed": seed} | {p: auc(f, folds) for p, f in features.items()})
        print(rows[-1], flush=True)
    gaps = [row["bfloat16"] - row["float32"] for row in rows]
    result = about("python benchmarks/precision.py") | {"rows": rows, "mean difference": float(np.mean(gaps))}
    path = Path(__file__).parent / "results" / "precision.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"bfloat16 less float32: mean {np.mean(gaps):+.4f}, from {min(gaps):+.4f} to {max(gaps):+.4f}")


if __name__ == "__main__":
    main()
