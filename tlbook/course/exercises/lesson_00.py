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


def _known_panels(answer):
    data = tl.data.solar_cells()
    split = data.split(by="random", test=0.97, seed=1)  # so few cells to learn from that some panels have none
    at, known = data.groups[split.test], np.isin(data.groups[split.test], data.groups[split.train])
    got, share = answer(data.groups, split), known.mean()
    assert np.ndim(got) == 0 and got is not None, (
        f"It should return a share, one number from 0 to 1; it returned {type(got).__name__}."
    )
    assert got != known.sum(), "That counts them. The share is the count over the number of test cells."
    assert not np.isclose(got, 100 * share), "That is in per cent. A share runs from 0 to 1."
    assert not np.isclose(got, 1 - share), (
        "That is the share of test cells whose panel is new: one minus what is asked."
    )
    assert not np.isclose(got, np.isin(split.test, split.train).mean()), (
        "That looks for the test cells themselves, and no cell is ever on both sides. Compare their panels: "
        "groups[split.test] with groups[split.train]."
    )
    assert not np.isclose(got, len(np.unique(at[known])) / len(np.unique(at))), (
        "That is the share of panels. A panel with many test cells should count for each of them."
    )
    assert not np.isclose(got, known.sum() / len(data.groups)), (
        "That divides by all cells. Of the test cells we want the share, so divide by len(split.test)."
    )
    assert not np.isclose(got, np.isin(data.groups[split.train], at).mean()), (
        "That is the share of *training* cells whose panel is in the test. Turn it round."
    )
    assert not np.isclose(got, np.isin(at, data.groups[np.r_[split.train, split.val]]).mean()), (
        "That counts panels of the validation cells as known. The classifier learns from split.train alone."
    )
    assert np.isclose(got, share), f"With {len(split.train)} random training cells it should be {share:.4f}, not {got}."
    got = answer(data.groups, data.split(seed=1))
    assert got == 0, f"Where whole panels are held out, it should be 0, not {got}."


EXERCISES = {
    "00.1": Exercise(
        _threshold,
        "Sort the probabilities of the defective cells, the highest first. How many are nine in ten, rounded up?",
        "def answer(p, labels):\n"
        "    defective = np.sort(p[labels == 1])[::-1]\n"
        "    return defective[int(np.ceil(0.9 * len(defective))) - 1]",
    ),
    "00.2": Exercise(
        _known_panels,
        "groups[split.test] has the panel of each test cell. np.isin asks of each whether it is among others; "
        "the mean of True and False is a share.",
        "def answer(groups, split):\n    return np.isin(groups[split.test], groups[split.train]).mean()",
    ),
}
