"""Lesson 08's learning rates, chosen on panels of its training part alone, with the same search for every method.

    python benchmarks/lesson_08.py

Each method of the lesson's first table is trained with three learning rates on a part of the lesson's 18 training
panels; the rate with the lowest log loss on the panels left out is the one that the lesson uses. Panels that judge in
the lesson are not touched.
"""

import copy
import json
from pathlib import Path

from record import about

import tlbook as tl
from tlbook.training.recipes import LPFT

HERE = Path(__file__).parent
WEIGHTS, FEW = (1e-4, 3e-4, 1e-3), (3e-4, 1e-3, 3e-3)
METHODS = {  # what moves: (fields of LPFT, learning rates)
    "biases": ({"only": r".*bias"}, FEW),
    "LoRA, rank 4": ({}, FEW),
    "stored prefix": ({"until": "blocks.3"}, WEIGHTS),
    "everything": ({}, WEIGHTS),
}


def start_of(method):
    """The backbone, with LoRA for LoRA."""
    backbone = copy.deepcopy(tl.load_backbone())
    if method.startswith("LoRA"):
        tl.lora.inject(backbone, rank=4, alpha=8, targets=[r"model\.blocks\..*conv_pwl?"])
    return backbone


if __name__ == "__main__":
    data = tl.data.solar_cells(64)
    train = data.split(test=0.4, val=0.3, seed=0).train
    part = data.subset(train)
    rows = []
    for method, (which, rates) in METHODS.items():
        for rate in rates:
            split = part.split(test=0.3, val=0, seed=0)
            options = {"recipe": LPFT(**which), "epochs": 2, "lr": rate}
            found = tl.finetune(start_of(method), part, split, **options).evaluate(part, split.test)
            rows.append({"method": method, "rate": rate, "log loss": found.log_loss, "AUC": found.auc})
            print(rows[-1], flush=True)
    chosen = {m: min((r for r in rows if r["method"] == m), key=lambda r: r["log loss"])["rate"] for m in METHODS}
    result = about("python benchmarks/lesson_08.py") | {"rows": rows, "chosen": chosen}
    (HERE / "results" / "lesson_08.json").write_text(json.dumps(result, indent=1) + "\n")
    print(chosen)
