"""Exercises of lesson 01.

Reference: Pan, S. J. and Yang, Q. (2010). A survey on transfer learning. IEEE Transactions on Knowledge and Data
Engineering 22(10), https://doi.org/10.1109/TKDE.2009.191
"""

import numpy as np

from tlbook.course.exercises import Exercise

INDUCTIVE, TRANSDUCTIVE, NONE = "inductive", "transductive", "no transfer needed"
PHOTOGRAPH = {"X": "colour images", "P(X)": "photographs from the web", "Y": "1,000 things", "P(Y|X)": "its name"}
MONO = {"X": "grey images", "P(X)": "mono cells", "Y": "healthy, defective", "P(Y|X)": "our experts' eyes"}
SCENARIOS = {  # name -> (source, target): a domain {X, P(X)} and a task {Y, P(Y|X)} each
    "photographs to cells": (PHOTOGRAPH, MONO),
    "mono to poly": (MONO, {**MONO, "P(X)": "poly cells"}),
    "a stricter customer": (MONO, {**MONO, "P(Y|X)": "a customer who rejects every crack"}),
    "tomorrow's mono cells": (MONO, dict(MONO)),
}


def _group_prior(answer):
    labels, groups, train, test = _shared_and_unseen()
    seen = np.isin(groups[test], groups[train])
    overall = labels[train].mean()
    share = {g: labels[train][groups[train] == g].mean() for g in np.unique(groups[train])}
    share = np.array([share[g] for g in groups[test][seen]])
    try:
        got = answer(labels.copy(), groups.copy(), train.copy(), test.copy())
    except Exception as error:
        answer(labels.copy(), groups.copy(), train.copy(), test[seen])  # raises as well if that was not the reason
        raise AssertionError(
            f"A test panel that has no training rows raises {type(error).__name__}: nothing is known of it, "
            "so give its cells the share over all training rows."
        ) from error
    assert np.shape(got) == test.shape, (
        f"It should return a score for each of the {len(test)} test rows, shape {test.shape}; "
        f"it returned {type(got).__name__} of shape {np.shape(got)}."
    )
    got = np.asarray(got, dtype=float)
    assert not np.isnan(got[~seen]).any(), (
        "A test panel that has no training rows got NaN, the mean of nothing: give its cells the share over all "
        "training rows."
    )
    elsewhere = labels.copy()
    elsewhere[np.setdiff1d(np.arange(len(labels)), train)] ^= 1
    again = np.asarray(answer(elsewhere, groups.copy(), train.copy(), test.copy()), dtype=float)
    assert np.allclose(got, again), (
        "The scores change when labels outside the training rows change: test labels have taken part. "
        "Count in labels[train] and groups[train] only."
    )
    assert not np.allclose(got, overall), (
        "That is the overall share for everybody, the baseline that does not even know the panel. "
        "Count panel by panel: groups[train] == panel."
    )
    assert not np.allclose(got[seen], 1 - share), "That is the share of label 0: score 1, the defective cells."
    assert not np.array_equal(got[seen], share > 0.5), (
        "That is the panel's majority, a fair answer if only accuracy counts. A score should also say that a panel "
        "of .9 is worse than one of .6: return the share."
    )
    assert np.allclose(got[~seen], overall, atol=1e-3), (
        f"A panel with no training rows got {got[~seen][0]:.3g}. All that is known of it is that it is one of the "
        f"panels: give it the share over all training rows, {overall:.3g}."
    )
    assert any(_between(got[seen], share, centre) for centre in (overall, 0.5)), (
        "A cell's score should be the share of label 1 among the training rows of its panel "
        "(or that share, pulled somewhat towards the overall one)."
    )


def _shared_and_unseen():
    """Rows of six panels in no order, their names no numbers; one panel is in test only, and some rows in neither."""
    rng = np.random.default_rng(0)
    panel = np.repeat(np.arange(6), 24)
    labels = (np.tile(np.arange(24), 6) < np.array([2, 6, 9, 15, 20, 13])[panel]).astype(np.int64)
    order = rng.permutation(len(panel))
    labels, groups = labels[order], np.array(list("qzmaxe"))[panel[order]]
    unseen = groups == "e"
    rest = rng.permutation(np.flatnonzero(~unseen))
    return labels, groups, rest[:70], np.concatenate([np.flatnonzero(unseen), rest[80:]])


def _between(got, share, centre):
    """Is each score its share, or the share pulled towards the centre, but not so far as half the way?"""
    pulled = (share - got) / (share - centre)
    return bool((pulled > -1e-6).all() and (pulled < 0.5).all())


def _group_folds(answer):
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(1000 + np.arange(11), rng.integers(5, 12, 11)))  # 11 panels, in no order
    rows = np.arange(len(groups))
    for k in (3, 5):
        folds = list(answer(groups.copy(), k, 0))
        assert len(folds) == k, f"With k={k} there should be {k} folds, there are {len(folds)}."
        assert all(len(fold) == 2 for fold in folds), "Each fold should be a pair (train, test) of index arrays."
        tested = np.zeros(len(rows), dtype=int)
        for train, test in folds:
            train, test = _rows(train, len(rows)), _rows(test, len(rows))
            assert not np.isin(np.concatenate([train, test]), np.unique(groups)).all(), (
                "Those are names of panels. Turn them into row numbers: np.flatnonzero(np.isin(groups, names))."
            )
            assert np.isin(np.concatenate([train, test]), rows).all(), f"Row numbers run from 0 to {len(rows) - 1}."
            assert len(test), f"With k={k} a fold tests nothing: 11 panels are enough for one or more each."
            both = np.intersect1d(train, test)
            assert not len(both), f"A fold has {len(both)} of {len(rows)} rows in train and in test: it tests on them."
            shared = np.intersect1d(groups[train], groups[test])
            assert not len(shared), (
                f"A fold has {len(shared)} panels on both sides: rows were dealt. Deal the panels, np.unique(groups), "
                "and let the rows follow."
            )
            left_out = len(rows) - len(train) - len(test)
            assert left_out <= 0, (
                f"A fold loses {left_out} of {len(rows)} rows: they are neither in train nor in test. "
                "Train on all that is not tested."
            )
            tested += np.bincount(test, minlength=len(rows))
        assert tested.max() == 1, (
            f"With k={k}, {(tested > 1).sum()} of {len(rows)} rows are tested more than once: do not draw the test "
            "panels anew for each fold, deal them all out once."
        )
        assert tested.all(), (
            f"With k={k}, {(tested == 0).sum()} of {len(rows)} rows are never tested: 11 panels are no multiple of "
            f"{k}, and the remainder needs a fold, too (np.array_split deals it)."
        )


def _rows(index, n):
    """The row numbers that an index array, a list or a mask stands for."""
    index = np.asarray(index)
    if index.dtype == bool:
        assert len(index) == n, f"A mask should have {n} entries, it has {len(index)}."
        return np.flatnonzero(index)
    assert index.ndim == 1 and (index.dtype.kind in "iu" or not len(index)), (
        f"train and test should be one-dimensional arrays of row numbers, got {index.dtype} of shape {index.shape}."
    )
    return index.astype(np.int64)


def _settings(answer):
    """A dict {scenario: setting}, or a rule (source, target) -> setting that must hold beyond the four."""
    assert callable(answer) or isinstance(answer, dict), (
        f"Give a dict {{scenario: setting}} or a function of (source, target), not {type(answer).__name__}."
    )
    if not callable(answer):
        lost = [name for name in SCENARIOS if name not in answer]
        assert not lost, f"No answer for {', '.join(map(repr, lost))}."
    say = {
        name: answer(dict(source), dict(target)) if callable(answer) else answer[name]
        for name, (source, target) in SCENARIOS.items()
    }
    settings = (INDUCTIVE, TRANSDUCTIVE, NONE)
    for name, setting in say.items():
        assert setting in settings, f"{name!r}: the answer should be one of {settings}, it is {setting!r}."
    both, domain, task, neither = say.values()
    assert (both, domain, task) != (TRANSDUCTIVE, INDUCTIVE, TRANSDUCTIVE), (
        "The two words are exchanged. Inductive: the task differs. Transductive: the task stays, the domain differs."
    )
    assert neither == NONE, (
        "Tomorrow's mono cells: same domain, same task. That is the ordinary setting of machine learning, "
        "training and test data of one kind; no transfer is needed."
    )
    assert task != NONE, (
        "A stricter customer: X, P(X) and even Y are the same, but the same cell gets another label. "
        "P(Y|X) is part of the task, so the task differs."
    )
    assert task == INDUCTIVE, (
        "A stricter customer: it is not the images that differ, it is what is said of them. "
        "A different task is inductive."
    )
    assert domain != NONE, (
        "Mono to poly: X, the kind of input, is the same, but P(X) is not: other images are likely now. "
        "P(X) is part of the domain, so the domain differs."
    )
    assert domain == TRANSDUCTIVE, (
        "Mono to poly: the question asked of a cell, healthy or defective, is the same. Only the domain differs: "
        "that is transductive."
    )
    assert both == INDUCTIVE, (
        "Photographs to cells: domain *and* task differ. Look at the task first: where it differs the setting is "
        "inductive, whatever the domains."
    )
    if callable(answer):
        assert answer(MONO, {**MONO, "X": "infrared films"}) == TRANSDUCTIVE, (
            "It is right on the four, but it must hold for others: where X alone differs, the domain does."
        )
        assert answer(MONO, {**MONO, "Y": "crack, dark area, none"}) == INDUCTIVE, (
            "It is right on the four, but it must hold for others: where Y alone differs, the task does."
        )


EXERCISES = {
    "01.1": Exercise(
        _group_prior,
        "Start with every score at labels[train].mean(). Then, for each panel in groups[train], overwrite the scores "
        "of its test rows with the mean of labels[train] where groups[train] is that panel.",
        "def answer(labels, groups, train, test):\n"
        "    scores = np.full(len(test), labels[train].mean())\n"
        "    for group in np.unique(groups[train]):\n"
        "        scores[groups[test] == group] = labels[train][groups[train] == group].mean()\n"
        "    return scores",
    ),
    "01.2": Exercise(
        _group_folds,
        "Shuffle np.unique(groups), cut it in k parts with np.array_split, and let np.isin(groups, part) say which "
        "rows a fold tests.",
        "def answer(groups, k, seed):\n"
        "    names = np.random.default_rng(seed).permutation(np.unique(groups))\n"
        "    tests = [np.isin(groups, part) for part in np.array_split(names, k)]\n"
        "    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]",
    ),
    "01.3": Exercise(
        _settings,
        "Two questions, in this order. Does the task differ, in Y or in P(Y|X)? Then it is inductive, whatever the "
        "domains. If not, does the domain differ, in X or in P(X)? Then it is transductive.",
        "def answer(source, target):\n"
        '    if any(source[part] != target[part] for part in ("Y", "P(Y|X)")):\n'
        '        return "inductive"\n'
        '    if any(source[part] != target[part] for part in ("X", "P(X)")):\n'
        '        return "transductive"\n'
        '    return "no transfer needed"',
    ),
}
