"""How good are these features? Probes: the simplest classifiers that can be put on them.

The linear probe is multinomial logistic regression with an L2 penalty: convex, and strictly so in W, so that there is
one answer:

    minimise over W, b:   C Σᵢ sᵢ ℓ(W xᵢ + b, yᵢ) + ½ ‖W‖²        ℓ = cross-entropy, sᵢ = weight of example i

on features standardised with the mean and deviation of the training rows. The intercept b is not penalised. Two classes
have one row of W (the second class against the first), as in scikit-learn, so that C means the same there.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from tlbook import device
from tlbook.data import Dataset
from tlbook.evaluation import evaluate
from tlbook.table import Table

CS = tuple((10.0 ** np.arange(-5, 2.5, 0.5)).tolist())  # the regularisation path, from strong to weak


@dataclass(frozen=True)
class Probe:
    """A fitted classifier of K classes on D features.

    Attributes:
        predict_proba: (N, D) features -> (N, K) float64 probabilities.
        C: the inverse strength of the penalty (None for k-NN).
        coef, intercept: (K, D) and (K,), or (1, D) and (1,) for two classes; for features as they are.
        path: a row for each C tried, with its out-of-fold log loss; empty where C was given.
        scores: (n_train, K) out-of-fold probabilities of the training rows at the chosen C, or None.
    """

    predict_proba: callable = field(repr=False)
    C: float | None = None
    coef: np.ndarray | None = field(default=None, repr=False)
    intercept: np.ndarray | None = field(default=None, repr=False)
    path: list = field(default_factory=Table, repr=False)
    scores: np.ndarray | None = field(default=None, repr=False)

    def evaluate(self, features, index):
        """Score the examples at ``index``: a `tlbook.evaluation.Evaluation` with intervals by group."""
        groups = None if features.groups is None else features.groups[index]
        return evaluate(self.predict_proba(features.X[index]), features.y[index], groups=groups)


def linear_probe(features, split, *, C=None, class_weight=None, sample_weight=None, folds=4, seed=0):
    """Fit the linear probe on ``split.train``; C is chosen there too, by the log loss on held-out groups of it.

    Args:
        features: `Features` of N examples.
        split: a `Split`; only its ``train`` is looked at.
        C: the inverse strength of the penalty; None chooses it from `CS`.
        class_weight: None, or "balanced" to give every class the same total weight.
        sample_weight: (N,) non-negative weights, or None.
        folds: parts of the training rows to choose C on; whole groups where there are any, at most as many.
        seed: of that division.

    Returns:
        Probe

    Raises:
        ValueError: a single class or, where C is to be chosen, a single group in the training rows; a C that is not
            positive; weights of another length.

    Lesson 03. Checked against scikit-learn's LogisticRegression.
    """
    X, y = np.asarray(features.X[split.train]), features.y[split.train]
    groups = None if features.groups is None else features.groups[split.train]
    K = int(features.y.max()) + 1
    if len(np.unique(y)) < 2:
        raise ValueError(
            f"the training rows hold class {y[0] if len(y) else 'none'} only: a classifier needs at least two"
        )
    if C is not None and not C > 0:
        raise ValueError(f"C must be above 0, got {C!r}")
    weight = np.ones(len(features.y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != features.y.shape or not (weight >= 0).all():
        raise ValueError(f"sample_weight must be {len(features.y)} numbers of at least 0, got shape {weight.shape}")
    weight = weight[split.train]
    if class_weight == "balanced":
        weight = weight * balanced(y, weight)
    elif class_weight is not None:
        raise ValueError(f"class_weight must be None or 'balanced', got {class_weight!r}")

    Z = _standardise(X)[0]
    axes = _principal_axes(Z) if len(Z) >= Z.shape[1] else None  # found once: they serve every part of these rows
    del Z
    path, scores = Table(), None
    if C is None:
        by, units = ("random", len(y)) if groups is None else ("group", len(np.unique(groups)))
        if units < 2:
            raise ValueError("the training rows are of one group, and C is chosen on held-out groups: give C=, or more")
        inner = Dataset(X, y, [str(k) for k in range(K)], groups).folds(min(folds, units), by=by, seed=seed)
        paths = [fit_path(X[p.train], y[p.train], CS, weight[p.train], K, axes=axes, tol=1e-4) for p in inner]
        best = np.inf
        for c, fits in zip(CS, zip(*paths, strict=True), strict=False):
            p = np.empty((len(y), K))
            for part, (_, W, b) in zip(inner, fits, strict=True):
                p[part.test] = _softmax(X[part.test] @ W.T + b)
            loss = float(np.average(-np.log(p[np.arange(len(y)), y].clip(1e-12)), weights=weight))
            path.append({"C": c, "log loss": loss})
            if loss < best:
                C, best, scores = c, loss, p
            elif loss > 1.05 * best:  # past the valley: weaker penalties cost most to fit, and only lose
                break
    _, W, b = next(fit_path(X, y, [C], weight, K, axes=axes))
    return Probe(lambda X: _softmax(np.asarray(X, dtype=np.float64) @ W.T + b), float(C), W, b, path, scores)


def fit_path(X, y, Cs, weight=None, K=None, tol=1e-6, axes=None):
    """Solve the problem above for each C in turn, each from the last one's solution, when it is asked for.

    Args:
        X: (N, D). y: (N,) labels. Cs: the strengths, best in rising order. weight: (N,) or None. K: classes.
        axes: (D, D) a rotation in which the columns of X hardly correlate; its principal axes unless given.
        tol: the largest entry of the gradient at the solution, relative to that at the start of the path.

    Yields:
        (objective, W (K or 1, D), b (K or 1,)) for each C: W and b act on X as it is.
    """
    K = K or int(y.max()) + 1
    X, mean, deviation = _standardise(X)
    where = X.device
    y = torch.as_tensor(y, device=where)
    s = torch.ones(len(y), device=where).double() if weight is None else torch.as_tensor(weight, device=where).double()
    # The penalty does not notice a rotation. In the principal axes the curvature is close to diagonal, at most
    # 1 + C λ / 4 along an axis, and divided by its root every direction is about equally steep: L-BFGS takes few steps.
    V = _principal_axes(X) if axes is None else axes
    Z = X @ V
    del X  # each fold's problem waits in memory for the next C, and Z is all that it needs
    curvature = (s[:, None] * Z**2).sum(0)
    rows, D = (K if K > 2 else 1), Z.shape[1]
    onehot = F.one_hot(y, K).double()[:, -rows:]

    def objective(W, b, C):
        logits = Z @ W.T + b  # (N, rows)
        if rows == 1:
            loss, p = F.softplus(logits) - onehot * logits, torch.sigmoid(logits)
        else:
            loss, p = (
                torch.logsumexp(logits, 1, keepdim=True) - (onehot * logits).sum(1, keepdim=True),
                logits.softmax(1),
            )
        residual = C * s[:, None] * (p - onehot)
        return C * (s[:, None] * loss).sum() + 0.5 * (W**2).sum(), residual.T @ Z + W, residual.sum(0)

    W, b = torch.zeros(rows, D, device=where).double(), torch.zeros(rows, device=where).double()
    for C in Cs:
        total = C * s.sum()  # divided by it, every C is a mean loss with a penalty, and one tolerance suits the path
        steepness = torch.cat([1 + C * curvature / 4, total[None] / 4]).div(total).sqrt()  # of (W, b), a row

        def unpack(t, steepness=steepness):
            t = torch.as_tensor(t, device=where).view(rows, D + 1) / steepness
            return t[:, :-1], t[:, -1]

        def scaled(t, C=C, total=total, steepness=steepness, unpack=unpack):
            value, dW, db = objective(*unpack(t), C)
            gradient = torch.cat([dW, db[:, None]], dim=1) / steepness / total
            return (value / total).item(), gradient.cpu().numpy().ravel()

        start = (torch.cat([W, b[:, None]], dim=1) * steepness).cpu().numpy().ravel()
        limits = {"maxiter": 5000, "maxfun": 10000, "gtol": tol, "ftol": 1e-15, "maxcor": 20}
        W, b = unpack(minimize(scaled, start, jac=True, method="L-BFGS-B", options=limits).x)
        U = W @ V.T / deviation
        yield objective(W, b, C)[0].item(), U.cpu().numpy(), (b - U @ mean).cpu().numpy()


def _standardise(X):
    """X (N, D) in float64 with mean 0 and deviation 1 in every column, and these means and deviations before."""
    where = device.choose() if device.choose().type == "cuda" else torch.device("cpu")  # MPS has no float64
    X = torch.as_tensor(np.array(X, dtype=np.float64), device=where)
    mean, deviation = X.mean(0), X.std(0, correction=0)
    deviation[deviation < 1e-12] = 1.0  # a constant feature becomes 0
    return (X - mean) / deviation, mean, deviation


def _principal_axes(A):
    """Orthonormal columns (D, r) that span the rows of A (N, D): its principal axes, all D of them if N ≥ D."""
    if len(A) >= A.shape[1]:
        return torch.linalg.eigh(A.T @ A).eigenvectors
    values, vectors = torch.linalg.eigh(A @ A.T)
    return torch.linalg.qr(A.T @ vectors[:, values > values[-1] * 1e-12]).Q


def knn_probe(features, split, *, k=20, temperature=0.07):
    """Classify by the k most similar training examples.

    Similarity is the cosine, and each votes with exp(similarity / temperature). Features are standardised on
    the training rows first. Nothing is fitted: the probe without training.

    Lesson 03. Wu et al., Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018.
    """
    y = features.y[split.train]
    if not 1 <= k <= len(y):
        raise ValueError(f"k must lie between 1 and the {len(y)} training examples, got {k}")
    Z, mean, deviation = _standardise(features.X[split.train])
    bank = F.normalize(Z)
    onehot = F.one_hot(torch.from_numpy(y).to(Z.device), int(features.y.max()) + 1).double()

    def predict_proba(X):
        votes = []
        for rows in torch.split(torch.as_tensor(np.asarray(X), device=Z.device), 1024):
            similarity, nearest = (F.normalize((rows.double() - mean) / deviation) @ bank.T).topk(k)
            vote = (similarity / temperature).softmax(1)  # (B, k)
            votes.append((vote[..., None] * onehot[nearest]).sum(1))
        return torch.cat(votes).cpu().numpy()

    return Probe(predict_proba)


def cross_val_predict(features, folds, probe=linear_probe, **options):
    """Predict each example with a probe that was fitted without it (and, in grouped folds, without its group).

    Args:
        folds: from `Dataset.folds`; over several repeats the probabilities of an example are averaged.
        probe: `linear_probe` or `knn_probe`, with its ``options``.

    Returns:
        (N, K) float64 probabilities.

    Raises:
        ValueError: folds that leave an example out of every test part.
    """
    total, times = np.zeros((len(features.y), int(features.y.max()) + 1)), np.zeros((len(features.y), 1))
    for split in folds:
        total[split.test] += probe(features, split, **options).predict_proba(features.X[split.test])
        times[split.test] += 1
    if not times.all():
        raise ValueError(f"{int((times == 0).sum())} examples are in no test part: give all the folds")
    return total / times


def balanced(labels, weight):
    """(N,) factors that give every class the same total weight, as scikit-learn's "balanced" does."""
    totals = np.bincount(labels, weights=weight)
    present = totals > 0
    return np.divide(weight.sum() / present.sum(), totals, out=np.zeros_like(totals), where=present)[labels]


def _softmax(logits):
    """(N, K) probabilities; a single column of logits is that of the second class against the first."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)
