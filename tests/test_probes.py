"""Probes: the convex problem is solved as scikit-learn solves it, and held-out rows take no part."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import tlbook as tl
from tlbook.data import Dataset, Split
from tlbook.feature_extraction import Features
from tlbook.probes import CS


def made_features(n=150, D=12, K=2, seed=0, groups=10):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    X = rng.normal(3, 5, (n, D)) + 4 * rng.normal(size=(K, D))[y]
    group = rng.integers(0, groups, n)
    X += 3 * rng.normal(size=(groups, D))[group]
    return Features(X.astype(np.float32), y, group, {"made": slice(0, D)})


def all_rows(features):
    rows = np.arange(len(features.y))
    return Split(rows, rows[:0], rows[:0])


def test_the_coefficients_act_on_features_as_they_are():
    for K in (2, 3):
        made = made_features(K=K)
        probe = tl.linear_probe(made, all_rows(made), C=0.1)
        logits = made.X @ probe.coef.T + probe.intercept
        assert probe.coef.shape == (1 if K == 2 else 3, 12)
        p = probe.predict_proba(made.X)
        ratio = np.log(p[:, 1:] / p[:, :1])
        assert np.allclose(ratio, logits if K == 2 else logits[:, 1:] - logits[:, :1], atol=1e-6)
        assert np.allclose(p.sum(1), 1)


def test_the_scale_and_the_place_of_a_feature_do_not_matter():
    made = made_features()
    moved = Features(made.X * np.float32(64) + np.float32(8), made.y, made.groups, made.blocks)
    a, b = (tl.linear_probe(f, all_rows(f), C=0.1).predict_proba(f.X) for f in (made, moved))
    assert np.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_constant_feature_changes_no_prediction(constant):
    made = made_features(1000)
    column = np.full((len(made.y), 1), constant, dtype=np.float32)
    more = Features(np.concatenate([made.X, column], axis=1), made.y, made.groups, made.blocks)
    split = Split(np.arange(900), np.arange(0), np.arange(900, 1000))
    for probe, options in ((tl.linear_probe, {"C": 0.1}), (tl.knn_probe, {})):
        a, b = (probe(f, split, **options).predict_proba(f.X[split.test]) for f in (made, more))
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("grouped", [True, False])
def test_the_chosen_c_has_the_lowest_log_loss_on_held_out_groups(grouped):
    made = made_features(160, 10)
    made = made if grouped else Features(made.X, made.y, None, made.blocks)
    split = Split(np.arange(130), np.arange(0), np.arange(130, 160))
    probe = tl.linear_probe(made, split, seed=3)
    X, y = made.X[split.train].astype(np.float64), made.y[split.train]
    groups = made.groups[split.train] if grouped else None
    folds = Dataset(X, y, ("no", "yes"), groups).folds(4, by="group" if grouped else "random", seed=3)
    losses = []
    for C in CS:
        p = np.empty((len(y), 2))
        for fold in folds:
            scaler = StandardScaler().fit(X[fold.train])
            model = LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
            model.fit(scaler.transform(X[fold.train]), y[fold.train])
            p[fold.test] = model.predict_proba(scaler.transform(X[fold.test]))
        losses.append(log_loss(y, p))
    assert probe.C == CS[int(np.argmin(losses))]
    tried = [row["log loss"] for row in probe.path]
    assert np.allclose(tried, losses[: len(tried)], atol=2e-3) and len(tried) > np.argmin(losses)
    assert log_loss(y, probe.scores) == pytest.approx(min(tried))


@pytest.mark.parametrize("C", [None, 0.1])
def test_rows_outside_the_training_part_never_influence_the_probe(C):
    made = made_features()
    split = Dataset(made.X, made.y, ("no", "yes"), made.groups).split(seed=1)
    outside = np.concatenate([split.val, split.test])
    X, y = made.X.copy(), made.y.copy()
    X[outside], y[outside] = 1e9, 1 - y[outside]
    garbage = Features(X, y, made.groups, made.blocks)
    a, b = (tl.linear_probe(f, split, C=C) for f in (made, garbage))
    assert np.array_equal(a.coef, b.coef) and a.C == b.C
    rows = split.train[:20]
    a, b = (tl.knn_probe(f, split, k=5).predict_proba(made.X[rows]) for f in (made, garbage))
    assert np.array_equal(a, b)


def test_balanced_class_weights_are_scikit_learns():
    made = made_features(200)
    y = np.where(np.arange(200) % 5 == 0, made.y, 0)
    made = Features(made.X, y, made.groups, made.blocks)
    a = tl.linear_probe(made, all_rows(made), C=0.1, class_weight="balanced")
    weight = compute_sample_weight("balanced", y)
    b = tl.linear_probe(made, all_rows(made), C=0.1, sample_weight=weight)
    plain = tl.linear_probe(made, all_rows(made), C=0.1)
    assert np.allclose(a.coef, b.coef, atol=1e-6) and not np.allclose(a.coef, plain.coef, atol=1e-2)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"C": 0}, "C must be above 0.*got 0"),
        ({"C": float("nan")}, "C must be above 0.*got nan"),
        ({"C": np.inf}, "C must be above 0 and finite"),
        ({"C": "1"}, "C must be above 0.*got '1'"),
        ({"C": True}, "C must be above 0.*got True"),
        ({"folds": 1}, "folds must be a whole number of at least 2, got 1"),
        ({"folds": 2.5}, "folds must be a whole number of at least 2, got 2.5"),
        ({"folds": "4", "C": 1.0}, "folds must be a whole number of at least 2, got '4'"),
        ({"sample_weight": np.ones(3)}, "sample_weight must be 150 numbers, one for each example"),
        ({"sample_weight": -np.ones(150)}, "at least 0 and finite, got -1.0 for example 0"),
        ({"sample_weight": np.where(np.arange(150) == 7, np.nan, 1)}, "got nan for example 7"),
        ({"sample_weight": np.where(np.arange(150) == 7, np.inf, 1)}, "got inf for example 7"),
        ({"sample_weight": ["heavy"] * 150}, "sample_weight must be 150 numbers"),
        ({"sample_weight": np.zeros(150)}, "sample_weight is 0 for every training row"),
        ({"class_weight": "even"}, "None or 'balanced', got 'even'"),
        ({"class_weight": np.ones(2)}, "None or 'balanced'"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(options, says):
    made = made_features()
    with pytest.raises(ValueError, match=says):
        tl.linear_probe(made, all_rows(made), **options)


@pytest.mark.parametrize("probe", [tl.linear_probe, tl.knn_probe])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_named(probe, value):
    made = made_features()
    made.X[[7, 120], [3, 0]] = value
    made = Features(made.X, made.y, made.groups, {"first": slice(0, 3), "second": slice(3, 12)})
    rows = np.arange(100, 150)
    with pytest.raises(ValueError, match=r"example 7, column 3 \(block 'second'\)"):
        probe(made, all_rows(made))
    with pytest.raises(ValueError, match=r"example 120, column 0 \(block 'first'\)"):
        probe(made, Split(rows, rows[:0], rows[:0]))
    assert probe(made, Split(np.arange(8, 100), rows[:0], rows[:0])).predict_proba(made.X[8:100]).shape == (92, 2)


@pytest.mark.parametrize("y", [np.zeros(150), np.full(150, "a"), np.arange(150) - 1, np.zeros((150, 2), int)])
@pytest.mark.parametrize("probe", [tl.linear_probe, tl.knn_probe])
def test_labels_that_are_no_class_numbers_are_an_error(probe, y):
    made = made_features()
    with pytest.raises(ValueError, match="features.y must be N integers from 0 on"):
        probe(Features(made.X, y, made.groups, made.blocks), all_rows(made))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("counts", [(1, 30), (2, 30), (3, 30), (3, 3), (5, 5), (1, 20, 20), (2, 20, 20), (5, 5, 5)])
def test_a_few_examples_of_a_class_are_enough(counts, grouped):
    """Three examples cannot be dealt to four parts, and where one is held out nothing may be left to learn from."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(counts)), counts)
    X = (rng.normal(size=(len(y), 20)) + 2 * rng.normal(size=(len(counts), 20))[y]).astype(np.float32)
    few = Features(X, y, np.arange(len(y)) // 2 if grouped else None, {"made": slice(0, 20)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = tl.linear_probe(few, all_rows(few))
    assert (probe.predict_proba(X).argmax(1) == y).all()
    assert probe.path[0]["log loss"] < 1.3  # a class that a part never saw is not held against any C


def test_rows_on_which_no_c_can_be_judged_are_an_error_until_c_is_given():
    made = made_features(4, 5)
    for groups in (None, np.array([0, 1])):  # one example of each class; a group for each class
        pair = Features(made.X[:2], np.array([0, 1]), groups, made.blocks)
        with pytest.raises(ValueError, match="give C="):
            tl.linear_probe(pair, all_rows(pair))
        assert (tl.linear_probe(pair, all_rows(pair), C=1.0).predict_proba(pair.X).argmax(1) == pair.y).all()


@pytest.mark.parametrize("C", [None, 0.1])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_class_without_a_training_row_has_probability_0(missing, C):
    made = made_features(90, K=3)
    rows = np.flatnonzero(made.y != missing)
    probe = tl.linear_probe(made, Split(rows, rows[:0], rows[:0]), C=C)
    p = probe.predict_proba(made.X)
    assert p.shape == (90, 3) and np.isfinite(probe.coef).all() and np.isfinite(probe.intercept).all()
    assert (p[:, missing] == 0).all() and (probe.coef[missing] == 0).all()
    fitted = LogisticRegression(C=2 * probe.C, tol=1e-8)  # a row for each of two classes: half the penalty
    fitted.fit(StandardScaler().fit_transform(made.X[rows]), made.y[rows])
    Z = StandardScaler().fit(made.X[rows]).transform(made.X)
    assert np.allclose(np.delete(p, missing, 1), fitted.predict_proba(Z), atol=2e-3)


def test_a_single_class_or_no_rows_to_fit_is_an_error():
    made = made_features()
    for rows in (np.flatnonzero(made.y == 1), np.arange(0)):
        with pytest.raises(ValueError, match="at least two"):
            tl.linear_probe(made, Split(rows, rows[:0], rows[:0]))
    with pytest.raises(ValueError, match="class 1 only"):
        tl.linear_probe(made, all_rows(made), sample_weight=made.y)


@pytest.mark.parametrize("k", [0, 151, 2.5, "3", True, None])
def test_an_impossible_number_of_neighbours_is_an_error(k):
    made = made_features()
    with pytest.raises(ValueError, match="k must be"):
        tl.knn_probe(made, all_rows(made), k=k)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, "warm"])
def test_an_impossible_temperature_is_an_error(temperature):
    made = made_features()
    with pytest.raises(ValueError, match="temperature must be above 0"):
        tl.knn_probe(made, all_rows(made), temperature=temperature)


@pytest.mark.parametrize("K", [2, 3])
def test_nearest_neighbours_vote_by_their_cosine(K):
    made = made_features(K=K)
    split = Split(np.arange(100), np.arange(0), np.arange(100, 150))
    train, test = made.X[:100].astype(np.float64), made.X[100:].astype(np.float64)
    mean, deviation = train.mean(0), train.std(0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    expected = np.zeros((50, K))
    for i, x in enumerate(test):
        cosine = train @ x / np.linalg.norm(train, axis=1) / np.linalg.norm(x)
        for j in np.argsort(-cosine)[:7]:
            expected[i, made.y[j]] += np.exp(cosine[j] / 0.1)
    expected /= expected.sum(1, keepdims=True)
    probe = tl.knn_probe(made, split, k=7, temperature=0.1)
    assert np.allclose(probe.predict_proba(made.X[100:]), expected, atol=1e-6)


def test_cross_validation_predicts_each_example_without_its_group():
    made = made_features()
    folds = Dataset(made.X, made.y, ("no", "yes"), made.groups).folds(4, repeats=2)
    p = tl.cross_val_predict(made, folds, C=0.1)
    expected = np.zeros((150, 2))
    for fold in folds:
        assert not set(made.groups[fold.train]) & set(made.groups[fold.test])
        expected[fold.test] += tl.linear_probe(made, fold, C=0.1).predict_proba(made.X[fold.test]) / 2
    assert np.allclose(p, expected)
    with pytest.raises(ValueError, match="in no test part"):
        tl.cross_val_predict(made, folds[:3], C=0.1)


def test_nearest_neighbours_of_an_example_itself_are_not_found_in_cross_validation():
    rng = np.random.default_rng(0)
    noise = Features(
        rng.normal(size=(200, 5)).astype(np.float32), rng.integers(0, 2, 200), None, {"noise": slice(0, 5)}
    )
    folds = Dataset(noise.X, noise.y, ("no", "yes")).folds(4, by="random")
    p = tl.cross_val_predict(noise, folds, tl.knn_probe, k=1)
    assert (p.argmax(1) == noise.y).mean() < 0.65


def test_a_probe_scores_the_rows_it_is_asked_for():
    made = made_features()
    probe = tl.linear_probe(made, all_rows(made), C=1.0)
    rows = np.arange(20, 90)
    found = probe.evaluate(made, rows)
    expected = tl.evaluate(probe.predict_proba(made.X[rows]), made.y[rows], groups=made.groups[rows])
    assert found.auc == expected.auc and found.interval == expected.interval


def test_a_few_training_groups_are_enough_to_choose_c_and_one_is_said_to_be_too_few():
    features = made_features(groups=3)
    assert tl.linear_probe(features, all_rows(features)).C in CS
    alone = made_features(groups=1)
    with pytest.raises(ValueError, match="one group.*give C="):
        tl.linear_probe(alone, all_rows(alone))
    assert tl.linear_probe(alone, all_rows(alone), C=1.0).C == 1.0
