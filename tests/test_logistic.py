"""The solver: it reaches the optimum that scikit-learn reaches, knows how far it is from it, and says when it fails."""

import functools
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from test_probes import all_rows, made_features

import tlbook as tl
from tlbook import probes
from tlbook.feature_extraction import Features
from tlbook.logistic import Problems, fit_path, held_out_path, principal_axes, standardise


def reference(X, y, C, weight=None):
    """scikit-learn's solution on standardised features, and the value of our objective there."""
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    weight = np.ones(len(y)) if weight is None else weight
    model = LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(Z, y, weight)
    losses = -np.log(model.predict_proba(Z)[np.arange(len(y)), y])
    return C * (weight * losses).sum() + 0.5 * (model.coef_**2).sum(), model, Z


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("n, D", [(40, 90), (200, 15)], ids=["more dimensions", "more examples"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_objective_reaches_that_of_scikit_learn(n, D, K, weighted):
    made = made_features(n, D, K)
    weight = (np.random.default_rng(1).random(n) * 3 - 1).clip(0) if weighted else None  # a third weighs nothing
    Cs = [1e-3, 0.1, 10]
    for C, (objective, W, b) in zip(Cs, fit_path(made.X, made.y, Cs, weight), strict=True):
        theirs, model, Z = reference(made.X, made.y, C, weight)
        assert objective == pytest.approx(theirs, rel=1e-5)
        probe = tl.linear_probe(made, all_rows(made), C=C, sample_weight=weight)
        assert np.allclose(probe.predict_proba(made.X), model.predict_proba(Z), atol=2e-4)
        assert np.allclose(probe.coef, W, atol=1e-3) and np.allclose(probe.intercept, b, atol=1e-2)


@pytest.mark.parametrize("stage, rows", [("blocks.4", slice(None, None, 26)), ("blocks.2", slice(None, None, 2))])
def test_the_objective_reaches_that_of_scikit_learn_on_real_features(solar_features, stage, rows):
    X, y = solar_features.select(stage).X[rows], solar_features.y[rows]
    assert (X.shape[1] > len(X)) == (stage == "blocks.4")
    for C, (objective, _, _) in zip([1e-3, 0.1], fit_path(X, y, [1e-3, 0.1]), strict=True):
        assert objective == pytest.approx(reference(X, y, C)[0], rel=1e-5)


def test_the_solution_does_not_depend_on_where_the_path_began():
    made = made_features(80, 30, 3)
    last = [list(fit_path(made.X, made.y, Cs, tol=1e-10))[-1] for Cs in ([0.1], [1e-4, 1e-2, 0.1], [100, 0.1])]
    for objective, W, _ in last[1:]:
        assert objective == pytest.approx(last[0][0], rel=1e-7)
        assert np.allclose(W, last[0][1], atol=1e-4)


def test_a_weight_of_two_on_standardised_rows_counts_as_two_examples():
    made = made_features(60)
    Z = StandardScaler().fit_transform(made.X)
    twice = np.concatenate([np.arange(60), np.arange(60)])
    (one,) = fit_path(Z, made.y, [0.1], np.full(60, 2.0), tol=1e-10)
    (two,) = fit_path(Z[twice], made.y[twice], [0.1], tol=1e-10)
    assert np.allclose(one[1], two[1], atol=1e-5)


@pytest.mark.parametrize("K", [2, 3])
def test_the_gradient_is_that_of_the_objective(K):
    """Central differences, for two problems with weights of their own on the same rows."""
    made = made_features(30, 4, K)
    s = np.random.default_rng(0).random((30, 2)) * (np.arange(30)[:, None] % 3 != [0, 1])
    Z, _, _, least = standardise(made.X)
    problems = Problems(Z, made.y, s, s > 0, K, least)
    t = torch.randn(2, problems.R, 5, generator=torch.Generator().manual_seed(0)).to(Z)
    _, g, _ = problems.objective(t, 0.7)
    for i in range(t[0].numel()):
        step = torch.zeros_like(t[0]).flatten()
        step[i] = 1e-5
        step = step.view_as(t[0])
        rise = problems.objective(t + step, 0.7)[0] - problems.objective(t - step, 0.7)[0]
        assert torch.allclose(g.flatten(1)[:, i], rise / 2e-5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("C", [1e-3, 0.1, 10])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-7])
def test_the_objective_is_as_close_to_the_optimum_as_was_asked_for(C, tol):
    made = made_features(120, 40, 3)
    best = next(fit_path(made.X, made.y, [C], tol=1e-12))[0]
    assert best * (1 - 1e-10) <= next(fit_path(made.X, made.y, [C], tol=tol))[0] <= best * (1 + tol)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("n, D", [(40, 90), (200, 15)], ids=["more dimensions", "more examples"])
def test_held_out_rows_are_predicted_as_by_a_fit_without_them(n, D, K):
    """Every fold standardises on its own rows: in one a column is constant, and in one a class is missing."""
    made = made_features(n, D, K)
    parts = np.array_split(np.random.default_rng(0).permutation(n), 3)
    made.X[:, 0] = 20 * np.isin(np.arange(n), parts[0])
    if K == 3:
        made.y[parts[1]] = np.where(made.y[parts[1]] == 2, 0, made.y[parts[1]])
        made.y[np.setdiff1d(np.arange(n), parts[2])] %= 2
        made.y[parts[2][:5]] = 2
    weight = np.random.default_rng(1).integers(0, 3, n) + (made.y == 2)
    (Z, _, _, least), Cs = standardise(made.X, torch.float32), [1e-3, 0.1]
    for C, (p, _) in zip(Cs, held_out_path(Z, made.y, Cs, parts, weight, K, least, tol=1e-7), strict=True):
        for part in parts:
            rows = np.setdiff1d(np.arange(n), part)
            scaler = StandardScaler().fit(made.X[rows])
            present = np.unique(made.y[rows][weight[rows] > 0])
            strength = 2 * C if len(present) < K else C  # a row for each of two classes: half the penalty
            model = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000)
            heavy = rows[weight[rows] > 0]
            model.fit(scaler.transform(made.X[heavy]), made.y[heavy], weight[heavy])
            assert np.allclose(p[part][:, present], model.predict_proba(scaler.transform(made.X[part])), atol=2e-3)
            assert np.allclose(p[part].sum(1), 1)


def test_a_weak_penalty_on_classes_that_are_far_apart_is_judged_by_its_own_solution(monkeypatch):
    """float32 has no digits left there: what is scored is the last point that was reached, not one that was tried.

    How the sums are ordered (by the device, the threads) is seen in the second digit or third of the last losses.
    """
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 25)
    X = np.abs(rng.normal(size=(25, 400))) * rng.gamma(0.3, size=400) * 5
    X[:, :12] += 0.8 * np.repeat(np.eye(2)[y], 6, axis=1)
    features = Features(X.astype(np.float32), y, None, {"f": slice(0, 400)})
    losses = [row["log loss"] for row in tl.linear_probe(features, all_rows(features)).path]
    monkeypatch.setattr(probes, "standardise", lambda X, dtype, blocks: standardise(X, torch.float64, blocks))
    exact = [row["log loss"] for row in tl.linear_probe(features, all_rows(features)).path]
    assert len(exact) == 15 and all(later < earlier for earlier, later in zip(exact, exact[1:], strict=False))
    assert losses == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("n, D", [(40, 90), (200, 15)], ids=["more dimensions", "more examples"])
def test_the_principal_axes_carry_all_that_the_rows_hold(n, D):
    Z = standardise(made_features(n, D).X)[0]
    axes, spread = principal_axes(Z)
    assert torch.allclose(axes.T @ axes, torch.eye(len(spread)).to(axes), atol=1e-6)
    assert torch.allclose((axes * spread) @ axes.T, Z.T @ Z / n, atol=1e-8)


def test_the_principal_axes_of_rows_in_float32_stand_at_right_angles():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 500)) @ np.diag(10.0 ** np.linspace(0, -4, 500))
    axes, spread = principal_axes(torch.tensor(X, dtype=torch.float32))
    assert len(spread) > 100 and (axes.T @ axes - torch.eye(len(spread))).abs().max() < 1e-6


@pytest.mark.parametrize("C", [1e-8, 1e4])
@pytest.mark.parametrize("n, D", [(40, 90), (200, 15)], ids=["more dimensions", "more examples"])
def test_a_penalty_far_from_the_path_is_solved(C, n, D):
    made = made_features(n, D, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective, _, _ = next(fit_path(made.X, made.y, [C], axes=principal_axes(standardise(made.X)[0].float())))
    assert objective <= reference(made.X, made.y, C)[0] * (1 + 1e-5)


def test_an_unfinished_solution_is_said_with_its_c_and_its_gradient(monkeypatch):
    made = made_features(100, 30, 3)
    monkeypatch.setattr(Problems, "minimise", functools.partialmethod(Problems.minimise, steps=2))
    with pytest.warns(RuntimeWarning, match=r"C = 10 is not solved: gradient .* take a smaller C"):
        tl.linear_probe(made, all_rows(made), C=10)


@pytest.mark.parametrize("n, D", [(10, 30), (30, 10)], ids=["more dimensions", "more examples"])
def test_features_that_are_all_constant_leave_the_class_shares(n, D):
    y = np.arange(n) % 5 // 2  # 2 : 2 : 1
    _, W, b = next(fit_path(np.full((n, D), 3.0), y, [1.0]))
    assert (W == 0).all() and np.allclose(np.exp(b) / np.exp(b).sum(), [0.4, 0.4, 0.2], atol=1e-3)


def test_a_column_that_hardly_varies_is_not_enlarged_beyond_ten_times_its_blocks_typical_one():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6)) * [1, 2, 1e-6, 100, 300, 0] + 7
    blocks = [slice(0, 3), slice(3, 6)]
    Z, mean, deviation, least = standardise(X, blocks=blocks)
    typical = [np.sqrt(np.mean(X[:, b].std(0)[X[:, b].std(0) > 0] ** 2)) for b in blocks]
    expected = np.maximum(X.std(0), np.repeat(typical, 3) / 10)
    assert np.allclose(deviation, expected) and np.allclose(Z.cpu(), (X - X.mean(0)) / expected)
    assert np.allclose(least, np.repeat(typical, 3) / 10 / expected) and np.allclose(mean, X.mean(0))


def test_a_unit_that_is_silent_in_training_does_not_drown_the_others_when_it_speaks():
    made = made_features(200, 5)
    silent = np.random.default_rng(0).normal(size=(200, 1)) * 1e-6 * made.y[:, None]  # traces that go with the label
    X = np.concatenate([made.X, silent], 1)
    plain, W, b = next(fit_path(X, made.y, [1.0]))
    spoken = X[:1].copy()
    spoken[0, -1] = made.X.std()  # as loud as any other
    shift = (spoken @ W.T - X[:1] @ W.T).item()
    assert abs(shift) < 5  # divided by its own deviation it would shift the logit by thousands
