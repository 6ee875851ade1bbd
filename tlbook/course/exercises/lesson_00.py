"""Exercises of lesson 00."""

import numpy as np

import tlbook as tl
from tlbook.course.exercises import Exercise


def _always_healthy(answer):
    data = tl.data.solar_cells()
    test = data.split(seed=0).test
    healthy = np.mean(data.labels[test] == 0)
    answer = float(answer)
    if np.isclose(answer, healthy, atol=1e-6):
        return
    assert not np.isclose(answer, 0.5, atol=1e-3), (
        "That is its *balanced* accuracy, the mean over the two classes (all healthy cells found, no defective one). "
        "Accuracy counts the cells that are right."
    )
    assert not np.isclose(answer, 1 - healthy, atol=1e-3), "That is the share it gets wrong: the defective cells."
    assert not np.isclose(answer, np.mean(data.labels == 0), atol=1e-6), (
        "That is the share over all 2,624 cells. The score to compare with is on data.labels[split.test]."
    )
    assert not np.isclose(answer / 100, healthy, atol=1e-3), "Right, in percent. Give it as a share between 0 and 1."
    assert np.isclose(answer, healthy, atol=1e-3), (
        "Calling every cell healthy is right exactly on the healthy ones: what share of the test labels is 0?"
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
        _always_healthy,
        "Which test cells does a rule that always says 'healthy' get right? Their labels are 0.",
        "answer = (data.labels[split.test] == 0).mean()",
    ),
    "00.2": Exercise(
        _shared_panels,
        "groups[split.train] are the panels of the training cells; np.intersect1d finds what two have in common.",
        "def answer(groups, split):\n    return len(set(groups[split.train]) & set(groups[split.test]))",
    ),
}
