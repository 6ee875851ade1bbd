"""Labels that predictions doubt: confident learning, and labels that neighbours have exchanged."""

import numpy as np
from scipy.stats import poisson

PERMUTATIONS = 200


def doubtful(probabilities, labels):
    """List examples whose label confident learning doubts, the surest first.

    The threshold of class k is how sure the predictions are of it where it is the label, t_k = mean of p_k over the
    examples labelled k. An example is a confident k where p_k ≥ t_k, of several such the one of the largest p_k; it is
    doubtful where that is not its label. (The off-diagonal of the confident joint.)

    Args:
        probabilities: (N, K) of predictions that did not see the example. labels: (N,).

    Returns:
        Index array, by rising probability of the label that was given.

    Northcutt, Jiang, Chuang, Confident learning, JAIR 70, 2021, doi:10.1613/jair.1.12125. Checked against cleanlab.

    >>> p = np.array([[.9, .1], [.8, .2], [.1, .9], [.2, .8], [.05, .95]])
    >>> doubtful(p, np.array([0, 0, 1, 1, 0])).tolist()
    [4]
    """
    p, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    confident = confident_class(p, labels)
    found = np.flatnonzero((confident >= 0) & (confident != labels))
    return found[np.argsort(p[found, labels[found]], kind="stable")]


def confident_class(p, labels):
    """(N,) the class that confident learning gives each example, or −1."""
    threshold = [p[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(p.shape[1])]
    above = np.where(p >= np.array(threshold) - 1e-6, p, -np.inf)
    return np.where(np.isfinite(above.max(1)), above.argmax(1), -1)


def exchanged(probabilities, labels, order, seed=0):
    """Find neighbours whose labels look exchanged, and ask whether neighbours do so more than others.

    Neighbours i, j with labels a ≠ b are a pair where i is a confident b and j a confident a (see `doubtful`). The null
    puts the examples in a random order; so rare an event is nearly Poisson. Wrong labels that stand anywhere make few
    such pairs; a list that slipped by a line makes many.

    Args:
        probabilities: (N, K) of predictions that did not see the example. labels: (N,). order: (N,) what it was sorted
            by, such as the number in a file's name.

    Returns:
        ([(i, j)], each example in one pair at most, the surest first; p that a random order gives as many).

    >>> p, y = np.tile([[.9, .1], [.1, .9]], (10, 1)), np.tile([0, 1], 10)
    >>> y[[4, 5]] = y[[5, 4]]
    >>> exchanged(p, y, np.arange(20))[0]
    [(4, 5)]
    """
    p, labels, rng = np.asarray(probabilities, dtype=float), np.asarray(labels), np.random.default_rng(seed)
    confident = confident_class(p, labels)

    def pairs(sequence):
        i, j = sequence[:-1], sequence[1:]
        fits = (labels[i] != labels[j]) & (confident[i] == labels[j]) & (confident[j] == labels[i])
        return [(int(a), int(b)) for a, b in zip(i[fits], j[fits], strict=True)]

    found = pairs(np.argsort(order, kind="stable"))
    expected = np.mean([len(pairs(rng.permutation(len(labels)))) for _ in range(PERMUTATIONS)])
    chance = float(poisson.sf(len(found) - 1, max(expected, 1 / PERMUTATIONS)))

    # Of pairs that share an example, the surest
    kept, used = [], set()
    for i, j in sorted(found, key=lambda pair: sum(p[a, labels[a]] for a in pair)):
        if not used & {i, j}:
            kept.append((i, j))
            used |= {i, j}
    return kept, chance
