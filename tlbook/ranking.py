"""Which source, before paying for fine-tuning? Four scores of a source on N labelled target examples; higher is better.

| score | looks at | asks |
| --- | --- | --- |
| `logme` | features (N, D) | how probable are the labels under a linear model whose weights are integrated out? |
| `h_score` | features (N, D) | how far apart are the class means, in units of the spread of the features? |
| `leep` | source probabilities (N, Z) | how well do the classes of the source predict those of the target? |
| `nce` | source labels (N,) | the same, from hard labels |

All in float64, on the GPU where `tlbook.device.choose` says CUDA, else on the CPU. Compare scores of the same examples.

You et al., LogME: practical assessment of pre-trained models for transfer learning, ICML 2021, arXiv:2102.11005.
Nguyen et al., LEEP: a new measure to evaluate transferability of learned representations, ICML 2020, arXiv:2002.12462.
Tran, Nguyen, Hassner, Transferability and hardness of supervised classification tasks, ICCV 2019 (NCE).
Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019 (H-score).
Ibrahim, Ponomareva, Mazumder, Newer is not always better: rethinking transferability metrics, 2021, arXiv:2110.06893.
Ledoit, Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis 88, 2004.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import logsigmoid, one_hot

from tlbook import device

EPS = torch.finfo(torch.float64).eps
SAFE = 1e-9  # of the largest: what a sum of squares in float64 still resolves to seven digits


def logme(X, y):
    """Return the largest log evidence of a Bayesian linear model on the features: mean over classes, per example.

    The column Y_c (N,) of the one-hot labels is modelled as X w + ε with w ~ N(0, α⁻¹ I) and ε ~ N(0, β⁻¹ I), and

        LogME = 1/K Σ_c max over α, β of 1/N log N(Y_c; 0, β⁻¹ I + α⁻¹ X Xᵀ)

    The ratio λ = α/β is all there is to search: in the singular basis of X, with σᵢ the squared singular values, zᵢ the
    coordinates of Y_c and r the squared norm of what lies outside of the columns of X, the best β is N / Q(λ), and

        log evidence(λ) = −N/2 (log(2π Q/N) + 1) − ½ Σᵢ log(1 + σᵢ/λ)        Q(λ) = r + Σᵢ zᵢ² λ/(λ + σᵢ)

    One decomposition serves all classes. N may be below D: directions without data drop out of the evidence.

    Args:
        X: (N, D) features, not centred here, as published; a rotation or a common factor changes nothing.
        y: (N,) integer labels; the K classes that occur are counted.

    Returns:
        float; ``inf`` where fewer than N independent directions give a class without any error: then the evidence
        grows without bound.

    Raises:
        ValueError: X or y of another shape or type, values that are not finite, fewer than two classes.

    >>> noise = np.random.default_rng(0).normal(size=(200, 5))
    >>> y = np.arange(200) % 2
    >>> logme(noise + 2 * y[:, None], y) > logme(noise, y)
    True

    You et al., ICML 2021.
    """
    X, onehot = _check_features(X, y)
    sigma, z2, rest = _spectrum(X, onehot)
    exact = rest <= (max(X.shape) * EPS) ** 2 * onehot.sum(0)
    if len(sigma) < len(X) and exact.any():
        return math.inf
    return (_max_evidence(sigma, z2, rest, len(X)).mean() / len(X)).item()


def _spectrum(X, Y):
    """Squared singular values σ (k,) of X, squared coordinates (k, K) of Y along them, and what is left of Y: (K,)."""
    N, D = X.shape

    # 1) the Gram matrix, twice as fast, where squaring X and subtracting from |Y|² leave seven digits
    sigma, V = torch.linalg.eigh(X.T @ X if N > D else X @ X.T)
    if sigma[0] > SAFE * sigma[-1]:
        z2 = (V.T @ (X.T @ Y)) ** 2 / sigma[:, None] if N > D else (V.T @ Y) ** 2
        rest = (Y**2).sum(0) - z2.sum(0) if N > D else torch.zeros_like(Y[0])
        if N <= D or (rest > SAFE * (Y**2).sum(0)).all():
            return sigma.flip(0), z2.flip(0), rest

    # 2) else the triangle of [X Y] = Q R, which holds all three without a square or a difference
    if N > D:
        R = torch.linalg.qr(torch.cat([X, Y], dim=1), mode="r").R
        square, Y, rest = R[:D, :D], R[:D, D:], (R[D:, D:] ** 2).sum(0)
    else:
        square, rest = torch.linalg.qr(X.T, mode="r").R.T, torch.zeros_like(Y[0])
    U, S, _ = torch.linalg.svd(square)
    z2 = (U.T @ Y) ** 2
    rank = int((S > S[0] * max(N, D) * EPS).sum())
    return S[:rank] ** 2, z2[:rank], rest + z2[rank:].sum(0)


def _max_evidence(sigma, z2, rest, N):
    """(K,) largest log evidence over t = log λ: at a falling zero of its slope (there can be several), or at λ → 0.

    Its terms are logistic functions of t, which change little within a quarter and are at their limits at both ends.
    """
    first, last = (math.log(s) for s in (sigma[-1], sigma[0])) if len(sigma) else (0.0, 0.0)
    grid = torch.arange(first - 80, last + 40, 0.25, dtype=torch.float64, device=rest.device)
    value, slope = _evidence(grid, sigma, lambda a: a @ z2, rest, N)  # (T, K)
    at_zero = value[0]

    # bisect the derivative between neighbours on the grid where it falls to 0; no signal: where only rounding is left
    rising = slope > 1e-13 * N
    j, c = (rising[:-1] & ~rising[1:]).nonzero(as_tuple=True)
    low, high = grid[j], grid[j + 1]
    for _ in range(30):
        middle = (low + high) / 2
        value, slope = _evidence(middle, sigma, lambda a: (a * z2.T[c]).sum(1, keepdim=True), rest[c, None], N)
        low, high = torch.where(slope[:, 0] > 0, middle, low), torch.where(slope[:, 0] > 0, high, middle)
    return at_zero.scatter_reduce(0, c, value[:, 0], "amax")


def _evidence(t, sigma, project, rest, N):
    """Log evidence and its derivative in t = log λ; ``project`` sums (T, k) shares with the weights z²."""
    gap = t[:, None] - sigma.log()  # (T, k)
    noise, signal = gap.sigmoid(), (-gap).sigmoid()  # λ/(λ + σ) and σ/(λ + σ)
    misfit = project(noise) + rest
    value = -N / 2 * ((2 * math.pi * misfit / N).log() + 1) + logsigmoid(gap).sum(1, keepdim=True) / 2
    return value, (signal.sum(1, keepdim=True) - N * project(noise * signal) / misfit) / 2


def h_score(X, y):
    """Return the variance of the class means in units of the variance of the features, summed over directions.

        H = tr(cov(F)⁻¹ cov(E[F | Y]))                         where N > D: between 0 and K − 1
        H = tr(((1 − s) cov(F) + s m I)⁻¹ (1 − s) cov(E[F | Y]))   where N ≤ D

    With N ≤ D the first is K − 1 for almost any features, and says nothing; the second shrinks the covariance towards
    its mean variance m = tr cov(F) / D by Ledoit and Wolf's s (Ibrahim et al. 2021). The two are not on one scale:
    compare sources of which all have D < N, or none. A direction without variance counts nothing (a pseudo-inverse).

    Args:
        X: (N, D) features. y: (N,) integer labels.

    Returns:
        float

    Raises:
        ValueError: X or y of another shape or type, values that are not finite, fewer than two classes.

    >>> y = np.arange(200) % 2
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> 0 < h_score(X, y) < h_score(X + y[:, None], y) < 1
    True

    Bao et al., ICIP 2019.
    """
    X, onehot = _check_features(X, y)
    N, D = X.shape
    X = X - X[0]  # a constant feature becomes exactly 0
    X = X - X.mean(0)
    sigma, z2, _ = _spectrum(X, onehot)
    between = (z2 / onehot.sum(0)).sum(1)  # (k,) share of the variance along each direction that lies between classes
    if N > D or not len(sigma):
        return between.sum().item()

    # Ledoit and Wolf: expected squared error of cov(F), over its squared distance from m I
    variance, m = sigma / N, sigma.sum() / N / D
    distance = (variance**2).sum() - D * m**2
    error = ((X**2).sum(1) ** 2).mean() / N - (variance**2).sum() / N
    s = (error / distance).clamp(0, 1) if distance > 0 else torch.zeros_like(m)
    return (between * (1 - s) * variance / ((1 - s) * variance + s * m)).sum().item()


def leep(source_probs, y):
    """Return the mean log probability of the labels, predicted through the classes of the source.

        LEEP = 1/N Σₙ log Σ_z P(yₙ | z) θ(xₙ)_z        P(y | z) = Σₙ θ(xₙ)_z [yₙ = y] / Σₙ θ(xₙ)_z

    A source class without mass contributes nothing. The arguments are not symmetric: first what the *source* model says
    about the target images, then the target's labels.

    Args:
        source_probs: (N, Z) probabilities of the source's Z classes, rows that sum to 1 (softmax, not logits).
        y: (N,) integer labels of the target.

    Returns:
        float, at most 0.

    Raises:
        ValueError: shapes, types or lengths that do not fit, rows that are no probabilities, fewer than two classes.

    >>> leep([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], [0, 0, 1, 1])  # the third class has no mass
    0.0

    Nguyen et al., ICML 2020.
    """
    theta = _check_table("source_probs", source_probs, "(N, Z)", hint="; for hard labels use nce")
    onehot, _ = _check_labels("y", y, theta, "source_probs", at_least=2)
    wrong = ((theta < 0).any(1) | ((theta.sum(1) - 1).abs() > 1e-3)).nonzero()[:, 0].tolist()
    if wrong:
        n, row = wrong[0], theta[wrong[0]]
        raise ValueError(
            f"source_probs must be rows of numbers ≥ 0 that sum to 1, got row {n} with sum {row.sum():.4g} and minimum "
            f"{row.min():.4g} ({len(wrong)} such rows): apply a softmax to logits"
        )
    theta = theta / theta.sum(1, keepdim=True)
    joint = onehot.T @ theta  # (K, Z)
    mass = joint.sum(0)
    given = torch.where(mass > 0, joint / mass, 0.0)  # P(y | z)
    return ((theta @ given.T) * onehot).sum(1).log().mean().item()


def nce(source_labels, y):
    """Return the negative conditional entropy of the labels given those of the source.

        NCE = −H(Y | Z) = Σ_{y,z} p(y, z) log(p(y, z) / p(z))

    The arguments are not symmetric, and swapping them cannot be noticed: −H(Z | Y) is another question. Source first.

    Args:
        source_labels: (N,) integer labels Z of the source's task, or the argmax of its model's probabilities.
        y: (N,) integer labels Y of the target.

    Returns:
        float, at most 0; 0 where the source's label determines the target's.

    Raises:
        ValueError: shapes, types or lengths that do not fit, fewer than two classes in y.

    >>> nce([0, 1, 2, 3], [0, 0, 1, 1])
    0.0
    >>> round(nce([0, 0, 1, 1], [0, 1, 0, 1]), 4)  # −log 2: the source tells nothing
    -0.6931

    Tran et al., ICCV 2019.
    """
    z, of_z = _check_labels("source_labels", source_labels, hint="; for probabilities use leep, or argmax(1)")
    onehot, of_y = _check_labels("y", y, z, "source_labels", at_least=2)
    joint = z.T @ onehot  # (Z, K) counts
    return ((joint / z.sum(0)[:, None])[of_z, of_y].log().mean()).item()


def _check_features(X, y):
    """X (N, D) with entries of at most 1 and the one-hot labels (N, K), in float64 on the device; or an error."""
    X = _check_table("X", X, "(N, D)")
    onehot, _ = _check_labels("y", y, X, "X", at_least=2)
    return X / X.abs().max().clamp_min(torch.finfo(X.dtype).tiny), onehot


def _check_table(name, values, shape, hint=""):
    try:
        table = np.array(_plain(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers of shape {shape}, got {type(values).__name__}: {error}") from None
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"{name} must have shape {shape}, got {table.shape}: {name} first, then the labels{hint}")
    bad = np.flatnonzero(~np.isfinite(table).all(1))
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + ", …" * (len(bad) > 5)
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in row {rows} ({len(bad)} in all): leave them out"
        )
    return torch.from_numpy(table).to(_where())


def _check_labels(name, values, other=None, first="", at_least=1, hint=""):
    """Labels as one-hot (N, K) over the K values that occur, and as (N,) positions among these; or an error."""
    labels = np.asarray(_plain(values))
    got = f"{labels.dtype} of shape {labels.shape}"
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integer labels of shape (N,), got {got}: {first or name} comes first{hint}")
    if other is not None and len(other) != len(labels):
        raise ValueError(f"{name} must have a label for each of the {len(other)} rows of {first}, got {got}")
    if labels.min() < 0:
        n = np.flatnonzero(labels < 0)[0]
        raise ValueError(f"{name} must be at least 0, got {labels[n]} at index {n}: leave unlabelled examples out")
    classes, position = np.unique(labels, return_inverse=True)
    if len(classes) < at_least:
        raise ValueError(f"{name} must hold two classes or more, got only {classes[0]}: add examples of another class")
    position = torch.from_numpy(position).to(_where())
    return one_hot(position, len(classes)).double(), position


def _plain(values):
    """A tensor, wherever it is, as an array; anything else as it is."""
    if not torch.is_tensor(values):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def _where():
    where = device.choose()
    return where if where.type == "cuda" else torch.device("cpu")  # MPS has no float64


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ between a score and what the sources then reach.

    Attributes:
        tau: (agreeing − disagreeing pairs of sources) / pairs, corrected for ties: 1 same order, −1 reversed.
        interval: 95 % of τ over draws of the target's groups. The sources stay the same; so does the score.
        chance: the probability that sources in random order agree or disagree as much (two-sided, exact for few).
        sources: how many were ranked.
        draws: (resamples,) τ of each draw of the groups, for `compare`.
        effective: the effective number of groups, by which intervals are widened.
    """

    tau: float
    interval: tuple
    chance: float
    sources: int
    draws: np.ndarray = field(default=None, repr=False, compare=False)
    effective: float = field(default=None, repr=False, compare=False)

    def __repr__(self):
        low, high = self.interval
        return (
            f"τ = {self.tau:+.2f}  [{low:+.2f}, {high:+.2f}] over groups; "
            f"by chance {self.chance:.3f} ({self.sources} sources)"
        )


def agreement(scores, evaluations, *, metric="auc", resamples=1000, seed=0):
    """Compare a ranking of sources with what they reach, by Kendall's τ, with an interval over the target's groups.

    In each bootstrap draw the same groups are taken for all sources and the metric is computed anew. The interval
    does not say how the score would do on *other* sources: few candidates cannot tell, and ``chance`` says how few.

    Args:
        scores: {source: float}, higher is better, such as `logme` or a placebo. evaluations: {source: Evaluation} of
            the same sources, on the same examples. metric: of `Evaluation`; of the log loss, the lowest is best.

    Returns:
        Agreement

    Raises:
        ValueError: other sources on the two sides, fewer than three of them, evaluations of other examples, a metric
            that is none.

    Lesson 07. Kendall, A new measure of rank correlation, Biometrika 30, 1938.
    """
    from scipy.stats import kendalltau

    from tlbook import evaluation

    if set(scores) != set(evaluations) or len(scores) < 3:
        raise ValueError(
            f"scores and evaluations must be of the same 3 sources or more, got {len(scores)} and {len(evaluations)}"
        )
    if metric not in evaluation.METRICS:
        raise ValueError(f"metric must be one of {evaluation.METRICS}, got {metric!r}")
    names = list(scores)
    first = evaluations[names[0]]
    for name in names:
        e = evaluations[name]
        if not (np.array_equal(e.labels, first.labels) and np.array_equal(e.groups, first.groups)):
            raise ValueError(f"{name!r} was evaluated on other examples than {names[0]!r}: compare sources on the same")
    sign = -1 if metric == "log_loss" else 1
    score = [scores[name] for name in names]
    reached = [sign * getattr(evaluations[name], metric) for name in names]
    draws = np.stack(
        [
            sign * evaluation._draws(e.probabilities, e.labels, e.sample_weight, e.groups, resamples, seed)[metric]
            for e in (evaluations[name] for name in names)
        ]
    )
    taus = np.array([kendalltau(score, draw).statistic for draw in draws.T])
    tau, chance = kendalltau(score, reached)
    effective = evaluation._effective_number(first.sample_weight, first.groups)
    interval = evaluation._interval(taus, effective)
    return Agreement(float(tau), interval, float(chance), len(names), taus, effective)


def compare(a, b):
    """Compare two scores by the Kendall's τ of each with what the same sources reach: a − b, paired by draws of groups.

    Two intervals that overlap decide nothing: both scores are judged on the same groups, whose luck is common to both.

    Args:
        a, b: Agreement, of `agreement` with the same evaluations, ``resamples`` and ``seed``.

    Returns:
        Comparison, of τ.

    Raises:
        ValueError: they are of other sources or other draws.

    >>> import tlbook as tl
    >>> labels, p = [0, 1] * 8, [0.1, 0.5, 0.9]
    >>> reached = {s: tl.evaluate([[0.8, 0.2], [q, 1 - q]] * 8, labels) for s, q in zip("abc", p)}
    >>> score, placebo = dict(zip("abc", (3, 2, 1))), dict(zip("abc", (1, 2, 3)))
    >>> compare(*(agreement(s, reached, metric="log_loss") for s in (score, placebo)))
    τ: a − b = +2.000  [+2.000, +2.000]

    Lesson 07.
    """
    from tlbook import evaluation

    if a.sources != b.sources or len(a.draws) != len(b.draws) or a.effective != b.effective:
        raise ValueError(
            f"compare needs two agreements with the same evaluations and resamples, got {a.sources} and {b.sources} "
            f"sources, {len(a.draws)} and {len(b.draws)} draws: give `agreement` the same evaluations"
        )
    return evaluation.Comparison("τ", a.tau - b.tau, evaluation._interval(a.draws - b.draws, a.effective))
