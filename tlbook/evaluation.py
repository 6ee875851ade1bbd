"""How good are these predictions, how sure is that, and what would be reached without looking at all?"""

from dataclasses import dataclass, field
from html import escape

import numpy as np
from scipy.stats import norm, t

from tlbook.table import Table

METRICS = ("accuracy", "balanced_accuracy", "auc", "log_loss")
_AT_ONCE = 2**20  # weights of resampled examples: a handful of arrays of 8 MiB
_MOST_PAIRED = 300  # units whose pairs are counted: with more of them it is quicker to count examples in each draw


@dataclass(frozen=True)
class Evaluation:
    """Scores of N predictions, each with a 95 % interval.

    Attributes:
        accuracy, balanced_accuracy, auc, log_loss: floats; the AUC is macro one-vs-rest for more than two classes.
        within_group_auc: the mean AUC inside the groups that hold several classes: which example of a group, not which
            group. NaN without groups.
        interval: {metric: (low, high)} by bootstrap over whole groups (over examples where there are none), widened
            as few groups require (`_interval`), so that the truth is in 93 to 95 % of them from 10 groups on. It
            covers the luck of which groups were tested; not that of training: other seeds, other training groups.
            Draws in which a class is missing, and a metric so not defined, are left out. (NaN, NaN) where they are
            more than half, and where there is one group only: too few for an interval.
        baselines: {name: {metric: float}} of predictions that never look at an input.
    """

    accuracy: float
    balanced_accuracy: float
    auc: float
    log_loss: float
    within_group_auc: float
    interval: dict
    baselines: dict
    probabilities: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    groups: np.ndarray | None = field(repr=False)
    sample_weight: np.ndarray = field(repr=False)

    @property
    def absent(self):
        """The classes, 0 … K − 1, of which no example was scored: the scores say nothing of them."""
        scored = np.bincount(self.labels, self.sample_weight, self.probabilities.shape[1])
        return np.flatnonzero(scored == 0).tolist()

    def why_no_interval(self, metric):
        """Say in words why a metric has no interval; "" where it has one."""
        if np.isnan(getattr(self, metric)):
            return "not defined where a class is missing"
        if np.isnan(self.interval[metric]).any():
            return f"too few {'examples' if self.groups is None else 'groups'} for an interval"
        return ""

    @property
    def notes(self):
        """Sentences on what the intervals do not say.

        Where no mistake was seen among n, a bootstrap has no width, though up to 1 − .05^(1/n) of others may be
        mistaken: about 3/n, the rule of three (Hanley & Lippman-Hand, 1983, doi:10.1001/jama.1983.03330370053031).
        """
        what = "examples" if self.groups is None else "groups"
        n, (low, high) = _effective_number(self.sample_weight, self.groups), self.interval["auc"]
        if self.groups is not None and n <= 1:
            return ["One group: nothing tells how groups differ"]
        hit = (self.probabilities.argmax(1) == self.labels)[self.sample_weight > 0]
        if hit.all() or not hit.any():
            seen, may = "mistake" if hit.all() else "hit", "be" if self.groups is None else "hold"
            up_to = f"up to {1 - 0.05 ** (1 / n):.0%} of others may {may} {seen}s"
            return [f"No {seen} was seen among {n:.0f} {what}: {up_to}"]
        if low == high and self.auc in (0, 1):
            order = "wrong" if self.auc else "right"
            return [f"No pair stood in the {order} order, so the interval of the AUC has no width"]
        return []

    def __repr__(self):
        of, units = "examples", ""
        if self.groups is not None:
            number = len(np.unique(self.groups))
            of, units = "groups", f" in {number} group{'s' if number > 1 else ''}"
        lines = [f"{len(self.labels):,} examples{units}; 95 % intervals: bootstrap over {of}, of this training alone"]
        for metric in METRICS:
            low, high = self.interval[metric]
            interval = self.why_no_interval(metric) or f"{low:.3f}, {high:.3f}"
            beside = "".join(f"   {name}: {scores[metric]:.3f}" for name, scores in self.baselines.items())
            lines.append(f"{metric.replace('_', ' '):<18} {getattr(self, metric):.3f}  [{interval}]{beside}")
        if not np.isnan(self.within_group_auc):
            lines.append(f"{'within-group AUC':<18} {self.within_group_auc:.3f}")
        lines += self.notes
        if self.absent:
            classes = ", ".join(map(str, self.absent[:10])) + (" …" if len(self.absent) > 10 else "")
            lines.append(f"No example of class {classes} was scored: these scores say nothing of it")
        return "\n".join(lines)

    def _repr_html_(self):
        rows = Table()
        for metric in METRICS:
            low, high = self.interval[metric]
            row = {"": metric.replace("_", " "), "score": f"{getattr(self, metric):.3f}"}
            row |= {"95 % interval": self.why_no_interval(metric) or f"{low:.3f} to {high:.3f}"}
            rows.append(row | {name: f"{scores[metric]:.3f}" for name, scores in self.baselines.items()})
        if not np.isnan(self.within_group_auc):
            rows.append(dict.fromkeys(rows[0], "") | {"": "within-group AUC", "score": f"{self.within_group_auc:.3f}"})
        notes = (line for line in repr(self).splitlines() if not line.startswith(_names_of_scores()))
        return rows._repr_html_() + "".join(f"<p>{escape(note)}</p>" for note in notes)


def _names_of_scores():
    return (*(metric.replace("_", " ") for metric in METRICS), "within-group AUC")


@dataclass(frozen=True)
class Comparison:
    """``difference`` of a metric, a − b, and its 95 % ``interval`` by paired bootstrap over the same groups.

    The interval is widened like those of `Evaluation`, and covers the luck of the groups tested, not that of training;
    (NaN, NaN) where these are too few.
    """

    metric: str
    difference: float
    interval: tuple

    def __repr__(self):
        return f"{self.metric}: a − b = {self.difference:+.3f}  [{self._between(', ')}]"

    def _between(self, word):
        low, high = self.interval
        return "too few examples or groups for an interval" if np.isnan(low) else f"{low:+.3f}{word}{high:+.3f}"

    def _repr_html_(self):
        row = {"a − b of the": self.metric.replace("_", " "), "difference": f"{self.difference:+.3f}"}
        return Table([row | {"95 % interval": self._between(" to ")}])._repr_html_()


def evaluate(probabilities, labels, *, groups=None, sample_weight=None, reference=None, resamples=1000, seed=0):
    """Score probabilities against labels, with intervals and baselines.

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: (N,) integers in 0 … K − 1.
        groups: (N,) what belongs together: the bootstrap draws whole groups.
        sample_weight: (N,) non-negative weights.
        reference: (train_labels, train_groups) adds a baseline that predicts each group's share of classes in the
            training rows: what knowing the group is worth where a split shares groups. Groups not seen in training
            get the overall share.
        resamples, seed: of the bootstrap.

    Returns:
        Evaluation. The baseline "majority" answers with the shares of classes in ``reference``, or else in ``labels``
        themselves. A metric that is not defined (an AUC of one class) is NaN.

    Raises:
        ValueError: shapes that do not agree, labels outside the classes, rows that are not probabilities.

    >>> print(evaluate([[.9, .1], [.2, .8], [.6, .4], [.3, .7]], [0, 1, 1, 1]).auc)
    1.0
    """
    p, y = checked(probabilities, labels)
    if not np.isfinite(p).all() or (p < -1e-6).any() or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise ValueError(
            "each row of probabilities must be finite, not negative, and sum to 1: pass a softmax, not logits"
        )
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    groups = None if groups is None else np.asarray(groups)
    if w.shape != y.shape or (groups is not None and groups.shape != y.shape):
        raise ValueError(f"groups and sample_weight must have {len(y)} entries each")
    if not (w >= 0).all() or not w.sum() > 0:
        raise ValueError("sample_weight must be numbers of at least 0, and not all 0")

    draws = _draws(p, y, w, groups, resamples, seed)
    interval = {m: _interval(draws[m], _effective_number(w, groups)) for m in METRICS}
    share = np.bincount(y if reference is None else reference[0], minlength=p.shape[1]).astype(float)
    baselines = {"majority": np.tile(share / share.sum(), (len(y), 1))}
    if reference is not None and groups is not None:
        baselines["group prior"] = _group_prior(*map(np.asarray, reference), groups, p.shape[1])
    return Evaluation(
        **_scores(p, y, w),
        within_group_auc=_within(p, y, w, groups),
        interval=interval,
        baselines={name: _scores(q, y, w) for name, q in baselines.items()},
        probabilities=p,
        labels=y,
        groups=groups,
        sample_weight=w,
    )


def checked(probabilities, labels):
    """The same as arrays (N, K) and (N,), or a ValueError where they do not fit each other."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise ValueError(f"probabilities must be (N, K) and labels (N,) with N above 0, got {p.shape} and {y.shape}")
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must be integers in 0 … {p.shape[1] - 1}, got {np.unique(y)[:10].tolist()}")
    return p, y


def compare(a, b, *, metric="auc", resamples=2000, seed=0):
    """Compare two evaluations of the same examples: is a better than b beyond the luck of the groups?

    Each bootstrap draw takes the same groups for both. Seeds are not replicates: what varies here is the groups.

    Raises:
        ValueError: the evaluations are of other examples, or the metric is unknown.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
    same = np.array_equal(a.labels, b.labels) and np.array_equal(a.sample_weight, b.sample_weight)
    if (
        not same
        or (a.groups is None) != (b.groups is None)
        or (a.groups is not None and not np.array_equal(a.groups, b.groups))
    ):
        raise ValueError("compare needs two evaluations of the same examples, in the same order")
    of_a, of_b = (_draws(e.probabilities, e.labels, e.sample_weight, e.groups, resamples, seed)[metric] for e in (a, b))
    interval = _interval(of_a - of_b, _effective_number(a.sample_weight, a.groups))
    return Comparison(metric, getattr(a, metric) - getattr(b, metric), interval)


def found_by_inspection(evaluation, positive, shares, *, resamples=1000, seed=0):
    """Return which share of a class is found when the examples of the highest probability of it are inspected first.

    Args:
        evaluation: Evaluation. positive: the class looked for. shares: (S,) of the examples, what is inspected.

    Returns:
        (S, 3) float64: the share found, and its 95 % interval by bootstrap over whole groups.

    >>> e = evaluate([[.1, .9], [.8, .2], [.3, .7], [.4, .6]], [1, 0, 0, 1])
    >>> found_by_inspection(e, 1, [0, .5, 1])[:, 0]
    array([0. , 0.5, 1. ])

    Lesson 06.
    """
    order = np.argsort(-evaluation.probabilities[:, positive], kind="stable")
    hit, w = (evaluation.labels == positive)[order], evaluation.sample_weight[order]
    unit = np.arange(len(order)) if evaluation.groups is None else np.unique(evaluation.groups, return_inverse=True)[1]
    k, rng = unit.max() + 1, np.random.default_rng(seed)
    times = rng.multinomial(k, np.full(k, 1 / k), size=resamples)
    times = np.concatenate([np.ones((1, k), dtype=int), times])  # first the examples as they are
    W = w * times[:, unit[order]]
    inspected, caught = np.cumsum(W, 1), np.cumsum(W * hit, 1)  # (R, N)
    with np.errstate(invalid="ignore"):
        inspected, caught = inspected / inspected[:, -1:], caught / caught[:, -1:]
    found = np.stack(
        [np.interp(shares, np.r_[0, a], np.r_[0, b]) for a, b in zip(inspected, caught, strict=True)]
    )  # (R, S)
    n = _effective_number(evaluation.sample_weight, evaluation.groups)
    return np.stack([[values[0], *_interval(values[1:], n)] for values in found.T])


def _metrics(p, y, w, unit, times):
    """{metric: (R,)} of R draws of the same predictions, which take unit u ``times[r, u]`` times.

    Args:
        p: (N, K). y, w: (N,) labels and weights. unit: (N,) the unit 0 … U − 1 of each. times: (R, U) float64.
    """
    hit, present = p.argmax(1) == y, np.unique(y)  # a draw without one of the present classes has no such score: NaN

    def weight(of=1):
        return times @ np.bincount(unit, w * of, times.shape[1])

    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": weight(hit) / weight(),
            "balanced_accuracy": np.mean([weight(hit & (y == k)) / weight(y == k) for k in present], axis=0),
            "auc": _macro_auc(p, y, w, unit, times),
            "log_loss": weight(-np.log(p[np.arange(len(y)), y].clip(1e-12, 1))) / weight() + 0.0,  # no minus zero
        }


def _macro_auc(p, y, w, unit, times):
    classes = [1] if p.shape[1] == 2 else np.unique(y)
    return np.mean([_auc(p[:, k], y == k, w, unit, times) for k in classes], axis=0)


def _auc(score, positive, w, unit, times):
    """(R,) P(score of a positive > score of a negative) + ½ P(equal) for each draw of `_metrics`.

    Of U units that is (Σ tᵤ tᵥ Aᵤᵥ) / (Σ tᵤ Pᵤ Σ tᵥ Nᵥ), where Aᵤᵥ is the weight of the pairs of a positive of u and a
    negative of v that stand in the right order, half of it where they are equal: it is counted once for all draws.
    """
    level, draws, units = np.unique(score, return_inverse=True)[1], *times.shape
    P, N = (times @ np.bincount(unit[side], w[side], units) for side in (positive, ~positive))
    if units <= _MOST_PAIRED:
        ordered = np.empty((units, units))
        for v in range(units):
            other = ~positive & (unit == v)
            of_level = np.bincount(level[other], w[other], level.max() + 1)
            below = (np.cumsum(of_level) - of_level / 2)[level[positive]]
            ordered[:, v] = np.bincount(unit[positive], w[positive] * below, units)
        pairs = (times @ ordered * times).sum(1)
    else:
        of_level = np.zeros((2, level.max() + 1, draws))
        W = w[:, None] * times.T[unit]
        for found, side in zip(of_level, (positive, ~positive), strict=True):
            np.add.at(found, level[side], W[side])
        pairs = (of_level[0] * (np.cumsum(of_level[1], axis=0) - of_level[1] / 2)).sum(0)
    with np.errstate(invalid="ignore"):  # of a class without weight: NaN
        return pairs / (P * N)


def _scores(p, y, w):
    """{metric: float}"""
    return {metric: float(values[0]) for metric, values in _metrics(p, y, w, *_once(y)).items()}


def _once(y):
    """The one draw of `_metrics` that takes all examples, as one unit, once."""
    return np.zeros(len(y), np.int64), np.ones((1, 1))


def _draws(p, y, w, groups, resamples, seed):
    """{metric: (R,)} of R draws of as many whole groups as there are; `_AT_ONCE` numbers at a time, for the memory."""
    rng = np.random.default_rng(seed)
    unit = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    k = unit.max() + 1
    size = max(1, _AT_ONCE // (k if k <= _MOST_PAIRED else len(y)))
    if k == 1:  # one group says nothing of how groups differ
        return {metric: np.full(resamples, np.nan) for metric in METRICS}
    found = []
    for start in range(0, resamples, size):
        times = rng.multinomial(k, np.full(k, 1 / k), size=min(size, resamples - start))  # each group is drawn
        found.append(_metrics(p, y, w, unit, times.astype(np.float64)))
    return {metric: np.concatenate([scores[metric] for scores in found]) for metric in METRICS}


def _effective_number(w, groups):
    """How many groups (examples, without groups) of equal weight vary as much as these: (Σ w)² / Σ w² (Kish, 1965)."""
    w = w if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], w)
    return w.sum() ** 2 / (w**2).sum()


def _interval(draws, n, level=0.95):
    """(low, high), a 95 % interval (or of another ``level``) from bootstrap draws of ``n`` groups.

    Draws of n groups vary too little, by √((n − 1)/n), and their quantiles take the deviation for known. So the tails
    are not those of ±1.96 but of ±√(n/(n − 1)) times Student's t: the expanded percentile interval (Hesterberg, 2015,
    doi:10.1080/00031305.2015.1089789). (NaN, NaN) where fewer than half of the draws are defined.
    """
    defined = draws[~np.isnan(draws)]
    if not len(draws) or 2 * len(defined) < len(draws) or n <= 1:
        return np.nan, np.nan
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1))
    return tuple(np.quantile(defined, [tail, 1 - tail]).tolist())


def _group_prior(train_labels, train_groups, groups, K):
    """(N, K) each group's class shares in training, or the overall ones where it was not seen."""
    overall = np.bincount(train_labels, minlength=K) / len(train_labels)
    share = {g: np.bincount(train_labels[train_groups == g], minlength=K) for g in np.unique(train_groups)}
    return np.stack([share[g] / share[g].sum() if g in share else overall for g in groups])


def _within(p, y, w, groups):
    if groups is None:
        return float("nan")
    rows = [np.flatnonzero((groups == g) & (w > 0)) for g in np.unique(groups)]
    rows = [r for r in rows if len(np.unique(y[r])) > 1]
    aucs = [_macro_auc(p[r], y[r], w[r], *_once(r))[0] for r in rows]
    return float(np.mean(aucs)) if aucs else float("nan")
