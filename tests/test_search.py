"""The recipe "auto": what is tried and how it is judged, what is kept, the clock, Ctrl-C, and what is saved."""

import math
import re
import signal
import types
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import t
from sklearn.metrics import log_loss
from small import spots, tiny
from small_text import films, tiny_text

import tlbook as tl
from tlbook.data import Dataset, Split
from tlbook.training import search
from tlbook.training.classifier import FineTuned
from tlbook.training.recipes import LPFT, Auto
from tlbook.training.run import Settings
from tlbook.training.search import FineTuning, Probe, Search
from tlbook.training.tried import Tried, card_of_tried

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")

QUICK = Auto(rates=(1e-3,), photo=False, folds=2)
OPTIONS = {"epochs": 1, "batch_size": 8}


def noisy(n=60, groups=10, side=32, seed=0):
    """Two classes that features tell apart, but not without errors; several examples to a group."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.integers(0, 256, (n, 1, side, side)).astype(np.float64)
    x[:, :, 8:24, 8:24] += (rng.normal(30, 40, n) * (2 * y - 1))[:, None, None, None]
    images = list(torch.from_numpy(x.clip(0, 255).astype(np.uint8)))
    return Dataset(images, y, ("no", "yes"), np.arange(n) // (n // groups))


NOISY = noisy()
SPLIT = NOISY.split(by="group", seed=1)


def searched(recipe=QUICK, data=NOISY, split=SPLIT, **options):
    return tl.finetune(tiny(), data, split, recipe=recipe, **(OPTIONS | options))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TLBOOK_DEVICE", "cpu")
        return searched(replace(QUICK, photo=True))


def test_each_candidate_is_a_row_and_one_is_kept(found):
    names = ["probe", "probe of layer3", "probe of layer3 and final", "probe, mirror images too"]
    names += ["LP-FT at 1e-3", "LP-FT at 1e-3, photo"]
    assert [row.name for row in found.tried] == names
    assert sum(row.kept for row in found.tried) == 1
    assert all(row.low <= row.log_loss <= row.high and 0 <= row.auc <= 1 for row in found.tried)


def test_the_table_is_printed_as_it_goes(capsys):
    tried = searched().tried
    printed = [line for line in capsys.readouterr().out.splitlines() if "the last doubling" not in line]
    assert printed[0].split() == "what was tried log loss 95 % interval AUC seconds".split()
    for row, line in zip(tried, printed[1:], strict=False):
        assert line.startswith(row.name) and f"{row.log_loss:.3f}" in line and f"{row.auc:.3f}" in line
    assert any(line.startswith(f"Kept: {next(row.name for row in tried if row.kept)}, ") for line in printed)


def test_the_same_groups_are_held_out_for_all_and_none_of_them_is_of_the_test(monkeypatch):
    fitted, predicted = [], []
    fit_probe, predict = Search._fit_probe, FineTuned.probabilities_and_features

    def note_probe(self, candidate, rows):
        fitted.append((str(candidate), frozenset(NOISY.groups[self.pool[rows]])))
        return fit_probe(self, candidate, rows)

    def note_prediction(self, inputs, **options):
        predicted.append(frozenset(inputs.groups))
        return predict(self, inputs, **options)

    monkeypatch.setattr(Search, "_fit_probe", note_probe)
    monkeypatch.setattr(FineTuned, "probabilities_and_features", note_prediction)
    searched()
    every = frozenset(NOISY.groups[np.concatenate([SPLIT.train, SPLIT.val])])
    folds = [(name, groups) for name, groups in fitted if groups != every]
    of_plain = [groups for name, groups in folds[:-2] if name == "probe"]
    halves = [groups for _, groups in folds[-2:]]
    of_probe = [groups for name, groups in folds[:-2] if name == folds[-1][0]]
    assert len(of_plain) == 2 and [every - groups for groups in of_plain] == predicted[::2]  # LP-FT's two
    assert of_plain == predicted[1::2]  # what they are compared with
    assert len(halves) == 2 and all(half < fold for half, fold in zip(halves, of_probe, strict=True))
    assert not every & frozenset(NOISY.groups[SPLIT.test])


def test_the_score_of_a_probe_is_that_of_one_fitted_without_the_fold(found):
    pool = np.sort(np.concatenate([SPLIT.train, SPLIT.val]))
    part = NOISY.subset(pool)
    features, p = tl.extract(tiny(), part, precision="float32"), np.zeros((len(part), 2))
    for fold in part.folds(2, by="group", seed=0):
        p[fold.test] = tl.linear_probe(features, fold).predict_proba(features.X[fold.test])
    n, row = len(part), found.tried[0]
    loss_at = {T: log_loss(part.labels, softmax(np.log(p) / T, 1)) for T in np.linspace(1, 10, 91)}
    assert min(loss_at, key=loss_at.get) == pytest.approx(row.temperature, abs=0.1)
    p = softmax(np.log(p) / row.temperature, 1)
    losses = -np.log(p[np.arange(n), part.labels].clip(1 / (n + 1), n / (n + 1)))
    assert found.tried[0].log_loss == pytest.approx(losses.mean(), abs=1e-6)
    assert found.tried[0].auc == pytest.approx(tl.evaluate(p, part.labels, resamples=1).auc, abs=1e-6)
    of_group = np.array([(losses - losses.mean())[part.groups == g].sum() for g in np.unique(part.groups)]) / n
    k = len(of_group)
    reach = math.sqrt(k / (k - 1) * (of_group**2).sum()) * t.ppf(0.975, k - 1)
    assert found.tried[0].high == pytest.approx(losses.mean() + reach, abs=1e-6)


def test_what_the_last_doubling_of_the_groups_took_off_stands_in_the_row_of_the_best_probe(found):
    (row,) = (row for row in found.tried if row.note)
    probes = [row for row in found.tried if row.name.startswith("probe")]
    assert row.log_loss == min(row.log_loss for row in probes)
    half, off, low, high = map(float, re.findall(r"-?\d+\.\d+", row.note))
    assert half - row.log_loss == pytest.approx(off, abs=2e-3) and low <= off <= high
    assert ("promise to help" in row.note) == (low > 0)


def test_where_all_judged_examples_are_of_one_class_the_card_has_no_auc_and_is_whole():
    row = {"name": "probe", "kept": True, "log_loss": 0.5, "low": 0.4, "high": 0.6, "auc": None, "note": ""}
    assert "| **probe** (kept) | 0.500 | 0.400 … 0.600 | – | 1.0 |" in card_of_tried([row | {"seconds": 1.0}], str)


def test_no_doubling_is_told_where_the_half_lacks_a_class_or_the_clock_has_run_out(capsys):
    y = np.where(np.isin(np.arange(60), (0, 20, 40)), 2, NOISY.labels)  # a class that one group in each fold has
    data = Dataset(NOISY.inputs, y, ("no", "yes", "rare"), np.arange(60) // 6)
    split = Split(np.arange(60), [], [])
    assert not any(row.note for row in searched(replace(QUICK, folds=3), data, split).tried)


@pytest.mark.parametrize("groups", [None, np.arange(60) // 3])
def test_half_of_the_examples_is_half_of_each_class_and_groups_stay_whole(groups):
    data = Dataset(NOISY.inputs, np.arange(60) // 30, ("no", "yes"), groups)
    search = types.SimpleNamespace(part=data, settings=types.SimpleNamespace(seed=0))
    rows = Search._half(search, np.arange(6, 60))
    assert np.bincount(data.labels[rows]).tolist() == [12, 15]
    if groups is not None:
        assert all(np.isin(np.flatnonzero(groups == g), rows).all() for g in np.unique(groups[rows]))
    assert not np.isin(rows, np.arange(6)).any() and len(np.unique(rows)) == len(rows)


def judged(losses, groups=None):
    """A search in which candidates have these losses on the held-out examples."""
    self = Search.__new__(Search)
    n = len(next(iter(losses.values())))
    self.judged, self.weight = np.ones(n, bool), np.ones(n)
    self.part = Dataset(np.zeros((n, 1)), np.zeros(n, int), ("a", "b"), groups)
    self.held_out = {c: np.stack([np.exp(-np.array(x)), 1 - np.exp(-np.array(x))], 1) for c, x in losses.items()}
    return self


def test_the_simplest_within_a_standard_error_is_kept_and_groups_are_what_varies():
    rng = np.random.default_rng(0)
    plain = 0.5 + 0.05 * rng.normal(size=200)
    sure = {Probe(): plain, FineTuning(1e-4): plain - 0.05 + 0.02 * rng.normal(size=200)}
    assert judged(sure)._simplest() == FineTuning(1e-4)
    chance = {Probe(): plain, FineTuning(1e-4): plain - 0.001 + 0.2 * rng.normal(size=200)}
    assert judged(chance)._simplest() == Probe()
    both = {Probe(): plain, Probe(("layer3", "final")): plain - 0.1, FineTuning(1e-4): plain - 0.1}
    assert judged(both)._simplest() == Probe(("layer3", "final"))
    in_one_group = {Probe(): plain, FineTuning(1e-4): plain + 0.005 - 0.25 * (np.arange(200) < 20)}
    assert judged(in_one_group)._simplest() == FineTuning(1e-4)  # twenty witnesses
    assert judged(in_one_group, np.arange(200) // 20)._simplest() == Probe()  # one


def test_a_class_that_weighs_nothing_in_a_fold_is_not_judged_there():
    y = np.where(np.isin(np.arange(60), (0, 20, 40)), 2, NOISY.labels)
    data, weight = Dataset(NOISY.inputs, y, ("no", "yes", "rare"), np.arange(60) // 6), np.ones(60)
    weight[[20, 40]] = 0  # where the third is held out, nothing is left to learn the class from
    objective, split = tl.Objective(sample_weight=weight), Split(np.arange(60), [], [])
    found = searched(replace(QUICK, minutes=1e-6), data, split, objective=objective)
    assert found.tried[0].temperature < 2 and 0 not in found.held_out[0]


def test_none_is_kept_that_is_worse_than_a_simpler_one_that_was_not_good_enough():
    rng = np.random.default_rng(0)
    plain = 0.5 + 0.05 * rng.normal(size=200)
    unsteady = plain - 0.15 + 4 * (np.arange(200) % 25 == 0)  # worse on average, and within its own standard error
    tried = {Probe(): plain, FineTuning(3e-5): unsteady, FineTuning(1e-4): plain - 0.03}
    assert judged(tried)._simplest() == FineTuning(1e-4)


def test_parts_that_overlap_are_refused_before_they_are_joined():
    with pytest.raises(ValueError, match="is in train and in val"):
        searched(split=Split(SPLIT.train, SPLIT.train, SPLIT.test))


def test_losses_that_are_all_the_least_that_can_be_told_have_no_interval():
    row = asdict(Tried("probe", 0.033, 0.033, 0.033, 1.0))
    assert "| 0.033 | too few to tell | 1.000 |" in "\n".join(card_of_tried([row], str))
    assert "too few to tell" in search._line(Tried(**row))
    assert "0.030 … 0.036" in "\n".join(card_of_tried([row | {"low": 0.03, "high": 0.036}], str))


def test_differences_that_so_few_examples_cannot_show_are_none():
    sure = {Probe(): np.full(30, 1e-4), FineTuning(1e-4): np.full(30, 1e-9)}
    assert judged(sure)._simplest() == Probe()


def test_fine_tuning_is_kept_where_it_is_better_and_then_fitted_to_all_of_train_and_val(monkeypatch):
    monkeypatch.setattr(Search, "_simplest", lambda self, kind=object: FineTuning(1e-3))
    found = searched()
    pool = np.sort(np.concatenate([SPLIT.train, SPLIT.val]))
    alone = tl.finetune(tiny(), NOISY, Split(pool, pool[:0], SPLIT.test), recipe=LPFT(), lr=1e-3, **OPTIONS)
    ours, theirs = found.model.state_dict(), alone.model.state_dict()
    (row,) = (row for row in found.tried if row.kept)
    assert row.name == "LP-FT at 1e-3" and found.epoch == 1
    assert len(found.held_out[2]) == len(pool) and found.held_out[2].min() > 0
    assert all(torch.equal(ours[name], theirs[name] / (row.temperature if "fc." in name else 1)) for name in theirs)


def test_a_candidate_that_is_too_sure_is_judged_and_kept_less_sure(monkeypatch):
    probe_fold, tried = Search._probe_fold, {}
    for sure in (5, 10):

        def too_sure(self, candidate, fold, sure=sure):
            return search.scaled(probe_fold(self, candidate, fold), 1 / sure)

        with monkeypatch.context() as patch:
            patch.setattr(Search, "_probe_fold", too_sure)
            tried[sure] = searched(Auto(minutes=1e-6, folds=2)).tried[0]
    assert tried[10].temperature == pytest.approx(2 * tried[5].temperature, rel=0.01) and tried[5].temperature > 2
    assert tried[10].log_loss == pytest.approx(tried[5].log_loss, rel=1e-3)


def test_the_probe_is_said_to_be_as_good_where_it_is(monkeypatch, capsys):
    monkeypatch.setattr(Search, "_simplest", lambda self, kind=object: Probe())
    searched()
    assert "Fine-tuning is not shown to be better than the probe here" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kept", [Probe(), Probe(("layer3",)), Probe(("layer3", "final")), Probe(mirrored=True)], ids=str
)
def test_every_probe_is_a_model_that_predicts_saves_and_loads(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(Search, "_simplest", lambda self, kind=object: kept)
    monkeypatch.setattr(Search, "_cannot_gain", lambda self: "not now")
    found = searched()
    pool, views = np.sort(np.concatenate([SPLIT.train, SPLIT.val])), ("identity", "hflip")[: 1 + kept.mirrored]
    X = [tl.extract(tiny(), NOISY.subset(pool), stages=kept.stages, views=(v,), precision="float32") for v in views]
    features = replace(
        X[0], X=np.concatenate([x.X for x in X]), y=np.tile(X[0].y, len(X)), groups=np.tile(X[0].groups, len(X))
    )
    rows = np.arange(len(features.y))
    probe = tl.linear_probe(features, Split(rows, rows[:0], rows[:0]))
    test = tl.extract(tiny(), NOISY.subset(SPLIT.test), stages=kept.stages, precision="float32")
    (T,) = (row.temperature for row in found.tried if row.kept)
    expected = softmax(np.log(probe.predict_proba(test.X)) / T, 1)
    assert np.abs(found.predict(NOISY.subset(SPLIT.test)) - expected).max() < 1e-4
    rows, p, far, labels = found.held_out
    assert np.array_equal(labels, NOISY.labels[rows])
    assert np.array_equal(rows, pool) and p.shape == (len(pool), 2) and np.allclose(p.sum(1), 1)
    (row,) = (row for row in found.tried if row.kept)
    n = len(rows)
    losses = -np.log(p[np.arange(n), NOISY.labels[rows]].clip(1 / (n + 1), n / (n + 1)))
    assert losses.mean() == pytest.approx(row.log_loss, rel=1e-6)

    evaluation = found.save(tmp_path / "model", data=NOISY, split=SPLIT)
    again = tl.load_finetuned(tmp_path / "model")
    assert again.tried == found.tried and again.model.reads == kept.stages
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"| **{kept}** (kept) | {row.log_loss:.3f} | {row.low:.3f} … {row.high:.3f} |" in card
    assert "the last doubling took off" in card and "not now" in card
    assert np.array_equal(again.predict(NOISY.subset(SPLIT.test)), evaluation.probabilities)


def test_a_head_that_reads_stages_leaves_as_onnx_is_looked_into_and_cannot_be_cut(monkeypatch, tmp_path):
    from tlbook.explain import grad_cam

    monkeypatch.setattr(Search, "_simplest", lambda self, kind=object: Probe(("layer3", "final")))
    found = searched(Auto(minutes=1e-6, folds=2))
    inputs = [NOISY[i][0] for i in range(2)]
    assert grad_cam(found, inputs).shape == (2, 32, 32)
    for cut in (found.model.suffix, found.model.forward_head):
        with pytest.raises(ValueError, match="layer3 and final"):
            cut("layer2" if cut == found.model.suffix else torch.zeros(1, 512, 1, 1))
    again = tl.finetune(found.model, NOISY, SPLIT, recipe="head", **OPTIONS)
    assert again.model.reads == ("final",) and not hasattr(again.model.model, "head_of_stages")
    pytest.importorskip("onnxruntime")
    assert found.export(tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("encoder, data", [(tiny_text, films), (lambda: tiny("test_vit"), lambda: noisy(side=160))])
def test_texts_and_transformers_are_searched_through_too(encoder, data, monkeypatch, tmp_path):
    data = data()
    split = data.split(seed=0)
    monkeypatch.setattr(Search, "_simplest", lambda self, kind=object: next(c for c in self.held_out if c != Probe()))
    found = tl.finetune(encoder(), data, split, recipe=QUICK, **OPTIONS)
    assert found.model.reads != ("final",) and found.model.reads[0] in found.model.stages
    assert ("mirror" in str(found.tried)) == (found.model.kind == "images")
    found.save(tmp_path / "m")
    assert np.array_equal(tl.load_finetuned(tmp_path / "m").predict(data), found.predict(data))


def test_what_does_not_fit_into_the_minutes_is_said_and_the_probe_always_is_tried(capsys):
    found = searched(Auto(minutes=1e-6, folds=2))
    assert [row.name for row in found.tried if row.kept][0].startswith("probe")
    assert found.tried[0].log_loss is not None
    assert found.tried[-1].log_loss is None and found.tried[-1].note == "not tried: the clock has run out"
    assert "Whether fine-tuning is better was not measured" in capsys.readouterr().out


def test_where_nothing_can_be_gained_fine_tuning_is_not_tried(monkeypatch):
    monkeypatch.setattr(Search, "_probe_fold", lambda self, c, fold: np.eye(2)[self.part.labels[fold.test]])
    found = searched()
    assert found.tried[-1].note == "not tried: a probe is sure of every held-out example, and right"
    assert found.tried[0].kept


def test_a_class_in_one_group_cannot_be_fine_tuned_without_it_and_that_is_said():
    data = spots(60, K=3)
    groups = np.where(data.labels == 2, 9, np.arange(60) // 12)
    data = replace(data, groups=groups)
    rows = np.arange(60)
    found = searched(data=data, split=Split(rows, rows[:0], rows[:0]))
    assert found.tried[-1].note == "not tried: c is in one fold alone"
    assert found.tried[0].log_loss < math.log(3)  # of the other classes
    assert found.predict(data).shape == (60, 3)


def test_classes_of_one_group_each_cannot_be_judged():
    data = spots(60, K=3)
    data = replace(data, groups=data.labels + 0)
    rows = np.arange(60)
    with pytest.raises(ValueError, match="C cannot be chosen: in no class are there training rows of two parts"):
        searched(data=data, split=Split(rows, rows[:0], rows[:0]))


def test_the_callers_random_numbers_are_its_own():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    searched(Auto(minutes=1e-6, folds=2))
    assert torch.equal(before, torch.get_rng_state())


def test_groups_too_few_to_hold_some_out_leave_the_plain_probe_unjudged():
    data = replace(NOISY, groups=np.arange(60) // 20)
    found = searched(data=data, split=data.split(val=0, test_groups=[2]))
    assert {row.note for row in found.tried} == {"2 groups to learn from are too few to hold some out"}
    assert found.tried[0].kept and found.model.reads == ("final",)


def test_a_frozen_backbone_is_probed_and_not_fine_tuned():
    found = tl.finetune(tiny().requires_grad_(False), NOISY, SPLIT, recipe=QUICK, **OPTIONS)
    assert found.tried[-1].note == "not tried: no parameter of the backbone requires a gradient"
    assert found.tried[0].log_loss is not None


def test_a_learning_rate_that_diverges_is_a_row_and_no_end():
    for options in ({"epochs": 3}, {"epochs": 1, "batch_size": 60}):  # in the last step, too, which no loss follows
        found = searched(Auto(rates=(1e38,), folds=2, photo=False), **options)
        assert "not judged" in found.tried[-1].note and "not finite" in found.tried[-1].note and found.finished


def test_lr_takes_the_place_of_the_rates():
    assert [row.name for row in searched(lr=2e-3).tried if "LP-FT" in row.name] == ["LP-FT at 2e-3"]


def test_rates_that_are_close_are_told_apart():
    assert len({str(FineTuning(lr)) for lr in (1e-4, 1.4e-4, 2e-4, 2.5e-4)}) == 4  # fits are kept by these names
    assert str(FineTuning(2.5e-4)) == "LP-FT at 2.5e-4"


def test_folds_that_no_probe_can_be_fitted_to_leave_a_probe_of_all():
    data = noisy(n=12, groups=3)
    tried = searched(data=data, split=Split(np.arange(12), [], [])).tried  # the other fold has one group alone
    assert tried[0].kept and "not judged" in tried[0].note and "begins with the plain probe" in tried[-1].note


def test_a_step_is_timed_with_as_many_examples_as_are_in_memory_at_once(monkeypatch):
    seen, prepare = [], type(tiny()).prepare
    monkeypatch.setattr(type(tiny()), "prepare", lambda self, x: seen.append(len(x)) or prepare(self, x))
    self = Search.__new__(Search)
    self.backbone, self.data, self.pool = tiny(), NOISY, np.arange(60)
    self.settings, self.dtype = Settings(1, 1e-3, 16, 4, None, None, True, 0), torch.float32
    self._seconds_left = lambda: 60.0
    for processes, share in ((1, 4), (2, 2)):  # a process has its share of the batch
        self.processes = types.SimpleNamespace(size=processes)
        assert self._measure_step() > 0 and seen.pop() == share


CLOCKS = [(-1.0, 0, "the clock has run out"), (0.001, 1, "more do not fit into the clock"), (9e9, 4, "")]


@pytest.mark.parametrize("left, steps, says", CLOCKS)
def test_no_step_is_timed_for_a_clock_that_has_run_out(left, steps, says, monkeypatch):
    taken, forward = [], type(tiny()).forward
    monkeypatch.setattr(type(tiny()), "forward", lambda self, x: taken.append(1) or forward(self, x))
    monkeypatch.setattr(Search, "_seconds_left", lambda self: left - len(taken) / 100)
    monkeypatch.setattr(Search, "_cannot_gain", lambda self: "")
    settings = Settings(1, 1e-3, 16, 1, None, None, True, 0)
    self = Search(None, tiny(), NOISY, SPLIT, QUICK, tl.Objective(), settings, "float32", None, False)
    why_not = self._out_of_reach(FineTuning(1e-3))
    assert says in why_not and bool(says) == bool(why_not) and len(taken) == steps


def test_a_class_whose_examples_all_weigh_nothing_is_refused_before_anything_is_computed():
    objective = tl.Objective(sample_weight=(NOISY.labels == 0).astype(float))
    for recipe in (QUICK, "head"):
        with pytest.raises(ValueError, match=r"examples all have weight 0: \['yes'\]. Give some of them a weight"):
            searched(recipe, objective=objective)


def test_the_card_says_how_the_training_was_weighted(tmp_path):
    weight = np.ones(60)
    weight[SPLIT.train[:3]] = 0.5, 2, 0
    objective = tl.Objective(sample_weight=weight, class_weight="balanced")
    n, pool = len(SPLIT.train), len(SPLIT.train) + len(SPLIT.val)
    for recipe, rows in ((Auto(minutes=1e-6, folds=2), pool), ("head", n)):
        found = searched(recipe, objective=objective)
        found.save(tmp_path / f"{rows}", data=NOISY, split=SPLIT)
        said = f"In training 3 of {rows} examples have a weight other than 1 (0 to 2) and all classes weigh the same."
        assert said in (tmp_path / f"{rows}" / "README.md").read_text(encoding="utf-8")
    assert tl.Objective(sample_weight=np.ones(60)).weighting(SPLIT.train) == ""


def test_a_checkpoint_is_of_one_objective_and_one_precision():
    def key(objective, dtype=torch.float32):
        self = Search.__new__(Search)
        self.backbone, self.data, self.part, self.pool = tiny(), NOISY, NOISY, np.arange(60)
        self.folds, self.weight, self.objective, self.dtype = [], np.ones(60), objective, dtype
        self.settings = Settings(1, 1e-3, 16, 1, None, None, True, 0)
        return self._key()

    shares = np.full((60, 2), 0.5)
    others = [tl.Objective(label_smoothing=0.1), tl.Objective(l2_sp=1.0), tl.Objective(soft_targets=shares)]
    assert key(tl.Objective()) == key(tl.Objective())
    assert all(key(other) != key(tl.Objective()) for other in others)
    assert key(tl.Objective(), torch.bfloat16) != key(tl.Objective())


@pytest.mark.parametrize(
    "options", [{"minutes": 0}, {"folds": 1}, {"rates": (0.0,)}, {"rates": ("a",)}, {"rates": ()}, {"rates": 1e-4}]
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Auto(**options)


def test_ctrl_c_while_a_fold_is_predicted_returns_the_best_probe(monkeypatch):
    predict, calls = FineTuned.probabilities_and_features, []

    def press(self, inputs):
        calls.append(inputs)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return predict(self, inputs)

    monkeypatch.setattr(FineTuned, "probabilities_and_features", press)
    found = searched()
    assert found.stopped == "Ctrl-C" and [row.name for row in found.tried if row.kept][0].startswith("probe")


class TestWhatAnInterruptedSearchLeaves:
    @pytest.fixture
    def stopped(self, monkeypatch, tmp_path):
        """A search that was stopped in the second fold of its fine-tuning."""
        fine_tune, calls = Search._fine_tune, []

        def stop(self, candidate, split, name):
            calls.append(name)
            if len(calls) == 2:
                raise search._Stopped
            return fine_tune(self, candidate, split, name)

        with monkeypatch.context() as patch:
            patch.setattr(Search, "_fine_tune", stop)
            return searched(checkpoint=tmp_path / "left")

    def test_it_returns_the_best_probe_so_far(self, stopped):
        assert stopped.stopped == "Ctrl-C" and not stopped.finished
        assert [row.name for row in stopped.tried if row.kept][0].startswith("probe")

    def test_resume_goes_on_with_the_folds_that_are_left(self, stopped, tmp_path, monkeypatch):
        fine_tune, calls = Search._fine_tune, []

        def note(self, candidate, split, name):
            calls.append(name)
            return fine_tune(self, candidate, split, name)

        monkeypatch.setattr(Search, "_fine_tune", note)
        resumed = searched(checkpoint=tmp_path / "left", resume=True)
        assert calls[:1] == ["LP-FT at 1e-3, fold 1"] and "LP-FT at 1e-3, fold 0" not in calls
        straight = searched()
        assert [row.log_loss for row in resumed.tried] == [row.log_loss for row in straight.tried]

    def test_a_fold_alone_is_not_taken_up_unasked_either(self, stopped, tmp_path):
        fold = tmp_path / "left" / "LP-FT at 1e-3, fold 0"
        fold.mkdir()
        (tmp_path / "left" / "checkpoint.safetensors").rename(fold / "checkpoint.safetensors")  # stopped in the first
        with pytest.raises(ValueError, match="holds a fold of a search: resume=True goes on with it"):
            searched(checkpoint=tmp_path / "left")

    def test_it_is_not_taken_up_unasked_nor_by_another_search(self, stopped, tmp_path):
        with pytest.raises(ValueError, match="resume=True goes on with it"):
            searched(checkpoint=tmp_path / "left")
        with pytest.raises(ValueError, match="a run with other epochs"):
            searched(checkpoint=tmp_path / "left", resume=True, epochs=2)
