"""What can be read from what? A label from a fact or from the border alone, and a fact from the features."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from tlbook.data import Dataset
from tlbook.evaluation import evaluate
from tlbook.feature_extraction import Features
from tlbook.probes import cross_val_predict, linear_probe
from tlbook.splits import Split

PERMUTATIONS = 200
MARGIN = 0.1  # of AUC above .5: less is not worth an accusation, however sure it is
BORDER = 4  # pixels of 64: the outermost sixteenth on every side
INSIDE = 20  # where the ring begins that the border is compared with


class Reading(NamedTuple):
    """An AUC, and the probability ``p`` that chance gives as much."""

    auc: float
    p: float


def folds_of(labels, groups, seed=0):
    """Splits that hold out each example once: four, or fewer where a class or the groups are few."""
    rarest = np.bincount(labels)[np.unique(labels)].min() if groups is None else len(np.unique(groups))
    data = Dataset(labels, labels, [str(k) for k in range(labels.max() + 1)], groups)
    by = "random" if groups is None else "group"
    return data.folds(int(min(4, max(2, rarest))), by=by, seed=seed)


def label_from(fact, labels, groups=None, seed=0):
    """Predict the label from a fact alone, cross-fitted: the share of each class among the examples of near values.

    Those are the √n examples whose values are nearest in rank, and all that have the same value. The null is that the
    labels are dealt out anew, `PERMUTATIONS` times (fewer for many classes); its AUC being nearly normal, p is taken
    from mean and deviation.

    Args:
        fact: `Fact`. labels: (n,). groups: (n,) or None; a group is held out whole.

    Returns:
        ((n, K) probabilities, Reading). The AUC is macro one-vs-rest for more than two classes.
    """
    rng, K = np.random.default_rng(seed), labels.max() + 1
    near = []
    for train, _, test in folds_of(labels, groups, seed):
        near.append((test, train, *_near(fact, train, test)))

    def predict(labels):
        p = np.empty((len(labels), K))
        for test, train, low, high, order in near:
            total = np.concatenate([np.zeros((1, K)), np.eye(K)[labels[train[order]]].cumsum(0)])  # of the first n
            p[test] = (total[high] - total[low] + total[-1] / len(train)) / (high - low + 1)[:, None]
        return p

    p, draws = predict(labels), max(20, min(PERMUTATIONS, 10 * PERMUTATIONS // K))
    shuffled = (rng.permutation(labels) for _ in range(draws))
    return p, reading(macro_auc(p, labels), [macro_auc(predict(y), y) for y in shuffled])


def _near(fact, train, test):
    """(low, high, order): the examples near each of ``test`` are ``train[order[low:high]]``."""
    order = np.argsort(fact.values[train], kind="stable")
    values = fact.values[train][order]
    low, high = (np.searchsorted(values, fact.values[test], side) for side in ("left", "right"))
    if fact.names is None:
        more = np.maximum(0, round(np.sqrt(len(train))) - (high - low))
        low, high = low - more // 2, high + more - more // 2
        shift = np.maximum(-low, 0) - np.maximum(high - len(train), 0)  # windows at the ends stay as wide
        low, high = (low + shift).clip(0), (high + shift).clip(max=len(train))
    return low, high, order


def macro_auc(p, labels):
    """The AUC of (n, K) scores: of the second class, or the mean over the classes, each against the others."""
    K = p.shape[1]
    aucs = []
    for k in [1] if K == 2 else range(K):
        positive = labels == k
        n1, n0 = positive.sum(), (~positive).sum()
        if n1 and n0:
            aucs.append((rankdata(p[:, k])[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))
    return float(np.mean(aucs)) if aucs else float("nan")


def reading(auc, null):
    """A `Reading` from the AUC and those of permutations."""
    deviation = max(float(np.std(null)), 1e-9)
    return Reading(auc, float(norm.sf((auc - np.mean(null)) / deviation)))


def nearest_within(z, labels, apart=None):
    """(N,) the nearest example of the same class (and another group, where given); −1 where there is none."""
    nearest = np.full(len(z), -1)
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k)
        for rows in np.array_split(members, len(members) // 1024 + 1):
            alike = z[rows] @ z[members].T
            alike[rows[:, None] == members] = -np.inf
            if apart is not None:
                alike[apart[rows][:, None] == apart[members]] = -np.inf
            best = alike.argmax(1)
            nearest[rows] = np.where(np.isfinite(alike.max(1)), members[best], -1)
    return nearest


def fact_from_features(fact, nearest, labels, seed=0):
    """Tell how well the features know a fact: is the look-alike of an image nearer in it than other images are?

        AUC = P(|v(i) − v(nearest to i)| < |v(i) − v(j)|) + ½ P(equal),   j another example of the class of i

    Only images of one class are compared, so that the label is not the reason. Names are 0 or 1 apart.

    Args:
        fact: `Fact`. nearest: from `nearest_within`. labels: (n,).

    Returns:
        Reading: .5 where the features do not know the fact; the null deals its values out anew within each class.
    """
    rng, rows = np.random.default_rng(seed), np.flatnonzero(nearest >= 0)
    groups = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    ranks = fact.values if fact.names else rankdata(fact.values)

    def closeness(v):
        total = 0.0
        for members in groups:
            inside = members[nearest[members] >= 0]
            if not len(inside):
                continue
            others = np.sort(v[members])
            own, mate = v[inside], v[nearest[inside]]
            if fact.names:
                same = np.searchsorted(others, own, "right") - np.searchsorted(others, own, "left") - 1
                n = max(len(members) - 1, 1)
                total += np.where(own == mate, 1 - 0.5 * same / n, 0.5 * (n - same) / n).sum()
                continue
            d = np.abs(own - mate)
            nearer = np.searchsorted(others, own + d, "left") - np.searchsorted(others, own - d, "right")
            upto = np.searchsorted(others, own + d, "right") - np.searchsorted(others, own - d, "left")
            nearer, upto = np.where(d > 0, nearer - 1, 0), upto - 1  # without itself
            total += (1 - (nearer + upto) / 2 / max(len(members) - 1, 1)).sum()
        return total / max(len(rows), 1)

    null = []
    for _ in range(PERMUTATIONS):
        v = ranks.copy()
        for members in groups:
            v[members] = v[rng.permutation(members)]
        null.append(closeness(v))
    return reading(closeness(ranks), null)


def scores_of(X, labels, groups=None, C=None):
    """(N, K) probabilities of each example from the linear probe that did not see it, nor its group."""
    features = Features(np.asarray(X, dtype=np.float32), labels, groups, {"X": slice(0, X.shape[1])})
    if C is not None:
        return cross_val_predict(features, folds_of(labels, groups), C=C)
    every = np.arange(len(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # weak penalties that are tried and not taken
        return linear_probe(features, Split(every, every[:0], every[:0])).scores


def border_and_inside(colour, labels, groups=None):
    """Score the label from the outermost pixels alone, and from a ring as wide further in.

    A texture, a sky or a lawn is as telling further in as at the edge. A frame, a scanner's shadow, a stamp is not.

    Args:
        colour: (N, 64, 64, 3) uint8.

    Returns:
        (Evaluation of the border, Evaluation of the ring inside).
    """
    found = []
    for start in (0, INSIDE):
        p = scores_of(_ring(colour, start), labels, groups, C=0.1)
        found.append(evaluate(p, labels, groups=groups, resamples=1))
    return tuple(found)


def _ring(colour, start, pieces=4):
    """(N, 96): mean and deviation of each colour in four pieces of each side of a ring `BORDER` pixels wide."""
    square = colour[:, start : 64 - start, start : 64 - start].astype(np.float32)
    sides = [square[:, :BORDER], square[:, -BORDER:], square[:, :, :BORDER], square[:, :, -BORDER:]]
    parts = []
    for axis, side in zip((2, 2, 1, 1), sides, strict=True):
        for piece in np.array_split(side, pieces, axis=axis):
            parts += [piece.mean((1, 2)), piece.std((1, 2))]
    return np.concatenate(parts, 1)
