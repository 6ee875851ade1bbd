"""Lesson 06 with several seeds: the lesson's own cells, its seed changed.

    python benchmarks/lesson_06.py

One run of a training is a draw. How far do several lie apart, and is LP-FT ahead of the five steps in their mean?
Writes benchmarks/results/lesson_06.json. Runs are kept in build/lesson_06 as they end:
remove that folder to start anew.
"""

import json
from pathlib import Path

import nbformat
import numpy as np
from record import about, kept
from scipy.stats import t

import tlbook as tl
from tlbook.evaluation import _draws, _interval

HERE = Path(__file__).parent
RUNS = HERE.parent / "build" / "lesson_06"
SEEDS = range(5)
CELLS = ("c03", "c08", "c10", "c12", "c13", "p13", "c14", "c18", "c19", "c21")  # up to the scores of the lesson


def run(seed):
    """The lesson's two evaluations with another seed, {"five steps": probabilities, "LP-FT": …} and the labels."""
    notebook = nbformat.read(HERE.parent / "notebooks" / "06_worked_example.ipynb", 4)
    source = {cell.id: cell.source for cell in notebook.cells}
    code = "\n".join(source[cell] for cell in CELLS)
    for old, new in (
        ("torch.manual_seed(0)", f"torch.manual_seed({seed})"),
        ('augment="flips")', f'augment="flips", seed={seed})'),
    ):
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    start = "import warnings\nimport numpy as np\nimport torch\nimport tlbook as tl\nfrom torch import nn, optim\n"
    scope = {"stops": lambda code: "TypeError: shapes cannot be multiplied, equal size"}  # not what is asked here
    exec(start + "from torchvision import datasets, transforms\n" + code, scope)
    judged = {"five steps": scope["plain"], "LP-FT": scope["score"]}
    return {name: {"p": e.probabilities.tolist(), "AUC": e.auc} for name, e in judged.items()} | {
        "labels": scope["score"].labels.tolist(),
        "groups": [str(group) for group in scope["score"].groups],
    }


def main():
    runs = [kept(RUNS / f"{seed}.json", lambda seed=seed: run(seed)) for seed in SEEDS]
    labels, groups = np.array(runs[0]["labels"]), np.array(runs[0]["groups"])
    found, draws = {}, {}
    for name in ("five steps", "LP-FT"):
        judged = [tl.evaluate(r[name]["p"], labels, groups=groups) for r in runs]
        of_seed = [_draws(e.probabilities, e.labels, e.sample_weight, e.groups, 2000, 0)["auc"] for e in judged]
        draws[name], aucs = np.mean(of_seed, axis=0), [e.auc for e in judged]
        found[name] = {
            "AUC of each seed": aucs,
            "mean": float(np.mean(aucs)),
            "standard deviation over seeds": float(np.std(aucs, ddof=1)),
            "interval of the mean over panels": list(_interval(draws[name], len(np.unique(groups)))),
        }
    gaps = np.subtract(found["LP-FT"]["AUC of each seed"], found["five steps"]["AUC of each seed"])
    over_seeds = t.interval(0.95, len(gaps) - 1, np.mean(gaps), np.std(gaps, ddof=1) / len(gaps) ** 0.5)
    gain = {
        "interval over seeds": [float(end) for end in over_seeds],
        "mean": found["LP-FT"]["mean"] - found["five steps"]["mean"],
        "interval over panels": list(_interval(draws["LP-FT"] - draws["five steps"], len(np.unique(groups)))),
    }
    result = {
        **about("python benchmarks/lesson_06.py"),
        **found,
        "LP-FT − five steps": gain,
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    (HERE / "results" / "lesson_06.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
