"""The labels are of other groups: can the target's *unlabelled* examples be made to look like the source's?

| what is made alike | in words | what is needed of the target |
| --- | --- | --- |
| mean | `centre` | features |
| mean and deviation of each feature | `standardise` | features |
| mean and covariance | `whiten` (both sides), `coral` (the source's become the target's) | features |
| mean and variance of each channel, in every BatchNorm layer | `adabn` | the photographs |

The setting is *transductive*: the unlabelled examples to be answered are at hand, many at once, and the answer to one
of them depends on the others. A single photograph cannot be adapted to.

All of it rests on one assumption: groups differ in how they were photographed, and not in how many of their examples
are of each class. Where the share of a class differs between groups, its trace in the features is taken away with the
rest. A group of one class shows it: its mean *is* the class.

Lesson 07. Sun, Feng, Saenko, Return of frustratingly easy domain adaptation, AAAI 2016, arXiv:1511.05547 (CORAL).
Li, Wang, Shi, Liu, Hou, Revisiting batch normalization for practical domain adaptation, 2016, arXiv:1603.04779 (AdaBN).
"""

import copy

import numpy as np
import torch

from tlbook.feature_extraction import Features, _slices
from tlbook.loading import load


def centre(X, groups):
    """Subtract from each example the mean of its group: x⁽ⁿ⁾ − mean over the group of n.

    Transductive: the mean is over all examples of the group, those to be answered included; no label is used.

    Args:
        X: (N, D) features. groups: (N,) what each example belongs to.

    Returns:
        (N, D) float64

    Raises:
        ValueError: shapes that do not fit, values that are not finite.

    >>> centre([[1.0], [3.0], [10.0]], [0, 0, 1]).tolist()
    [[-1.0], [1.0], [0.0]]

    Lesson 07.
    """
    X, groups = _check(X, groups)
    return _each(X, groups, lambda x: x - x.mean(0))


def standardise(X, groups):
    """Centre each group and divide each feature by its deviation there, none by less than a tenth of the typical one.

    Transductive, as `centre` is. The limit is that of the probes (`tlbook.logistic.standardise`): typical is the root
    mean square deviation of the group's features. A group of one example becomes 0.

    Args, returns, raises: as `centre`.

    >>> standardise([[0.0], [4.0], [10.0], [10.5]], [0, 0, 1, 1]).tolist()
    [[-1.0], [1.0], [-1.0], [1.0]]

    Lesson 07.
    """
    X, groups = _check(X, groups)

    def scale(x):
        deviation = x.std(0)
        least = max(0.1 * np.sqrt((deviation**2).mean()), np.finfo(float).tiny)
        return (x - x.mean(0)) / np.maximum(deviation, least)

    return _each(X, groups, scale)


def whiten(X, groups, *, ridge=0.1):
    """Centre each group and multiply by (C + r m I)^(−½), so that no two of its features are correlated.

    C is the covariance of the group's features and m = tr C / D their mean variance. A group has few examples against
    D, and without the ridge r the directions in which it hardly varies would be enlarged without limit.

    Args:
        X: (N, D) features. groups: (N,). ridge: r, above 0.

    Returns:
        (N, D) float64

    Raises:
        ValueError: as `centre`, or a ridge that is not above 0.

    Lesson 07.
    """
    X, groups = _check(X, groups)
    _check_ridge(ridge)

    def white(x):
        x = x - x.mean(0)
        return x @ _power(_covariance(x, ridge), -0.5)

    return _each(X, groups, white)


def coral(source, target, *, ridge=1.0):
    """Give the source's features the mean and covariance of the target's; the target's stay as they are.

        CORAL(x) = (x − mean_S) C_S^(−½) C_T^(½) + mean_T

    C is the covariance plus ridge · m · I, m the mean variance of the source's features in both, so that the two sides
    are regularised alike (the paper: features of variance 1, so + I). A probe is then fitted on the result with the
    source's labels. The paper leaves the means to its normalisation; here they are aligned as well.

    Args:
        source: (N, D) features with labels, which are not asked for. target: (M, D) features without.
        ridge: above 0.

    Returns:
        (N, D) float64

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a ridge that is not above 0.

    Lesson 07. Sun et al., AAAI 2016.
    """
    (source, _), (target, _) = _check(source), _check(target)
    _check_ridge(ridge)
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"source and target must have the same features, got {source.shape[1]} and {target.shape[1]}")
    centred, mean = source - source.mean(0), target.mean(0)
    least = ridge * max(centred.var(0).mean(), np.finfo(float).tiny) * np.eye(source.shape[1])
    of_source, of_target = (_covariance(x) + least for x in (centred, target - mean))
    return centred @ _power(of_source, -0.5) @ _power(of_target, 0.5) + mean


def adabn(backbone, data, *, groups=None, stages=("final",)):
    """Extract features with the BatchNorm statistics of each example's own group.

    The whole group goes through a copy of the backbone as one batch, with every BatchNorm layer in train mode: it
    normalises by the mean and variance of that batch. Labels are not used, weights stay as they are.

    Args:
        backbone: with BatchNorm; it is not changed. data: a Dataset. groups: (N,), those of ``data`` unless given.
        stages: as in `tl.extract`.

    Returns:
        Features of all N examples, in float32, in the order of ``data``.

    Raises:
        ValueError: no groups; a stage that is none.

    Lesson 07. Li et al., 2016.
    """
    groups = data.groups if groups is None else np.asarray(groups)
    if groups is None or len(groups) != len(data):
        raise ValueError(f"adabn needs the group of each of the {len(data)} examples: give groups=")

    model = copy.deepcopy(backbone).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train()
    parts, rows = {stage: [] for stage in stages}, [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for (batch,) in load(data, rows, [model]):
        with torch.inference_mode():
            found = model.forward_stages(batch, stages)
        for stage in stages:
            parts[stage].append(found[stage].float().cpu().numpy())

    # Back into the order of the data, the stages side by side.
    order = np.argsort(np.concatenate(rows))
    X = {stage: np.concatenate(part)[order] for stage, part in parts.items()}
    blocks = _slices({stage: x.shape[1] for stage, x in X.items()})
    return Features(np.concatenate(list(X.values()), axis=1), data.labels, data.groups, blocks)


def _each(X, groups, change):
    """The features with ``change`` applied to the rows of each group."""
    changed = np.empty_like(X)
    for group in np.unique(groups):
        changed[groups == group] = change(X[groups == group])
    return changed


def _covariance(x, ridge=0.0):
    """(D, D) covariance of centred rows, plus ridge times its mean variance on the diagonal."""
    C = x.T @ x / len(x)
    return C + ridge * max(np.trace(C) / len(C), np.finfo(float).tiny) * np.eye(len(C))


def _power(C, exponent):
    """A symmetric matrix without zero eigenvalues, to a power."""
    values, V = np.linalg.eigh(C)
    return (V * values**exponent) @ V.T


def _check(X, groups=None):
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"features must have shape (N, D), got {X.shape}")
    if not np.isfinite(X).all():
        raise ValueError(
            f"features must be finite, got {X[~np.isfinite(X)][0]} in row {np.argwhere(~np.isfinite(X))[0, 0]}"
        )
    groups = None if groups is None else np.asarray(groups)
    if groups is not None and groups.shape != (len(X),):
        raise ValueError(f"groups must have one entry for each of the {len(X)} examples, got shape {groups.shape}")
    return X, groups


def _check_ridge(ridge):
    if not 0 < ridge < np.inf:
        raise ValueError(f"ridge must be above 0 and finite, got {ridge!r}")
