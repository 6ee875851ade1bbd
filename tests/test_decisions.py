"""Decisions: calibration, costs, sets and distances do what their formulas say, and a saved classifier keeps them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from small import CUT, tiny
from typer.testing import CliRunner

import tlbook as tl
from tlbook import decisions
from tlbook.cli import app
from tlbook.data import Dataset, Split
from tlbook.training import deciding
from tlbook.training.classifier import FineTuned, load_finetuned

ROOT = Path(__file__).parents[1]


def overconfident(N=4000, K=3, T=2.5, seed=0):
    """Probabilities whose logits are T times too large, and labels."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(N, K))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((N, 1)) > true.cumsum(1)).sum(1)
    return decisions.scaled(true, 1 / T), labels, true


def test_the_temperature_is_found_again_and_mends_the_probabilities():
    p, labels, true = overconfident()
    T = decisions.temperature(p, labels)
    assert T == pytest.approx(2.5, rel=0.08)
    assert np.abs(decisions.scaled(p, T) - true).max() < 0.05
    assert decisions.calibration_error(decisions.scaled(p, T), labels) < 0.03 < decisions.calibration_error(p, labels)


def test_probabilities_that_need_no_repair_are_left_as_they_are():
    fitted = []
    for seed in range(20):
        p, labels, true = overconfident(200, T=2.5, seed=seed)
        X = np.random.default_rng(seed).normal(size=(200, 4))
        assert decisions.fit(p, labels, X, X).T > 1.5
        fitted.append(decisions.fit(true, labels, X, X).T)
    assert np.mean([T == 1 for T in fitted]) > 0.6 and max(fitted) < 1.6


def test_no_other_temperature_has_a_lower_log_loss():
    p, labels, _ = overconfident(300)
    weight = np.random.default_rng(1).random(300)

    def loss(T):
        return -np.average(np.log(decisions.scaled(p, T)[np.arange(300), labels]), weights=weight)

    best = minimize(lambda s: loss(np.exp(s[0])), [0.0], method="Nelder-Mead").fun
    assert loss(decisions.temperature(p, labels, weight)) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("n", [20, 36, 500])
def test_no_mistake_among_n_makes_no_answer_surer_than_n_can_tell(n):
    p, labels = np.tile([[0.7, 0.2, 0.1]], (n, 1)), np.zeros(n, int)
    mistaken = 1 - decisions.scaled(p, decisions.temperature(p, labels)).max(1)
    assert mistaken.mean() == pytest.approx(1 / (n + 1), rel=1e-3)
    weight = np.r_[np.ones(10), np.zeros(n - 10)]  # as many as weigh
    mistaken = 1 - decisions.scaled(p, decisions.temperature(p, labels, weight)).max(1)
    assert mistaken.mean() == pytest.approx(1 / 11, rel=1e-3)
    sure = np.tile([[0.9999, 0.0001]], (n, 1))
    assert decisions.temperature(sure, labels) == 1  # and is made no less sure
    assert decisions.temperature(sure, (np.arange(n) % 20 == 0).astype(int)) > 1  # but for mistakes


def test_a_change_that_three_digits_do_not_show_is_not_told():
    from tlbook.kinds import KINDS

    labels, sure = np.arange(40) % 2, np.eye(2)[np.arange(40) % 2] * (1 + 1e-9)
    X = np.random.default_rng(0).normal(size=(40, 4))
    decider = replace(decisions.fit(sure.clip(0, 1), labels, X, X), T=0.9)
    facts = deciding.facts_of(decider) | {"measured": deciding.measured(decider, sure, X, labels)}
    card = "\n".join(deciding.card(facts, KINDS["images"], ("a", "b")))
    assert "takes the" not in card and "-0.000" not in card and facts["measured"]["log loss"]["raw"] >= 0
    facts["measured"]["log loss"] = {"raw": 0.2, "calibrated": 0.1}
    card = "\n".join(deciding.card(facts, KINDS["images"], ("a", "b")))
    assert "The temperature takes the log loss from 0.200 to 0.100." in card


def test_the_cheapest_answer_is_that_of_all_answers_tried():
    rng = np.random.default_rng(0)
    p, costs = rng.dirichlet(np.ones(4), 200), np.array([1, 10, 0.5, 3])
    expected = [[sum(costs[k] * row[k] for k in range(4) if k != j) for j in range(4)] for row in p]
    assert (decisions.least_cost(p, costs) == np.argmin(expected, 1)).all()
    with pytest.raises(ValueError, match="4 numbers above 0"):
        decisions.least_cost(p, [1, 1, 1, 0])


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_cover_what_they_promise_of_new_examples(coverage):
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(3000):
        limit = decisions.conformal_limit(rng.random(19), coverage)
        reached.append(rng.random() <= limit)
    assert np.mean(reached) == pytest.approx(coverage, abs=0.02)  # (N + 1) coverage is whole: exactly that


def test_sets_cover_what_they_promise_of_new_groups_and_by_example_they_do_not():
    rng = np.random.default_rng(0)
    by_group, by_example = [], []
    for _ in range(1500):
        level = rng.normal(size=12)  # of each group; the last is new
        scores = level[:, None] + 0.1 * rng.normal(size=(12, 20))
        seen, groups = scores[:11].ravel(), np.repeat(np.arange(11), 20)
        by_group.append(scores[11, 0] <= decisions.conformal_limit(seen, 0.9, groups))
        by_example.append(scores[11, 0] <= decisions.conformal_limit(seen, 0.9))
    assert np.mean(by_group) >= 0.9 - 0.02 and np.mean(by_example) < 0.88


def test_too_few_groups_promise_nothing():
    assert decisions.conformal_limit(np.zeros(80), 0.9, np.repeat(np.arange(8), 10)) == np.inf
    assert decisions.conformal_limit(np.zeros(90), 0.9, np.repeat(np.arange(9), 10)) == 0
    assert decisions.sets([[0.9, 0.1]], np.inf).all()


def test_examples_like_those_of_validation_are_called_strange_as_often_as_is_said():
    rng = np.random.default_rng(0)

    def drawn(n):
        return rng.normal(size=(n, 6)).astype(np.float32)

    p = np.full((400, 2), 0.5)
    decider = decisions.fit(p, rng.integers(0, 2, 400), drawn(400), drawn(500))
    assert (decider.known(drawn(2000)) < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    elsewhere = np.c_[drawn(100)[:, :5] * 0.05, np.full(100, 0.0)] + np.r_[np.zeros(5), 1]
    near_one = decisions.fit(p, rng.integers(0, 2, 400), elsewhere[rng.integers(0, 50, 400)], elsewhere)
    assert (near_one.known(-elsewhere) < 0.05).all()


def test_the_distance_is_that_of_the_kth_nearest(monkeypatch):
    monkeypatch.setattr(decisions, "AT_ONCE", 7)  # of the 30
    rng = np.random.default_rng(0)
    X, bank = rng.normal(size=(30, 5)), rng.normal(size=(50, 5))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (X, bank)]
    brute = np.sort(np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2), 1)[:, 9]
    assert np.allclose(decisions.distances(X, bank, 10), brute, atol=1e-4)


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="19 validation examples are too few"):
        decisions.fit(np.full((19, 2), 0.5), np.zeros(19, int), np.zeros((19, 3)), np.zeros((9, 3)))


def test_a_seed_of_the_recorded_result_is_made_anew(solar_features):
    import decisions as benchmark

    recorded = json.loads((ROOT / "benchmarks/results/decisions.json").read_text(encoding="utf-8"))["reached"]
    features = benchmark.with_one_panel_29(solar_features.select(benchmark.STAGE))
    for name, value in benchmark.run(features, {}, 0, None).items():
        _, low, high = recorded["C chosen"][name]
        assert low - 0.01 <= value <= high + 0.01, name


# A classifier that is saved


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 255, (90, 3, 32, 32), dtype=torch.uint8, generator=g)
    return Dataset(list(x), np.arange(90) % 2, ("fine", "broken"), np.arange(90) // 3)


SPLIT = Split(np.arange(30), np.arange(30, 63), np.arange(63, 90))


@pytest.fixture
def found(data):
    model = tiny()
    model.reset_head(2)
    return FineTuned(model.eval(), tl.fine_tuning.Table([{"epoch": 0}]), 0, data.class_names)


def test_what_was_fitted_on_validation_comes_back_with_the_folder(found, data, tmp_path):
    found.save(tmp_path / "m", data=data, split=SPLIT)
    again, about = load_finetuned(tmp_path / "m"), json.loads((tmp_path / "m" / "model.json").read_text())
    rows = again.decide(data.subset(SPLIT.test), costs={"broken": 10})
    p = again.decider.probabilities(found.predict(data.subset(SPLIT.test)))
    assert np.allclose([[row["fine"], row["broken"]] for row in rows], p, atol=1e-4)
    assert [row["class"] for row in rows] == [data.class_names[k] for k in decisions.least_cost(p, [1, 10])]
    assert [("fine" in row["set"], "broken" in row["set"]) for row in rows] == list(map(tuple, again.decider.sets(p)))
    assert about["decisions"]["groups"] == 11 and 0 <= about["decisions"]["measured"]["coverage"] <= 1
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "Fitted on 33 images that it was not trained on, of 11 groups" in card


def test_what_was_fitted_to_another_network_is_refused_when_it_is_loaded(found, data, tmp_path):
    found.save(tmp_path / "m", data=data, split=SPLIT)
    decider, path = load_finetuned(tmp_path / "m").decider, tmp_path / "m" / "model.json"
    deciding.write(replace(decider, bank=decider.bank[:, :-1].copy()), tmp_path / "m")
    about = json.loads(path.read_text())
    about["decisions"]["sha256"] = hashlib.sha256((tmp_path / "m" / deciding.FILE).read_bytes()).hexdigest()
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="features of another width"):
        load_finetuned(tmp_path / "m")


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("last_only", [True, False])
def test_features_and_probabilities_of_one_pass_are_those_of_two(name, last_only, data):
    model = tiny(name)
    model.reset_head(2, ("final",) if last_only else tuple(list(model.stages)[-2:]))
    found = FineTuned(model.eval(), tl.fine_tuning.Table([{"epoch": 0}]), 0, data.class_names)
    p, X = found.probabilities_and_features(data)
    assert np.allclose(p, found.predict(data), atol=1e-5)
    assert np.allclose(X, tl.extract(found.model, data, precision="float32", cache=False).X, atol=1e-4)


def test_what_was_trained_on_is_not_calibrated_on(found, data, tmp_path):
    found.save(tmp_path / "none", data=data, split=Split(SPLIT.train, SPLIT.val[:0], SPLIT.test))
    assert load_finetuned(tmp_path / "none").decider is None
    card = (tmp_path / "none" / "README.md").read_text(encoding="utf-8")
    assert "sets, `known` and `--cost` are missing: they need 20 images or more that it was not trained on." in card
    with pytest.raises(ValueError, match="without decisions, which need at least 20 validation .*leave --cost out"):
        load_finetuned(tmp_path / "none").decide(data)
    with pytest.raises(ValueError, match="save it with data and split, and load it"):
        replace(found, start={}).decide(data)


def test_cross_fitted_probabilities_take_the_place_of_validation(found, data, tmp_path):
    pool = np.arange(63)
    p = decisions.scaled(np.eye(2)[data.labels[pool]] * 0.6 + 0.2, 1.0)  # .8 for the label, which is always right
    kept = replace(found, held_out=(pool, p, None, data.labels[pool]))
    kept.save(tmp_path / "m", data=data, split=SPLIT)
    decider = load_finetuned(tmp_path / "m").decider
    assert decider.examples == 63 and decider.T < 0.4  # right more often than it said
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "the predictions of 63 images in held-out folds, by fits that did not see them, of 21 groups" in card
    assert "not trained on" not in card  # it was, in the end
    load_finetuned(tmp_path / "m").save(tmp_path / "again")
    assert "in held-out folds" in (tmp_path / "again" / "README.md").read_text(encoding="utf-8")
    assert decider.far.min() > 0  # no example is compared with itself
    far = np.linspace(0.1, 0.9, 63)  # of a network that was trained on these examples: as far as when it was not
    replace(kept, held_out=(pool, p, far, data.labels[pool])).save(tmp_path / "tuned", data=data, split=SPLIT)
    assert np.allclose(load_finetuned(tmp_path / "tuned").decider.far, far)
    other = replace(data, labels=1 - data.labels)  # the folder was read again, and is no longer what it was
    with pytest.warns(UserWarning, match="data is not that of the training"):
        kept.save(tmp_path / "other", data=other, split=SPLIT)
    assert load_finetuned(tmp_path / "other").decider is None


def test_a_test_that_was_learned_from_is_refused(found, data, tmp_path):
    rows = np.arange(63)
    kept = replace(found, held_out=(rows, np.full((63, 2), 0.5), None, data.labels[rows]))
    with pytest.raises(ValueError, match="example 60 of split.test was learned from: give the split of the training"):
        kept.save(tmp_path / "m", data=data, split=Split(np.arange(30), np.arange(30, 60), np.arange(60, 90)))


def test_groups_that_were_trained_on_are_no_unseen_groups(found, data, tmp_path):
    torn = Split(np.arange(0, 90, 3), np.arange(1, 90, 3), np.arange(2, 90, 3))  # an example of each group in each
    found.save(tmp_path / "m", data=data, split=torn)
    again, card = load_finetuned(tmp_path / "m"), (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert not again.decider.by_group and again.decider.groups is None and "unseen groups" not in card


def test_what_cannot_be_measured_loses_no_model(found, data, tmp_path, monkeypatch):
    def fail(*given):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(deciding, "measured", fail)
    with pytest.warns(UserWarning, match="what it decides by is left out .*out of memory"):
        found.save(tmp_path / "m", data=data, split=SPLIT)
    assert load_finetuned(tmp_path / "m").decider is None


def test_a_model_that_was_loaded_keeps_what_it_decides_by_when_it_is_saved_again(found, data, tmp_path):
    found.save(tmp_path / "m", data=data, split=SPLIT)
    load_finetuned(tmp_path / "m").save(tmp_path / "again")
    again = load_finetuned(tmp_path / "again")
    assert again.decide(data) == load_finetuned(tmp_path / "m").decide(data)


def test_classes_may_be_called_as_the_columns_are(data, folder, tmp_path):
    model = tiny()
    model.reset_head(2)
    found = FineTuned(model.eval(), tl.fine_tuning.Table([{"epoch": 0}]), 0, ("known", "class"))
    found.save(tmp_path / "m", data=replace(data, class_names=("known", "class")), split=SPLIT)
    row = load_finetuned(tmp_path / "m").decide(data)[0]
    assert list(row) == ["class", "p(known)", "p(class)", "set", "known"] and row["class"] in ("known", "class")
    command = ["predict", str(tmp_path / "m"), str(folder / "cat"), "--csv", str(tmp_path / "o.csv")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "o.csv").read_text().splitlines()[0] == "path,class,p(known),p(class),set,known"


def test_a_damaged_or_exchanged_file_is_named(found, data, tmp_path):
    found.save(tmp_path / "m", data=data, split=SPLIT)
    path = tmp_path / "m" / deciding.FILE
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="decisions.safetensors"):
        load_finetuned(tmp_path / "m")
    path.unlink()
    with pytest.raises(ValueError, match=r"decisions.safetensors is damaged, missing or exchanged"):
        load_finetuned(tmp_path / "m")


def test_predict_writes_set_and_known_and_takes_prices(found, data, folder, tmp_path):
    found.save(tmp_path / "m", data=data, split=SPLIT)
    csv = tmp_path / "o.csv"
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "m"), str(folder / "cat"), "--csv", str(csv)])
    assert done.exit_code == 0, done.output
    assert csv.read_text().splitlines()[0] == "path,class,fine,broken,set,known"
    command = ["predict", str(tmp_path / "m"), str(folder / "cat"), "--csv", str(csv), "--force", "--cost"]
    assert CliRunner().invoke(app, [*command, "broken=1000000"]).exit_code == 0
    assert {line.split(",")[1] for line in csv.read_text().splitlines()[1:]} == {"broken"}
    wrong = CliRunner().invoke(app, [*command, "broken"])
    assert wrong.exit_code == 1 and "--cost must be CLASS=PRICE" in wrong.output
    wrong = CliRunner().invoke(app, [*command, "other=3"])
    assert wrong.exit_code == 1 and "the classes are fine, broken" in wrong.output
