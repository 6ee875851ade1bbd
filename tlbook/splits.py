"""Dividing examples: to fit on, to choose on, to report on; stratified, and groups whole where they are to be."""

from numbers import Integral, Real
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Three disjoint index arrays (int64): fit on ``train``, choose on ``val``, report on ``test``."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def check_share(name, share, least=None):
    if not isinstance(share, Real) or isinstance(share, bool):
        raise TypeError(f"{name} must be a share of the examples, a number such as 0.25, got {share!r}")
    if not (0 < share < 1 or share == least):
        raise ValueError(
            f"{name} must be a share of the examples above 0 and below 1, got {share!r}: 0.25 is a quarter"
        )


def generator(seed):
    if not isinstance(seed, Integral) or seed < 0:
        raise ValueError(
            f"seed must be a whole number of at least 0, got {seed!r}: without one no split is found again"
        )
    return np.random.default_rng(int(seed))


def stratified_parts(labels, groups, shares, rng, draws=100):
    """(N,) the part 0 … P − 1 of each example; part p gets about ``shares[p]`` of every class, groups stay whole.

    Groups are assigned at random ``draws`` times; the draw closest to the wanted class counts is kept. scikit-learn's
    StratifiedGroupKFold places groups of extreme class balance first whatever the seed, so that some panels would
    be tested together in every repeat.

    Raises:
        ValueError: fewer groups, or examples, than parts, or a share too small for one example.
    """
    edges = np.cumsum(shares)[:-1]
    if groups is not None:
        return _stratified_group_parts(labels, groups, shares, edges, rng, draws)

    part = np.empty(len(labels), dtype=np.int64)
    rows_of = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    for rows in rows_of:
        part[rows] = np.searchsorted(edges, (np.arange(len(rows)) + 0.5) / len(rows))
    if len(set(shares)) == 1 and len(labels) >= len(shares) > len(np.unique(part)):
        part[np.concatenate(rows_of)] = np.arange(len(labels)) % len(shares)  # classes smaller than the number of folds
    if len(np.unique(part)) < len(shares):
        raise ValueError(f"{len(labels)} examples are too few for shares {shares}: a part is left empty")
    return part


def _stratified_group_parts(labels, groups, shares, edges, rng, draws):
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < len(shares):
        raise ValueError(
            f"{len(names)} group{'s' if len(names) > 1 else ''} cannot be divided into {len(shares)} parts: at least "
            "one each is needed, and 10 or more to tell how groups differ"
        )
    counts = np.zeros((len(names), labels.max() + 1))  # of each class in each group
    np.add.at(counts, (group, labels), 1)
    wanted = np.outer(shares, counts.sum(0))

    # The best of many random draws
    best, part = np.inf, None
    for _ in range(draws):
        order = rng.permutation(len(names))
        size = counts[order].sum(1)
        part_of = np.empty(len(names), dtype=np.int64)
        part_of[order] = np.searchsorted(edges, (np.cumsum(size) - size / 2) / size.sum())
        got = np.zeros_like(wanted)
        np.add.at(got, part_of, counts)
        miss = np.abs(got - wanted).sum()
        if miss < best and len(np.unique(part_of)) == len(shares):
            best, part = miss, part_of[group]
    if part is not None:
        return part

    # A few groups so large that each draw left a part empty: the largest first, each to where most is lacking
    size, part_of, lacking = counts.sum(1), np.empty(len(names), dtype=np.int64), wanted.sum(1)
    order = rng.permutation(len(names))
    for left, g in zip(range(len(names), 0, -1), order[np.argsort(-size[order], kind="stable")], strict=True):
        empty = lacking == wanted.sum(1)
        part_of[g] = np.where(empty | (left > empty.sum()), lacking, -np.inf).argmax()
        lacking[part_of[g]] -= size[g]
    return part_of[group]


def few(rows, labels, n, seed=0):
    """Draw ``n`` of ``rows`` at random, the classes taken in turn, so that none has more than one example more.

    Args:
        rows: integers, positions in ``labels``. labels: (N,) classes. n: how many; a class that has run out is passed
            over.

    Returns:
        A sorted index array.

    Raises:
        ValueError: ``n`` is not between 1 and the number of rows.

    >>> labels = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    >>> labels[few(np.arange(8), labels, 5)].tolist()
    [0, 0, 1, 1, 2]
    """
    rows, labels = np.asarray(rows), np.asarray(labels)
    if not 1 <= n <= len(rows):
        raise ValueError(f"n must be between 1 and the {len(rows)} rows, got {n!r}")
    rows = generator(seed).permutation(rows)
    turn = np.empty(len(rows), dtype=np.int64)  # the how-manieth of its class
    for k in np.unique(labels[rows]):
        of_class = np.flatnonzero(labels[rows] == k)
        turn[of_class] = np.arange(len(of_class))
    return np.sort(rows[np.argsort(turn, kind="stable")[:n]])
