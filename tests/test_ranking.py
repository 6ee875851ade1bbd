"""Ranking of sources: every score against its definition, computed another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kendalltau
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

import tlbook as tl
from tlbook.ranking import _max_evidence

SHAPES = {"N > D": (60, 7), "N just above D": (41, 40), "N = D": (40, 40), "N < D": (30, 75)}


def example(N, D, K=3, signal=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % K
    X = rng.normal(size=(N, D)) * rng.uniform(0.1, 3, D) + signal * rng.normal(size=(K, D))[y] + 0.5
    return X, y


def direct_evidence(X, y):
    """LogME by its definition: the density N(y; 0, β⁻¹ I + α⁻¹ X Xᵀ) itself, maximised over log α and log β."""
    N, K, gram = len(X), y.max() + 1, X @ X.T

    def minus_log_density(logs, target):
        cov = np.exp(-logs[1]) * np.eye(N) + np.exp(-logs[0]) * gram
        half = np.linalg.cholesky(cov)
        return np.log(np.diag(half)).sum() + (np.linalg.solve(half, target) ** 2).sum() / 2 + N / 2 * np.log(2 * np.pi)

    best = []
    for k in range(K):
        options = {"xatol": 1e-7, "fatol": 1e-11, "maxiter": 4000}
        bounds = [(-5, 25), (-5, 18)]  # wide enough for these examples, and the matrix stays well conditioned
        starts = [(0, 0), (4, 2), (8, 12), (20, 1)]
        found = [
            minimize(minus_log_density, s, args=(1.0 * (y == k),), method="Nelder-Mead", bounds=bounds, options=options)
            for s in starts
        ]
        best.append(-min(f.fun for f in found) / N)
    return np.mean(best)


@pytest.mark.parametrize("signal", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logme_is_the_largest_marginal_likelihood(shape, signal):
    X, y = example(*shape, signal=signal)
    assert tl.ranking.logme(X, y) == pytest.approx(direct_evidence(X, y), abs=1e-6)


def test_logme_is_the_largest_marginal_likelihood_where_columns_and_rows_repeat():
    X, y = example(30, 12)
    X = np.hstack([X, X[:, :3], np.full((30, 2), 7.0), np.zeros((30, 1)), X[:, :1] * 2])
    assert tl.ranking.logme(X, y) == pytest.approx(direct_evidence(X, y), abs=1e-6)
    X, y = example(20, 40)
    X, y = np.vstack([X, X[:6]]), np.append(y, (y[:6] + 1) % 3)  # the same picture under two labels
    assert tl.ranking.logme(X, y) == pytest.approx(direct_evidence(X, y), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("score", [tl.ranking.logme, tl.ranking.h_score])
def test_a_rotation_a_factor_and_the_order_of_examples_change_no_score(score, shape):
    X, y = example(*shape)
    rng = np.random.default_rng(1)
    rotation, order = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))[0], rng.permutation(len(y))
    for other, labels in [(X @ rotation, y), (X * 1e-170, y), (X * 1e150, y), (X[order], 5 * y[order] + 2)]:
        assert score(other, labels) == pytest.approx(score(X, y), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("score", [tl.ranking.logme, tl.ranking.h_score])
@pytest.mark.parametrize("smallest", [1, 1e-3, 1e-4, 1e-6, 1e-10])
def test_features_of_very_unequal_size_are_scored_as_carefully_as_need_be(score, smallest, shape, monkeypatch):
    X, y = example(*shape, signal=0.2)
    X = X * np.geomspace(1, smallest, X.shape[1])
    found = score(X, y)
    monkeypatch.setattr(tl.ranking, "SAFE", np.inf)  # never by the Gram matrix
    assert found == pytest.approx(score(X, y), abs=1e-7)


def test_labels_that_the_features_nearly_give_are_scored_exactly():
    X, y = example(60, 7)
    noise = np.random.default_rng(1).normal(size=(60, 3))
    for error in (1e-3, 1e-5, 1e-7):
        near = np.hstack([X, np.eye(3)[y] + error * noise])
        U, S, _ = np.linalg.svd(near, full_matrices=False)
        t = np.linspace(-80, 10, 90_001)[:, None]
        share = 1 / (1 + S**2 * np.exp(-t))
        by_class = []
        for target in np.eye(3)[y].T:
            z = U.T @ target
            misfit = share @ z**2 + ((target - U @ z) ** 2).sum()
            by_class.append((-30 * (np.log(2 * np.pi * misfit / 60) + 1) + np.log(share).sum(1) / 2).max() / 60)
        assert tl.ranking.logme(near, y) == pytest.approx(np.mean(by_class), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 8), st.floats(0, 25))
def test_the_search_finds_the_highest_of_several_peaks(seed, k, more, spread):
    rng = np.random.default_rng(seed)
    sigma = np.sort(np.exp(rng.uniform(-spread, spread, k)))[::-1]
    z2 = np.exp(rng.uniform(-spread, spread, (k, 2)))
    rest = np.exp(rng.uniform(-spread, spread, 2)) * (more > 0)
    N = k + more
    log_ratio = np.linspace(-3 * spread - 10, 3 * spread + 10, 20_001)[:, None, None]  # dense, (T, 1, 1)
    share = 1 / (1 + sigma[:, None] * np.exp(-log_ratio))  # (T, k, 1)
    dense = -N / 2 * (np.log(2 * np.pi * ((z2 * share).sum(1) + rest) / N) + 1) + np.log(share).sum(1) / 2
    found = _max_evidence(*(torch.tensor(a.copy()) for a in (sigma, z2, rest)), N).numpy()
    assert (found > dense.max(0) - 1e-9).all()
    assert found == pytest.approx(dense.max(0), abs=1e-3)


def test_two_peaks_that_nearly_tie_are_told_apart():
    sigma, rest, N = torch.tensor([1e6, 1.0]).double(), torch.tensor([1e-3]).double(), 4
    t = torch.linspace(-10, 10, 40_001).double()[:, None]
    share = (t - sigma.log()).sigmoid()

    def profile(weight):
        misfit = share @ torch.tensor([1e2, weight]).double() + rest
        return -N / 2 * ((2 * math.pi * misfit / N).log() + 1) + share.log().sum(1) / 2

    for weight in np.geomspace(8e-3, 1.3e-2, 101):
        z2 = torch.tensor([[1e2], [weight]]).double()
        assert _max_evidence(sigma, z2, rest, N).item() == pytest.approx(profile(weight).max().item(), abs=1e-6)


def test_features_without_a_signal_have_the_evidence_of_noise_alone():
    X, y = example(60, 7)
    X -= np.stack([X[y == k].mean(0) for k in y])  # now XᵀY = 0
    assert tl.ranking.logme(X, y) == pytest.approx(-(np.log(2 * np.pi / 3) + 1) / 2, abs=1e-9)


def test_features_that_give_a_class_without_error_have_unbounded_evidence():
    y = np.arange(30) % 3
    assert tl.ranking.logme(np.eye(3)[y], y) == math.inf
    X, y = example(20, 40)
    assert tl.ranking.logme(np.vstack([X, X[:6]]), np.append(y, y[:6])) == math.inf  # photographs given twice
    assert math.isfinite(tl.ranking.logme(X, y))


def brute_h_score(X, y, shrinkage=0.0):
    means = np.stack([X[y == k].mean(0) for k in y])
    cov, between = np.cov(X.T, bias=True), np.cov(means.T, bias=True)
    cov = (1 - shrinkage) * cov + shrinkage * np.trace(cov) / len(cov) * np.eye(len(cov))
    return np.trace(np.linalg.solve(cov, (1 - shrinkage) * between))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_h_score_is_that_of_the_covariances_shrunk_where_there_are_few_examples(shape):
    X, y = example(*shape)
    shrinkage = 0.0 if shape[0] > shape[1] else ledoit_wolf(X)[1]
    assert (shrinkage > 0.01) == (shape[0] <= shape[1])
    assert tl.ranking.h_score(X, y) == pytest.approx(brute_h_score(X, y, shrinkage), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_constant_and_repeated_features_break_no_score(shape):
    X, y = example(*shape)
    constant = np.hstack([X, np.full((len(X), 1), 0.1), np.full((len(X), 1), 1e6 / 3)])
    assert math.isfinite(tl.ranking.logme(constant, y))
    if len(X) > constant.shape[1]:
        assert tl.ranking.h_score(constant, y) == pytest.approx(brute_h_score(X, y), abs=1e-8)
        assert tl.ranking.h_score(np.hstack([X, X]), y) > 0
    nothing = np.tile(np.linspace(0.1, 1 / 3, X.shape[1]), (len(X), 1))
    assert tl.ranking.h_score(nothing, y) == 0
    assert tl.ranking.logme(0 * X, y) == pytest.approx(
        np.mean([-(np.log(2 * np.pi * np.mean(y == k)) + 1) / 2 for k in range(3)])
    )


def test_leep_of_one_hot_predictions_is_nce():
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 9, 400), rng.integers(0, 4, 400)
    y = np.where(rng.random(400) < 0.5, z % 4, y)
    assert tl.ranking.leep(np.eye(12)[z], y) == pytest.approx(tl.ranking.nce(z, y), abs=1e-9)  # 3 of 12 without mass


def test_nce_is_the_conditional_entropy_and_its_arguments_are_not_symmetric():
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 5, 300), rng.integers(0, 3, 300)
    y[z == 1] = 0
    by_hand = sum(
        np.mean((z == a) & (y == b)) * np.log(np.mean(y[z == a] == b))
        for a in range(5)
        for b in range(3)
        if b in y[z == a]
    )
    assert tl.ranking.nce(z, y) == pytest.approx(by_hand, abs=1e-12)
    assert tl.ranking.nce(y, z) < tl.ranking.nce(z, y) - 0.1
    assert tl.ranking.nce(z * 0, y) == pytest.approx((np.bincount(y) / 300) @ np.log(np.bincount(y) / 300))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_leep_is_its_formula_and_finite_with_empty_source_classes(dtype):
    rng = np.random.default_rng(0)
    probs, y = rng.dirichlet(np.ones(6) / 3, 200).astype(dtype), rng.integers(0, 3, 200)
    probs[:, 2] = 0
    probs = (probs / probs.sum(1, keepdims=True)).astype(dtype)
    exact = probs.astype(np.float64) / probs.astype(np.float64).sum(1, keepdims=True)
    total = 0
    for p, label in zip(exact, y, strict=True):
        total += np.log(sum(p[z] * exact[y == label, z].sum() / exact[:, z].sum() for z in range(6) if z != 2))
    assert tl.ranking.leep(probs, y) == pytest.approx(total / 200, abs=1e-12)


def test_scores_take_tensors_lists_and_read_only_arrays():
    X, y = example(30, 4)
    expected = tl.ranking.logme(X.astype(np.float32), y)
    X.setflags(write=False)
    tensor = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    assert tl.ranking.logme(tensor, torch.tensor(y)) == expected == tl.ranking.logme(tensor.tolist(), y.tolist())
    assert math.isfinite(tl.ranking.logme(tensor.bfloat16(), y > 0)) and isinstance(tl.ranking.h_score(X, y > 0), float)
    assert tl.ranking.logme(X, y) == pytest.approx(expected, abs=1e-5)


X, Y = example(12, 3)
PROBS = np.eye(4)[Y]
WITH_NAN = np.where(np.arange(12)[:, None] % 5 == 2, np.nan, X)
FEATURES, BOTH = ("logme", "h_score"), ("logme", "h_score", "leep")


@pytest.mark.parametrize(
    "names, first, y, told",
    [
        (FEATURES, Y, X, r"X must have shape \(N, D\), got \(12,\): X first, then the labels"),
        (FEATURES, WITH_NAN, Y, r"X must be finite, got NaN or infinity in row 2, 7 \(2 in all\)"),
        (FEATURES, X[:, :0], Y, r"X must have shape \(N, D\), got \(12, 0\)"),
        (FEATURES, X[None], Y, r"got \(1, 12, 3\)"),
        (FEATURES, [["a", "b"]] * 12, Y, "X must be numbers of shape .* got list: could not convert"),
        (BOTH, PROBS, Y[:-1], r"y must have a label for each of the 12 rows of .* shape \(11,\)"),
        (BOTH, PROBS, Y / 1, r"y must be integer labels of shape \(N,\), got float64"),
        (BOTH, PROBS, Y.astype(str), "y must be integer labels"),
        (BOTH, PROBS, PROBS, r"y must be integer labels .* shape \(12, 4\): .* comes first"),
        (BOTH, PROBS, Y * 0 + 3, "y must hold two classes or more, got only 3"),
        (BOTH, PROBS, Y - 1, "y must be at least 0, got -1 at index 0: leave unlabelled"),
        (["leep"], Y, PROBS, r"source_probs must have shape \(N, Z\), got \(12,\): .*for hard labels use nce"),
        (["leep"], PROBS + X.min() * (np.arange(12) == 4)[:, None], Y, "got row 4 with sum .* softmax"),
        (["leep"], np.tile([1.5, -0.5], (12, 1)), Y, r"minimum -0.5 \(12 such rows\)"),
        (["leep"], PROBS * np.nan, Y, "source_probs must be finite"),
        (["nce"], PROBS, Y, "source_labels must be integer labels .* for probabilities use leep"),
        (["nce"], Y, PROBS, "y must be integer labels .*: source_labels comes first"),
        (["nce"], Y[:-1], Y, "y must have a label for each of the 11 rows of source_labels"),
        (["nce"], Y, Y * 0, "y must hold two classes"),
        (["nce"], Y[:0], Y, "source_labels must be integer labels"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value_and_the_remedy(names, first, y, told):
    for name in names:
        with pytest.raises(ValueError, match=told):
            getattr(tl.ranking, name)(first, y)


# How well does a score rank sources?


@pytest.fixture(scope="module")
def four_sources():
    """Four sources of growing quality on 200 examples in ten groups."""
    rng = np.random.default_rng(0)
    y, groups = np.arange(200) % 2, np.repeat(np.arange(10), 20)
    found = {}
    for name, signal in zip("abcd", (0.2, 0.8, 1.5, 3.0), strict=True):
        p = 1 / (1 + np.exp(-(signal * (2 * y - 1) + rng.normal(size=200))))
        found[name] = tl.evaluate(np.stack([1 - p, p], 1), y, groups=groups)
    return found


def test_the_agreement_is_the_share_of_pairs_in_the_right_order(four_sources):
    scores = {"a": 1, "b": 2, "c": 4, "d": 3}  # one of six pairs is the wrong way round
    found = tl.ranking.agreement(scores, four_sources)
    assert found.tau == pytest.approx((5 - 1) / 6) and found.sources == 4
    assert tl.ranking.agreement({k: -v for k, v in scores.items()}, four_sources).tau == pytest.approx(-4 / 6)
    assert tl.ranking.agreement(dict(zip("abcd", range(4), strict=True)), four_sources).tau == 1


def test_of_the_log_loss_the_lowest_is_best(four_sources):
    best_first = {name: -e.log_loss for name, e in four_sources.items()}
    assert tl.ranking.agreement(best_first, four_sources, metric="log_loss").tau == 1


def test_the_interval_of_the_agreement_is_that_of_drawing_groups_by_hand(four_sources):
    scores = {"a": 2, "b": 1, "c": 4, "d": 3}
    rng, taus = np.random.default_rng(1), []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(four_sources["a"].groups == g) for g in rng.integers(0, 10, 10)])
        aucs = [roc_auc_score(e.labels[rows], e.probabilities[rows, 1]) for e in four_sources.values()]
        taus.append(kendalltau(list(scores.values()), aucs).statistic)
    found = tl.ranking.agreement(scores, four_sources)
    assert np.allclose(found.interval, np.quantile(taus, [0.025, 0.975]), atol=0.35)
    assert found.interval[0] <= found.tau <= found.interval[1]


def test_two_scores_are_compared_on_the_same_draws_of_groups(four_sources):
    right, wrong = dict(zip("abcd", range(4), strict=True)), {"a": 2, "b": 1, "c": 4, "d": 3}
    a, b = (tl.ranking.agreement(scores, four_sources) for scores in (right, wrong))
    found, itself = tl.ranking.compare(a, b), tl.ranking.compare(a, a)
    assert found.difference == pytest.approx(a.tau - b.tau) and itself.difference == 0 and itself.interval == (0, 0)
    reversed_ = tl.ranking.agreement({k: -v for k, v in right.items()}, four_sources)
    twice = tl.ranking.compare(a, reversed_)  # of the reversed score each draw has −τ
    assert np.allclose(twice.interval, 2 * np.array(a.interval))
    rng, differences = np.random.default_rng(1), []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(four_sources["a"].groups == g) for g in rng.integers(0, 10, 10)])
        aucs = [roc_auc_score(e.labels[rows], e.probabilities[rows, 1]) for e in four_sources.values()]
        taus = [kendalltau(list(scores.values()), aucs).statistic for scores in (right, wrong)]
        differences.append(taus[0] - taus[1])
    assert np.allclose(found.interval, np.quantile(differences, [0.025, 0.975]), atol=0.35)


def test_agreements_on_other_draws_are_not_compared(four_sources):
    a = tl.ranking.agreement(dict.fromkeys("abcd", 1) | {"a": 0}, four_sources)
    b = tl.ranking.agreement(dict.fromkeys("abcd", 1) | {"a": 0}, four_sources, resamples=50)
    with pytest.raises(ValueError, match="1000 and 50 draws"):
        tl.ranking.compare(a, b)


def test_with_four_sources_even_a_perfect_order_is_not_beyond_chance(four_sources):
    assert tl.ranking.agreement(dict(zip("abcd", range(4), strict=True)), four_sources).chance == pytest.approx(2 / 24)


def test_sources_that_cannot_be_compared_are_named(four_sources):
    with pytest.raises(ValueError, match="same 3 sources or more, got 2 and 4"):
        tl.ranking.agreement({"a": 1, "b": 2}, four_sources)
    e = four_sources["a"]
    with pytest.raises(ValueError, match="'b' was evaluated on other examples"):
        other = tl.evaluate(e.probabilities, e.labels[::-1], groups=e.groups)
        tl.ranking.agreement(dict.fromkeys("abcd", 1), four_sources | {"b": other})
