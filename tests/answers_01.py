"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, KFold

from tlbook.course.exercises.lesson_01 import SCENARIOS


def prior(labels, groups, train, test, *, rows=None, unseen=None, pull=0, of=np.mean):
    """The group prior with room for what can go wrong: counted in other rows, another answer for unseen panels, …"""
    rows = train if rows is None else rows
    overall = labels[rows].mean()
    return np.array(
        [
            (of(mine) * len(mine) + pull * overall) / (len(mine) + pull)
            if len(mine := labels[rows][groups[rows] == group])
            else (overall if unseen is None else unseen)
            for group in groups[test]
        ]
    )


def by_dict(labels, groups, train, test):
    share = {g: labels[train][groups[train] == g].mean() for g in set(groups[train])}
    return [share.get(g, labels[train].mean()) for g in groups[test]]


def from_evaluate(labels, groups, train, test):
    from tlbook.evaluation import _group_prior

    return _group_prior(labels[train], groups[train], groups[test], 2)[:, 1]


def laplace(labels, groups, train, test):
    inside = groups[train][:, None] == groups[test]
    n, positive = inside.sum(0), (inside * labels[train][:, None]).sum(0)
    return np.where(n > 0, (positive + 1) / (n + 2), labels[train].mean())


def own_rows(labels, groups, train, test):
    return np.array([labels[groups == g].mean() for g in groups[test]])


def no_unseen(labels, groups, train, test):
    share = {g: labels[train][groups[train] == g].mean() for g in set(groups[train])}
    return np.array([share[g] for g in groups[test]])


def deal(groups, k, seed):
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return [np.isin(groups, names[fold::k]) for fold in range(k)]


def pairs(tests):
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]


def rounded_down(groups, k, seed):
    names, size = np.unique(groups), len(np.unique(groups)) // k
    return pairs([np.isin(groups, names[i * size : (i + 1) * size]) for i in range(k)])


def names_for_rows(groups, k, seed):
    parts = np.array_split(np.unique(groups), k)
    return [(np.setdiff1d(groups, part), part) for part in parts]


def train_on_all(groups, k, seed):
    return [(np.arange(len(groups)), test) for _, test in pairs(deal(groups, k, seed))]


def train_on_the_next(groups, k, seed):
    tests = [test for _, test in pairs(deal(groups, k, seed))]
    return [(tests[(i + 1) % k], test) for i, test in enumerate(tests)]


def drawn_anew(groups, k, seed):
    return list(GroupShuffleSplit(k, test_size=0.6, random_state=0).split(groups, groups=groups))


def rule(source, target, task=("Y", "P(Y|X)"), domain=("X", "P(X)"), words=("inductive", "transductive")):
    for parts, word in zip((task, domain), words, strict=True):
        if any(source[part] != target[part] for part in parts):
            return word
    return "no transfer needed"


def domain_first(source, target):
    return rule(source, target, ("X", "P(X)"), ("Y", "P(Y|X)"), ("transductive", "inductive"))


FOUR = {name: rule(*pair) for name, pair in SCENARIOS.items()}
RIGHT = {
    "01.1": [prior, by_dict, from_evaluate, laplace, lambda *a: prior(*a, pull=4)],
    "01.2": [
        lambda groups, k, seed: pairs(deal(groups, k, seed)),
        lambda groups, k, seed: [(~test, test) for test in deal(groups, k, seed)],
        lambda groups, k, seed: GroupKFold(k).split(groups, groups=groups),
        lambda groups, k, seed: [[index.tolist() for index in fold] for fold in pairs(deal(groups, k, 7))],
    ],
    "01.3": [rule, FOUR],
}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "test labels too": ("01.1", own_rows, "test labels have taken part"),
    "fails on unseen panels": ("01.1", no_unseen, "no training rows raises KeyError"),
    "NaN for unseen panels": ("01.1", lambda *a: prior(*a, unseen=np.nan), "the mean of nothing"),
    "unseen panels are healthy": ("01.1", lambda *a: prior(*a, unseen=0), "no training rows got 0"),
    "the same for everybody": ("01.1", lambda *a: np.full(len(a[3]), a[0][a[2]].mean()), "for everybody"),
    "the other class": ("01.1", lambda *a: 1 - prior(*a), "share of label 0"),
    "the majority": ("01.1", lambda *a: prior(*a, of=lambda y: float(y.mean() > 0.5)), "the panel's majority"),
    "pulled too far": ("01.1", lambda *a: prior(*a, pull=1000), "its panel"),
    "a score for each panel": ("01.1", lambda *a: np.unique(prior(*a)), "for each of the"),
    "rows are dealt": ("01.2", lambda g, k, seed: KFold(k, shuffle=True, random_state=0).split(g), "on both sides"),
    "remainder lost": ("01.2", rounded_down, "never tested"),
    "train on all": ("01.2", train_on_all, "in train and in test"),
    "train on one other fold": ("01.2", train_on_the_next, "neither in train nor in test"),
    "drawn anew": ("01.2", drawn_anew, "more than once"),
    "another number of folds": ("01.2", lambda g, k, seed: pairs(deal(g, k + 1, seed)), "should be 3 folds"),
    "names of panels": ("01.2", names_for_rows, "names of panels"),
    "three parts": ("01.2", lambda g, k, seed: [(*fold, []) for fold in pairs(deal(g, k, 0))], "a pair (train, test)"),
    "an empty fold": ("01.2", lambda g, k, seed: pairs([g > 0, g < 0, g < 0]), "tests nothing"),
    "exchanged": ("01.3", lambda *a: rule(*a, words=("transductive", "inductive")), "are exchanged"),
    "domain first": ("01.3", domain_first, "whatever the domains"),
    "the answers only": ("01.3", lambda *a: rule(*a, task=["Y"]), "the same cell gets another label"),
    "the kind of input only": ("01.3", lambda *a: rule(*a, domain=["X"]), "P(X) is part of the domain"),
    "any difference is inductive": (
        "01.3",
        lambda *a: rule(*a, words=["inductive"] * 2),
        "the question asked",
    ),
    "any difference is transductive": ("01.3", lambda *a: rule(*a, words=["transductive"] * 2), "said of them"),
    "always transfer": ("01.3", dict.fromkeys(FOUR, "inductive"), "ordinary setting"),
    "a word of one's own": ("01.3", dict.fromkeys(FOUR, "fine-tuning"), "should be one of"),
    "one left out": ("01.3", {"mono to poly": "transductive"}, "No answer for 'photographs to cells'"),
    "right on the four alone": ("01.3", lambda *a: rule(*a, task=["P(Y|X)"]), "where Y alone differs"),
    "no rule": ("01.3", "inductive", "a function of (source, target)"),
}
