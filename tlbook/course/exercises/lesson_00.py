"""Exercises of lesson 00."""

import numpy as np

import tlbook as tl
from tlbook.course.exercises import Exercise


def _threshold(answer):
    rng = np.random.default_rng(0)
    for n in (40, 401):
        labels = rng.integers(0, 2, n)
        p = np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1).round(6)
        of_defective = np.sort(p[labels == 1])
        expected = of_defective[len(of_defective) - int(np.ceil(0.9 * len(of_defective)))]
        got = float(answer(p, labels))
        found = (of_defective >= got).mean()
        assert not np.isclose(got, np.quantile(p, 0.1)) and not np.isclose(
            got, np.sort(p)[n - int(np.ceil(0.9 * n))]
        ), "That looks at all cells. Nine in ten *defective* ones are to be found: take p[labels == 1]."
        assert not np.isclose(got, np.quantile(of_defective, 0.9), atol=1e-9), (
            "Nine in ten defective cells lie below that one. They should lie above it, or on it."
        )
        assert found >= 0.9, (
            f"With the threshold {got:.3f}, p ≥ threshold finds {found:.1%} of the defective cells; it should find at "
            "least 90 %."
        )
        assert got >= expected - 1e-9, (
            f"That finds enough ({found:.1%}), but a higher threshold would, too, with fewer false alarms: the largest "
            f"is {expected:.3f}, not {got:.3f}."
        )


def _shared_panels(answer):
    data = tl.data.solar_cells()
    for by in ("random", "group"):
        split = data.split(by=by, seed=1)
        expected = len(np.intersect1d(data.groups[split.train], data.groups[split.test]))
        got = answer(data.groups, split)
        assert not hasattr(got, "__len__"), (
            f"It should return how many panels, a number; it returned {type(got).__name__}."
        )
        assert by == "group" or got != len(np.intersect1d(split.train, split.test)), (
            "That compares cells, and no cell is ever on both sides. Compare their panels: groups[split.train]."
        )
        assert got != np.isin(data.groups[split.test], data.groups[split.train]).sum() or got == expected, (
            "That counts test cells whose panel is in training. How many different panels are they from?"
        )
        assert got == expected or got != len(np.union1d(data.groups[split.train], data.groups[split.test])), (
            "That is the union: panels on either side. We want those on both."
        )
        assert got == expected, f"With by={by!r} there are {expected} panels on both sides, not {got}."


EXERCISES = {
    "00.1": Exercise(
        _threshold,
        "Sort the probabilities of the defective cells, the highest first. How many are nine in ten, rounded up?",
        "def answer(p, labels):\n"
        "    defective = np.sort(p[labels == 1])[::-1]\n"
        "    return defective[int(np.ceil(0.9 * len(defective))) - 1]",
    ),
    "00.2": Exercise(
        _shared_panels,
        "groups[split.train] are the panels of the training cells; np.intersect1d finds what two have in common.",
        "def answer(groups, split):\n    return len(set(groups[split.train]) & set(groups[split.test]))",
    ),
}
