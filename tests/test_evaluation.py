"""Evaluation: scores equal scikit-learn's, intervals know of groups, baselines never look at an input."""

import numpy as np
import pytest
from sklearn import metrics

import tlbook as tl
from tlbook import evaluation


def predictions(K, n=120, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    logits = rng.normal(size=(n, K)) + 1.2 * np.eye(K)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if ties:
        p = np.round(p, 1) + 0.05
        p /= p.sum(1, keepdims=True)
    return p, labels, rng.random(n) + 0.1, rng.integers(0, 8, n)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_metric_equals_scikit_learns(K, ties, weighted):
    p, y, w, _ = predictions(K, ties=ties)
    w = w if weighted else np.ones(len(y))
    found = tl.evaluate(p, y, sample_weight=w)
    hit = p.argmax(1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(y, hit, sample_weight=w))
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, hit, sample_weight=w))
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p, sample_weight=w))
    auc = np.mean([metrics.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in ([1] if K == 2 else range(K))])
    assert found.auc == pytest.approx(auc)


def test_intervals_hold_the_score_and_a_seed_fixes_them():
    p, y, _, groups = predictions(3)
    found, again = (tl.evaluate(p, y, groups=groups) for _ in range(2))
    assert found.interval == again.interval
    for metric, (low, high) in found.interval.items():
        assert low < getattr(found, metric) < high


def test_the_bootstrap_is_the_same_however_many_draws_are_made_at_a_time(monkeypatch):
    p, y, weight, groups = predictions(3)

    def found():
        a, b = (tl.evaluate(q, y, groups=groups, sample_weight=weight) for q in (p, p[:, ::-1]))
        return [*a.interval.values(), tl.compare(a, b).interval]

    at_once = found()
    monkeypatch.setattr(evaluation, "_AT_ONCE", 7 * len(y))
    assert np.allclose(found(), at_once, rtol=1e-12)


def test_draws_are_the_same_whether_pairs_of_groups_are_counted_or_examples(monkeypatch):
    p, y, weight, groups = predictions(3, ties=True)

    def found():
        return evaluation._draws(p, y, weight, groups, 200, 0)["auc"]

    counted = found()
    monkeypatch.setattr(evaluation, "_MOST_PAIRED", 0)
    assert np.allclose(found(), counted, rtol=1e-12)
    unit = np.unique(groups, return_inverse=True)[1]
    k = unit.max() + 1
    times = np.random.default_rng(0).multinomial(k, np.full(k, 1 / k), size=200)
    for draw, auc in zip(times, counted, strict=True):
        one_vs_rest = [metrics.roc_auc_score(y == c, p[:, c], sample_weight=weight * draw[unit]) for c in range(3)]
        assert auc == pytest.approx(np.mean(one_vs_rest))


def test_intervals_by_group_are_wider_than_by_example_where_groups_share_their_luck():
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(20), 15), rng.integers(0, 2, 300)
    right = np.repeat(rng.random(20) < 0.6, 15)
    p = np.eye(2)[np.where(right, labels, 1 - labels)] * 0.8 + 0.1
    width = [np.diff(tl.evaluate(p, labels, groups=g).interval["accuracy"])[0] for g in (groups, None)]
    assert width[0] > 2.5 * width[1]


def test_the_bootstrap_by_group_has_the_standard_error_of_the_group_means():
    rng = np.random.default_rng(1)
    groups, labels = np.repeat(np.arange(60), 4), np.zeros(240, int)
    labels[0] = 1
    share = rng.integers(0, 5, 60)
    right = (np.arange(4) < share[:, None]).ravel()
    p = np.eye(2)[np.where(right, labels, 1 - labels)]
    low, high = tl.evaluate(p, labels, groups=groups, resamples=4000).interval["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * (share / 4).std() / np.sqrt(60), rel=0.1)


def panels(k, rng):
    """Probabilities, labels and groups of k panels of 20 to 120 cells that differ in defects, offsets and size."""
    groups = np.repeat(np.arange(k), rng.choice([20, 50, 60, 70, 120], k))
    labels = (rng.random(len(groups)) < rng.beta(0.8, 1.6, k)[groups]).astype(int)
    score = 0.72 * (2 * labels - 1) + rng.normal(0, 0.5, k)[groups] + rng.normal(size=len(groups))
    p = 1 / (1 + np.exp(-score))
    return np.stack([1 - p, p], 1), labels, groups


@pytest.mark.parametrize("k", [10, 22, 44])
def test_93_of_100_intervals_hold_the_truth_even_of_ten_panels_of_unequal_size(k):
    rng = np.random.default_rng(k)
    p, labels, groups = panels(20_000, rng)
    right = np.bincount(groups, (p[:, 1] > 0.5) == labels)
    size = np.bincount(groups)
    truth, held, by_percentiles = right.sum() / size.sum(), [], []
    for _ in range(2000):
        some = rng.choice(len(size), k)
        times = rng.multinomial(k, np.full(k, 1 / k), size=500)  # bootstrap of whole panels, of the accuracy
        draws = times @ right[some] / (times @ size[some])
        n = evaluation._effective_number(np.repeat(1.0, size[some].sum()), np.repeat(np.arange(k), size[some]))
        for low, high, found in (
            (*evaluation._interval(draws, n), held),
            (*np.quantile(draws, [0.025, 0.975]), by_percentiles),
        ):
            found.append(low <= truth <= high)
    assert np.mean(held) > 0.93
    if k == 10:
        assert np.mean(by_percentiles) < 0.91  # the plain ones do not


def test_the_interval_of_an_auc_over_ten_panels_holds_the_truth_as_often():
    rng = np.random.default_rng(0)
    p, labels, _ = panels(4000, rng)
    truth, held = tl.evaluate(p, labels, resamples=1).auc, []
    for seed in range(400):
        p, labels, groups = panels(10, rng)
        draws = evaluation._draws(p, labels, np.ones(len(labels)), groups, 300, seed)["auc"]
        low, high = evaluation._interval(draws, evaluation._effective_number(np.ones(len(labels)), groups))
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.93 - 0.013  # the standard error of the share over 400 runs


def test_the_majority_baseline_calls_everything_the_most_frequent_class():
    p, y, w, _ = predictions(2, seed=3)
    y = np.where(np.arange(len(y)) % 3 == 0, 1, 0)
    majority = tl.evaluate(p, y).baselines["majority"]
    assert majority["accuracy"] == pytest.approx((y == 0).mean())
    assert majority["balanced_accuracy"] == majority["auc"] == 0.5
    assert majority["log_loss"] == pytest.approx(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))


def test_the_group_prior_predicts_the_share_of_each_group_in_training():
    train_labels, train_groups = [0, 0, 0, 1, 1, 1, 1, 0], list("aaaabbbb")
    labels, groups = np.array([0, 1, 1, 0]), np.array(list("abcc"))
    found = tl.evaluate(np.full((4, 2), 0.5), labels, groups=groups, reference=(train_labels, train_groups))
    prior = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.5, 0.5]])
    assert found.baselines["group prior"]["log_loss"] == pytest.approx(metrics.log_loss(labels, prior))
    assert found.baselines["group prior"]["auc"] == metrics.roc_auc_score(labels, prior[:, 1])
    assert "group prior" in repr(found)


def test_within_group_auc_is_the_mean_over_groups_that_hold_both_classes():
    p, y, _, groups = predictions(2, seed=1)
    y[groups == 4] = 1
    by_group = []
    for group in set(groups) - {4}:
        positive, negative = (p[(groups == group) & (y == k), 1] for k in (1, 0))
        pairs = np.sign(positive[:, None] - negative[None])
        by_group.append((pairs / 2 + 0.5).mean())
    assert tl.evaluate(p, y, groups=groups).within_group_auc == pytest.approx(np.mean(by_group))
    assert np.isnan(tl.evaluate(p, y).within_group_auc)


def test_a_group_that_has_one_class_of_any_weight_is_no_group_of_two():
    p, y, groups = np.array([0.2, 0.8, 0.6, 0.4]), [0, 1, 0, 1], list("aabb")
    found = tl.evaluate(np.stack([1 - p, p], 1), y, groups=groups, sample_weight=[1, 1, 1, 0])
    assert found.within_group_auc == 1


def test_a_single_class_has_no_auc():
    found = tl.evaluate([[0.9, 0.1], [0.6, 0.4]], [0, 0])
    assert np.isnan(found.auc) and np.isnan(found.interval["auc"]).all()
    assert found.accuracy == found.balanced_accuracy == 1


def test_what_is_printed_has_every_score_its_interval_and_the_baseline():
    p, y, _, groups = predictions(2)
    text = repr(tl.evaluate(p, y, groups=groups))
    assert "in 8 groups" in text and "bootstrap over groups" in text
    for word in ("accuracy", "balanced accuracy", "auc", "log loss", "majority", "within-group AUC"):
        assert word in text


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "auc", "log_loss"])
def test_an_evaluation_compared_with_itself_differs_by_exactly_zero(metric):
    p, y, w, groups = predictions(3)
    a = tl.evaluate(p, y, groups=groups, sample_weight=w)
    assert tl.compare(a, a, metric=metric).difference == 0
    assert tl.compare(a, a, metric=metric).interval == (0, 0)


def test_a_paired_comparison_sees_a_small_steady_gain_that_the_intervals_hide():
    p, y, _, groups = predictions(2, n=600)
    sharper = p.copy()
    better = np.flatnonzero((p.argmax(1) != y) & (np.arange(600) % 8 == 0))
    sharper[better] = np.eye(2)[y[better]] * 0.8 + 0.1
    a, b = (tl.evaluate(q, y, groups=groups) for q in (sharper, p))
    difference = tl.compare(a, b, metric="accuracy")
    assert difference.difference == pytest.approx(len(better) / 600)
    assert difference.interval[0] > 0 and a.interval["accuracy"][0] < b.interval["accuracy"][1]
    back = tl.compare(b, a, metric="accuracy")
    assert back.interval == pytest.approx((-difference.interval[1], -difference.interval[0]))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"probabilities": np.full((3, 2), 0.5)}, "labels \\(N,\\)"),
        ({"probabilities": np.full(4, 0.5)}, "must be \\(N, K\\)"),
        ({"probabilities": np.array([[2.0, -1.0]] * 4)}, "not logits"),
        ({"probabilities": np.array([[3.0, 1.0]] * 4)}, "not logits"),
        ({"probabilities": np.full((4, 2), np.nan)}, "finite"),
        ({"labels": [0, 1, 2, 0]}, "labels must be integers in 0 … 1"),
        ({"labels": [0, 1, -1, 0]}, "labels must be integers"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, "labels must be integers"),
        ({"groups": [0, 1]}, "4 entries each"),
        ({"sample_weight": [1, 1, 1]}, "4 entries each"),
        ({"sample_weight": [1, 1, 1, -1]}, "at least 0"),
        ({"sample_weight": [1, 1, 1, np.nan]}, "at least 0"),
        ({"sample_weight": [0, 0, 0, 0]}, "at least 0"),
    ],
)
def test_what_cannot_be_scored_is_an_error(change, says):
    good = {"probabilities": np.full((4, 2), 0.5), "labels": [0, 1, 0, 1]}
    with pytest.raises(ValueError, match=says):
        tl.evaluate(**(good | change))


def test_no_examples_are_an_error():
    with pytest.raises(ValueError, match="N above 0"):
        tl.evaluate(np.zeros((0, 2)), np.zeros(0, int))


def test_only_evaluations_of_the_same_examples_are_compared():
    p, y, w, groups = predictions(2)
    a = tl.evaluate(p, y, groups=groups)
    others = [
        tl.evaluate(p, 1 - y, groups=groups),
        tl.evaluate(p, y),
        tl.evaluate(p, y, groups=groups[::-1]),
        tl.evaluate(p, y, groups=groups, sample_weight=w),
        tl.evaluate(p[:50], y[:50], groups=groups[:50]),
    ]
    for b in others:
        with pytest.raises(ValueError, match="same examples"):
            tl.compare(a, b)
    with pytest.raises(ValueError, match="metric must be one of"):
        tl.compare(a, a, metric="f1")


def test_a_draw_without_a_class_has_no_balanced_accuracy_and_is_left_out():
    """Whoever always says "negative" has a balanced accuracy of one half, however the patients are drawn."""
    labels = np.repeat([0, 0, 0, 0, 0, 0, 1, 1], 5)
    e = tl.evaluate(np.tile([0.9, 0.1], (40, 1)), labels, groups=np.repeat(np.arange(8), 5))
    assert e.interval["balanced_accuracy"] == (0.5, 0.5)


def test_one_group_has_no_interval():
    e = tl.evaluate([[0.9, 0.1], [0.2, 0.8]], [0, 1], groups=[7, 7])
    assert np.isnan(e.interval["accuracy"]).all() and e.accuracy == 1


def test_few_draws_with_every_class_make_no_interval_and_that_is_said():
    """Of twelve classes with an example each, one draw in 18,600 has all: no width comes of the one that is left."""
    labels = np.arange(12)
    p = np.where(np.eye(12)[np.r_[0:4, np.zeros(8, int)]] == 1, 0.45, 0.05)
    found = tl.evaluate(p, labels, resamples=20_000)
    assert np.isnan([found.interval["auc"], found.interval["balanced_accuracy"]]).all()
    low, high = found.interval["accuracy"]
    assert found.accuracy == pytest.approx(1 / 3) and low < found.accuracy < high
    gap = tl.compare(found, tl.evaluate(p[:, ::-1], labels))
    for text in (repr(found), found._repr_html_(), repr(gap), gap._repr_html_()):
        assert "nan" not in text and "too few examples" in text
    assert "too few groups for an interval" in repr(tl.evaluate(p, labels, groups=labels))


def test_a_score_that_is_not_defined_is_said_to_be_so():
    assert "[not defined where a class is missing]" in repr(tl.evaluate([[0.9, 0.1], [0.6, 0.4]], [0, 0]))


@pytest.mark.parametrize("n", [1, 5, 20, 200])
def test_where_no_mistake_was_seen_it_is_said_how_many_others_may_hold(n):
    """The share is the largest at which n in a row are right with probability .05."""
    p, labels = np.tile([[0.9, 0.1], [0.2, 0.8]], (n, 1))[:n], np.tile([0, 1], n)[:n]
    share = max(q for q in np.arange(0, 1, 1e-4) if (1 - q) ** n >= 0.05)
    assert tl.evaluate(p, labels).notes == [
        f"No mistake was seen among {n} examples: up to {share:.0%} of others may be mistakes"
    ]
    assert "No hit was seen" in repr(tl.evaluate(p, 1 - labels))
    erring = tl.evaluate(np.r_[p, [[0.9, 0.1]]], np.r_[labels, 1])
    assert "was seen among" not in repr(erring)


def test_of_groups_it_is_whole_groups_that_were_seen_without_a_mistake():
    p, labels = np.tile([[0.9, 0.1], [0.2, 0.8]], (10, 1)), np.tile([0, 1], 10)
    found = tl.evaluate(p, labels, groups=np.arange(20) // 4)
    assert found.notes == ["No mistake was seen among 5 groups: up to 45% of others may hold mistakes"]
    assert all(note in found._repr_html_() for note in found.notes)
    unequal = tl.evaluate(p, labels, groups=np.r_[np.zeros(16, int), 1, 2, 3, 4])
    assert "among 2 groups" in repr(unequal)  # one of them is nearly all


def test_one_group_is_said_to_tell_nothing_of_others():
    found = tl.evaluate([[0.9, 0.1], [0.2, 0.8]], [0, 1], groups=[7, 7])
    assert "One group: nothing tells how groups differ" in repr(found) and "nan" not in repr(found)


def test_an_order_without_a_fault_is_said_to_be_why_the_auc_has_no_width():
    found = tl.evaluate([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]] * 3, [0, 0, 1, 1] * 3)
    assert found.auc == 1 and found.accuracy == 0.5 and found.interval["auc"] == (1, 1)
    assert found.notes == ["No pair stood in the wrong order, so the interval of the AUC has no width"]


def test_a_loss_of_nothing_has_no_minus():
    p = np.array([[1.0, 0.0], [0.0, 1.0 + 1e-9]] * 5)
    assert "-0.000" not in repr(tl.evaluate(p, [0, 1] * 5))


def test_a_class_without_an_example_is_named_beside_the_scores():
    p = np.array([[0.9, 0.05, 0.05]] * 6 + [[0.1, 0.8, 0.1]] * 6)
    found = tl.evaluate(p, [0] * 6 + [1] * 6)
    assert found.accuracy == 1.0 and found.absent == [2]
    assert "No example of class 2 was scored: these scores say nothing of it" in repr(found)
    weightless = tl.evaluate(p, [0] * 6 + [1] * 5 + [2], sample_weight=[1] * 11 + [0])
    assert weightless.absent == [2]
    complete = tl.evaluate(p, [0] * 6 + [1] * 5 + [2])
    assert complete.absent == [] and "No example" not in repr(complete)


def test_the_defects_found_by_inspecting_the_highest_scores_first_are_counted():
    from tlbook.evaluation import found_by_inspection

    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 200), np.repeat(np.arange(10), 20)
    score = 1 / (1 + np.exp(-(labels + rng.normal(size=200))))
    e = tl.evaluate(np.stack([1 - score, score], 1), labels, groups=groups, resamples=10)
    for share, (found, low, high) in zip((0.1, 0.3), found_by_inspection(e, 1, (0.1, 0.3)), strict=True):
        first = np.argsort(-score)[: int(200 * share)]
        assert found == pytest.approx(labels[first].sum() / labels.sum())
        assert low < found < high
    for positive in (0, 1):  # a score that knows nothing finds what any order finds
        blind = tl.evaluate(np.full((200, 2), 0.5), rng.permutation(labels), groups=groups, resamples=10)
        _, low, high = found_by_inspection(blind, positive, [0.3])[0]
        assert low < 0.3 < high
