"""How good are these features? Probes: the simplest classifiers that can be put on them.

The linear probe is multinomial logistic regression with an L2 penalty: convex, and strictly so in W, so that there is
one answer:

    minimise over W, b:   C Σᵢ sᵢ ℓ(W xᵢ + b, yᵢ) + ½ ‖W‖²        ℓ = cross-entropy, sᵢ = weight of example i

on features standardised with the mean and deviation of the training rows (`tlbook.logistic.standardise`: nearly
constant features are not enlarged without limit). The intercept b is not penalised. Two classes
have one row of W (the second class against the first), as in scikit-learn, so that C means the same there.
`tlbook.logistic` finds it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from tlbook.arguments import positive_number, whole_number
from tlbook.data import Dataset
from tlbook.evaluation import evaluate
from tlbook.logistic import fit_path, held_out_path, principal_axes, standardise
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
        C: the inverse strength of the penalty; None chooses it from `CS`, which ends after two in a row that are worse.
        class_weight: None, or "balanced" to give every class the same total weight.
        sample_weight: (N,) non-negative weights, or None.
        folds: parts of the training rows to choose C on; whole groups where there are any, at most as many.
        seed: of that division.

    Returns:
        Probe

    Raises:
        ValueError: a single class or, where C is to be chosen, a single group in the training rows; a feature that is
            not finite, naming the example; a C that is not positive; weights that are negative or of another length.

    Warns:
        RuntimeWarning: a solution that is not reached, naming C and the gradient that is left.

    A class of `features.y` without a training row gets the probability 0.

    Lesson 03; `tlbook.logistic` solves it. Checked against scikit-learn's LogisticRegression.
    """
    X, y, K = _training_rows(features, split)
    weight = _weights(features, split, sample_weight, class_weight)
    if len(np.unique(y[weight > 0])) < 2:
        raise ValueError(f"the training rows hold class {y[weight > 0][0]} only: a classifier needs at least two")
    C, folds = None if C is None else positive_number("C", C), whole_number("folds", folds, 2)

    # The path of C: each is judged by the log loss of the rows that were held out.
    blocks = list(features.blocks.values())
    Z, _, _, least = standardise(X, torch.float32, blocks)
    axes = principal_axes(Z)
    path, scores, start = Table(), None, None
    if C is None:
        parts, judged = _inner_folds(features, split, weight, folds, seed)
        best, worse = np.inf, 0
        for c, (p, mean) in zip(CS, held_out_path(Z, y, CS, parts, weight, K, least, axes=axes), strict=False):
            loss = float(np.average(-np.log(p[judged, y[judged]].clip(1e-12)), weights=weight[judged]))
            path.append({"C": c, "log loss": loss})
            worse = 0 if loss < best else worse + 1
            if loss < best:
                C, best, scores, start = c, loss, p, mean
            elif worse == 2:  # past the valley: weaker penalties cost most to fit, and only lose
                break

    # The probe: all training rows at that C.
    del Z
    _, W, b = next(fit_path(X, y, [C], weight, K, axes=axes, start=start, blocks=blocks))
    return Probe(lambda X: _softmax(np.asarray(X, dtype=np.float64) @ W.T + b), float(C), W, b, path, scores)


def _training_rows(features, split):
    """The features and labels of ``split.train``, and K; an error where they cannot be fitted."""
    labels = np.asarray(features.y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise ValueError(
            f"features.y must be N integers from 0 on, got shape {labels.shape} of {labels.dtype}: number the classes"
        )
    if len(split.train) == 0:
        raise ValueError("split.train is empty: a probe needs at least two classes of training rows")
    X, y = np.asarray(features.X[split.train]), labels[split.train].astype(np.int64)
    if not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        block = next((f" (block {b!r})" for b, c in features.blocks.items() if c.start <= column < c.stop), "")
        example = np.arange(len(labels))[split.train][row]
        raise ValueError(
            f"features.X holds {X[row, column]} at example {example}, column {column}{block}: leave the example out, "
            "or extract it anew in float32"
        )
    return X, y, int(labels.max()) + 1


def _weights(features, split, sample_weight, class_weight):
    """(n_train,) float64: the weights of the training rows."""
    N = len(features.y)
    try:
        weight = np.ones(N) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"sample_weight must be {N} numbers, got {type(sample_weight).__name__} of others") from None
    if weight.shape != (N,):
        raise ValueError(f"sample_weight must be {N} numbers, one for each example, got shape {weight.shape}")
    wrong = np.flatnonzero(~((weight >= 0) & (weight < np.inf)))
    if len(wrong):
        raise ValueError(f"sample_weight must be at least 0 and finite, got {weight[wrong[0]]} for example {wrong[0]}")
    weight = weight[split.train]
    if not weight.any():
        raise ValueError("sample_weight is 0 for every training row: give some of them a weight above 0")
    if class_weight is None:
        return weight
    if not (isinstance(class_weight, str) and class_weight == "balanced"):
        raise ValueError(f"class_weight must be None or 'balanced', got {class_weight!r}; give others as sample_weight")
    return weight * balanced(np.asarray(features.y)[split.train], weight)


def _inner_folds(features, split, weight, folds, seed):
    """The parts of the training rows to hold out in turn, and the rows that can be judged.

    A row cannot where no other part has its class: no C predicts it.
    """
    y = np.asarray(features.y)[split.train]
    groups = None if features.groups is None else np.asarray(features.groups)[split.train]
    by, units = ("random", np.bincount(y).max()) if groups is None else ("group", len(np.unique(groups)))
    if units < 2:
        few = "one of each class" if groups is None else "of one group"
        raise ValueError(f"the training rows are {few}, and C is chosen on held-out ones: give C=, or more rows")
    names = [str(k) for k in range(y.max() + 1)]
    inner = Dataset(y, y, names, groups).folds(int(min(folds, units)), by=by, seed=seed)
    judged = np.zeros(len(y), dtype=bool)
    for part in inner:
        judged[part.test] = np.isin(y[part.test], y[part.train][weight[part.train] > 0])
    if not weight[judged].any():
        raise ValueError(
            "C cannot be chosen: in no class are there training rows of two parts (groups, or single rows), to fit on "
            "one and judge on the other; give C=, or more"
        )
    return [part.test for part in inner], np.flatnonzero(judged)


def knn_probe(features, split, *, k=20, temperature=0.07):
    """Classify by the k most similar training examples.

    Similarity is the cosine, and each votes with exp(similarity / temperature). Features are standardised on
    the training rows first. Nothing is fitted: the probe without training.

    Lesson 03. Wu et al., Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018.
    """
    X, y, K = _training_rows(features, split)
    k, temperature = whole_number("k", k, 1), positive_number("temperature", temperature)
    if k > len(y):
        raise ValueError(f"k must be at most the number of training examples, {len(y)}, got {k}")
    Z, mean, deviation, _ = standardise(X, blocks=list(features.blocks.values()))
    mean, deviation = mean.to(Z), deviation.to(Z)
    bank = F.normalize(Z)
    onehot = F.one_hot(torch.from_numpy(y).to(Z.device), K).double()

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
