"""From probabilities to decisions: may they be believed, what costs least, which set is sure, is it known at all?

    temperature     p(k) ∝ p(k)^(1/T), T of the lowest log loss                      Guo et al., 2017
    least cost      the class of the largest c(k) p(k), c(k) the price of missing a k    Elkan, 2001
    conformal set   {k : 1 − p(k) ≤ q}, q a quantile of 1 − p(true class)      Angelopoulos & Bates, 2021
                    of a new group: the quantile of the average group         Lee, Barber & Willett, 2023
    known           share of validation as far from its k-th nearest in training        Sun et al., 2022

Everything is fitted on examples that the classifier was not trained on: those of validation. What it promises, it
promises of examples drawn like these; of new groups, only where whole groups were held out.

Lesson 07 and the appendix on decisions.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from tlbook.evaluation import _effective_number, checked
from tlbook.table import Table

FEWEST = 20  # validation examples to fit on
BANK = 2000  # training examples that distances are measured to
NEAREST = 10  # the k of the k-th nearest
AT_ONCE = 1000  # examples whose distances are in memory together


def temperature(probabilities, labels, sample_weight=None):
    """Find the T by which the logits should have been divided: that of the lowest log loss.

        T = argmin over T of  − Σᵢ wᵢ log p_T(yᵢ | xᵢ),      p_T(k) ∝ p(k)^(1/T)

    Above 1 where the classifier is too sure of itself. The order of the classes, and so accuracy, stays. It is not
    made surer than the examples can tell: n of them without a mistake do not show that the next is one less often than
    1 in n + 1, so that below 1 no T is returned at which the mean of 1 − p_T(answer) is less.

    Args:
        probabilities: (N, K) of examples that it was not trained on. labels: (N,). sample_weight: (N,) or None.

    Returns:
        float in 0.05 … 20.

    Raises:
        ValueError: shapes that do not fit.

    >>> p = np.array([[.99, .01]] * 10)
    >>> T = temperature(p, [0] * 8 + [1] * 2)  # right in eight of ten, and sure in ten of ten
    >>> scaled(p, T)[0].round(3)
    array([0.8, 0.2])

    Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
    """
    p, labels = checked(probabilities, labels)
    log_p, rows = np.log(p.clip(1e-12)), np.arange(len(p))
    weight = np.ones(len(p)) if sample_weight is None else np.asarray(sample_weight, dtype=float)

    def loss(log_T):
        z = log_p * np.exp(-log_T)
        z = z - z.max(1, keepdims=True)
        return np.average(np.log(np.exp(z).sum(1)) - z[rows, labels], weights=weight)

    def doubt(log_T):  # of the answers, beyond the least that so many examples can tell
        mistaken = 1 - scaled(p, np.exp(log_T)).max(1)
        return np.average(mistaken, weights=weight) - 1 / (_effective_number(weight, None) + 1)

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x
    if best < 0 and doubt(best) < 0:
        best = brentq(doubt, best, 0) if doubt(0) > 0 else 0.0
    return float(np.exp(best))


def scaled(probabilities, T):
    """Return (N, K) probabilities p(k)^(1/T) / Σ p^(1/T).

    >>> scaled([[.9, .1]], 2.0).round(2)
    array([[0.75, 0.25]])
    """
    log_p = np.log(np.asarray(probabilities, dtype=float).clip(1e-12)) / T
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def reliability(probabilities, labels, bins=10):
    """Set the probability of the answer beside how often it is right, in bins of equally many examples.

    Args:
        probabilities: (N, K). labels: (N,). bins: at most; each has at least five examples.

    Returns:
        Table of examples, said (mean probability of the answer) and right (share).

    >>> reliability([[.9, .1]] * 10, [0] * 9 + [1], bins=1)
    examples   said  right
    --------  -----  -----
          10  0.900  0.900
    """
    p, labels = checked(probabilities, labels)
    said, right = p.max(1), p.argmax(1) == labels
    parts = np.array_split(np.argsort(said, kind="stable"), max(1, min(bins, len(p) // 5)))
    return Table(
        {"examples": len(rows), "said": float(said[rows].mean()), "right": float(right[rows].mean())} for rows in parts
    )


def calibration_error(probabilities, labels, bins=10):
    """Return the mean distance of `reliability` from the diagonal (the expected calibration error).

    >>> round(calibration_error([[.9, .1]] * 10, [0] * 7 + [1] * 3, bins=1), 2)
    0.2
    """
    rows = reliability(probabilities, labels, bins)
    return float(np.average([abs(r["said"] - r["right"]) for r in rows], weights=[r["examples"] for r in rows]))


def least_cost(probabilities, costs):
    """Answer each example with the class that costs least where the probabilities can be believed.

    To answer j costs Σ over k ≠ j of c(k) p(k): least where c(j) p(j) is largest. For two classes that is a threshold:
    the second from p(2) ≥ c(1) / (c(1) + c(2)) on.

    Args:
        probabilities: (N, K). costs: (K,) above 0, what it costs to miss an example of each class.

    Returns:
        (N,) int64 answers.

    >>> least_cost([[.95, .05], [.88, .12]], [1, 10]).tolist()  # a miss of the second costs ten: from 1/11 on
    [0, 1]

    Elkan, The foundations of cost-sensitive learning, IJCAI 2001.
    """
    p, costs = np.asarray(probabilities, dtype=float), np.asarray(costs, dtype=float)
    if costs.shape != p.shape[1:] or not (np.isfinite(costs) & (costs > 0)).all():
        raise ValueError(f"costs must be {p.shape[1]} numbers above 0, one for each class, got {costs.tolist()}")
    return (p * costs).argmax(1)


def conformal_limit(scores, coverage=0.9, groups=None):
    """Return the limit q that a new example's score stays below with probability ``coverage``.

    Scores are 1 − p(true class) of validation examples, and the set of a new example is {k : 1 − p(k) ≤ q}. Without
    groups, q is the ⌈(N + 1) coverage⌉-th smallest score: the promise is of new examples drawn like these. With groups,
    q is the ``coverage`` quantile of

        Σ over groups g of 1/(G + 1) · (the scores of g, equally likely)  +  1/(G + 1) · ∞

    and the promise is of an example of a new group, the groups drawn like these. It is about the average group: some
    are covered less. It costs groups: with G of them no more than G / (G + 1) can be promised.

    Args:
        scores: (N,). coverage: in 0 … 1. groups: (N,) or None.

    Returns:
        float; infinity, and every class in every set, where the examples or groups are too few for the promise.

    >>> conformal_limit(np.arange(1, 20) / 20, 0.9)
    0.9
    >>> conformal_limit([.1, .2, .3], 0.9, groups=[0, 1, 2])
    inf

    Angelopoulos & Bates, A gentle introduction to conformal prediction, 2021, arXiv:2107.07511. Lee, Barber, Willett,
    Distribution-free inference with hierarchical data, 2023, arXiv:2306.06342.
    """
    scores = np.asarray(scores, dtype=float)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, got {coverage!r}: 0.9 is nine in ten")
    names, of = np.unique(np.arange(len(scores)) if groups is None else groups, return_inverse=True)
    mass = 1 / (len(names) + 1) / np.bincount(of)[of]
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(mass[order]) >= coverage - 1e-12
    return float(scores[order][reached.argmax()]) if reached.any() else float("inf")


def sets(probabilities, limit):
    """Return (N, K) booleans: which classes are in the set {k : 1 − p(k) ≤ limit}; the likeliest always is.

    >>> sets([[.95, .05], [.6, .4]], 0.7).astype(int)
    array([[1, 0],
           [1, 1]])
    """
    p = np.asarray(probabilities, dtype=float)
    return (1 - p <= limit) | (p == p.max(1, keepdims=True))


def distances(X, bank, k=NEAREST):
    """Return (N,) how far each example is from the k-th nearest of the bank, features with length 1.

    Args:
        X: (N, D) features. bank: (M, D) features of training examples.

    Sun, Ming, Zhu, Li, Out-of-distribution detection with deep nearest neighbors, ICML 2022, arXiv:2204.06507.

    >>> distances([[2., 0.], [0., 3.]], [[1., 0.], [5., 0.]], k=2).round(3)
    array([0.   , 1.414], dtype=float32)
    """
    X, bank = _unit(X), _unit(bank)
    place = len(bank) - min(k, len(bank))
    blocks = np.split(X, range(AT_ONCE, len(X), AT_ONCE))
    similarity = np.concatenate([np.partition(block @ bank.T, place, axis=1)[:, place] for block in blocks])
    return np.sqrt((2 - 2 * similarity).clip(0))


def _unit(X):
    X = np.asarray(X, dtype=np.float32)
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Decider:
    """What turns probabilities and features into decisions; fitted on validation by `fit`.

    Attributes:
        T: the temperature; 1 where none is surely needed.
        limit: of conformal sets; coverage: what they promise; by_group: of whole new groups.
        bank: (M, D) float16 features of training examples.
        far: (V,) sorted distances of the validation examples to the bank.
        examples, groups: how many it was fitted on (groups is None without).
        by_folds: whether each of these was predicted by a fit to other folds, and not held out from them all.
    """

    T: float
    limit: float
    coverage: float
    by_group: bool
    bank: np.ndarray
    far: np.ndarray
    examples: int
    groups: int | None
    by_folds: bool = False

    def probabilities(self, p):
        """(N, K) calibrated probabilities of those that the classifier gave."""
        return scaled(p, self.T)

    def sets(self, calibrated):
        """(N, K) booleans: the classes that cannot be excluded with the coverage promised."""
        return sets(calibrated, self.limit)

    def known(self, X):
        """(N,) the share of validation examples that are as far from the training examples: small is strange.

        Of examples like those of validation, a share α gets less than α. So "none of these" at less than .05 is a false
        alarm in one of twenty.
        """
        far = distances(X, self.bank)
        return (1 + len(self.far) - np.searchsorted(self.far, far, "left")) / (1 + len(self.far))


def fit(probabilities, labels, X, bank, groups=None, coverage=0.9, far=None, seed=0):
    """Fit a `Decider` on validation examples.

    Args:
        probabilities: (V, K), labels: (V,), X: (V, D) features and groups: (V,) or None of the validation examples.
        bank: (M, D) features of the training examples; `BANK` of them are kept, drawn at random.
        coverage: of the sets.
        far: distances of such examples to training examples, where ``bank`` holds them too; X is not needed then.

    Returns:
        Decider

    Raises:
        ValueError: fewer than `FEWEST` validation examples.
    """
    p, labels = checked(probabilities, labels)
    if len(p) < FEWEST:
        raise ValueError(f"{len(p)} validation examples are too few to calibrate on: at least {FEWEST} are needed")
    T = _temperature_that_is_needed(p, labels, groups)
    scores = 1 - scaled(p, T)[np.arange(len(p)), labels]
    kept = np.sort(np.random.default_rng(seed).permutation(len(bank))[:BANK])
    bank = _unit(np.asarray(bank)[kept]).astype(np.float16)
    return Decider(
        T=T,
        limit=conformal_limit(scores, coverage, groups),
        coverage=coverage,
        by_group=groups is not None,
        bank=bank,
        far=np.sort(distances(X, bank) if far is None else far).astype(np.float32),
        examples=len(p),
        groups=None if groups is None else len(np.unique(groups)),
    )


def _temperature_that_is_needed(p, labels, groups):
    """The temperature, or 1 where its gain in log loss is within a standard error over groups (or examples) of none.

    Few groups tell little of it: without this, what needs no repair would be made worse by chance.
    """
    T, rows = temperature(p, labels), np.arange(len(p))
    gain = np.log(scaled(p, T)[rows, labels].clip(1e-12)) - np.log(p[rows, labels].clip(1e-12))
    if groups is not None:
        of = np.unique(groups, return_inverse=True)[1]
        gain = np.bincount(of, gain) / np.bincount(of)
    is_sure = len(gain) > 1 and gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain))
    return T if is_sure else 1.0
