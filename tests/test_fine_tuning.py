"""Fine-tuning: the objective is its formula, what is frozen stays, and a run is one run however it is cut up."""

import copy
import functools
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

import tlbook as tl
from tlbook import batches, engine, fine_tuning, training
from tlbook.backbones import Backbone
from tlbook.data import Dataset, Split
from tlbook.parameters import freeze_stages, stages_of
from tlbook.recipes import LPFT, Full, Gradual, Head, Surgical

CUT = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]


@functools.cache
def built(name, seed):
    torch.manual_seed(seed)
    backbone = tl.load_backbone(name, weights=None)
    tl.recalibrate_batchnorm(backbone, DATA, range(24))  # as a trained network's statistics fit its features
    return backbone


def tiny(name="test_resnet", seed=0):
    return copy.deepcopy(built(name, seed))


def spots(n=48, K=2, side=32):
    """Noise, in which class k has a brighter square at the k-th place; the second half repeats the first."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randint(0, 100, (n, 1, side, side), dtype=torch.uint8, generator=g), np.arange(n) % K
    for k in range(K):
        x[y == k, :, 4 + 8 * k : 12 + 8 * k, 4:12] += 150
    x[n // 2 :] = x[: n - n // 2]
    return Dataset(list(x), y, tuple("abc"[:K]), np.arange(n) // 6)


DATA = spots()
SPLIT = Split(np.arange(30), np.arange(30, 39), np.arange(39, 48))  # what is learned helps in validation
NO_VAL = SPLIT._replace(val=SPLIT.val[:0])  # the last weights are kept
FAST = {"epochs": 3, "lr": 1e-3, "batch_size": 8}


@pytest.fixture(autouse=True)
def one_thread_and_own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLBOOK_DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(a, b):
    assert a.epoch and b.epoch, "the start would be the same whatever training did"
    a, b = a.model.state_dict(), b.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def apart(a, b):
    assert a.epoch and b.epoch, "the start would be the same whatever training did"
    a, b = a.model.state_dict(), b.model.state_dict()
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


# L(θ; D)


def test_the_gradient_of_l2_sp_is_its_formula():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    theta0 = {name: torch.randn_like(p) for name, p in model.named_parameters() if name.startswith("0.")}
    tl.Objective(l2_sp=0.7, l2_head=0.3).penalty(model, theta0).backward()
    for name, p in model.named_parameters():
        expected = 0.7 * (p - theta0[name]) if name in theta0 else 0.3 * p
        assert torch.allclose(p.grad, expected, atol=1e-6), name


@settings(max_examples=30, deadline=None)
@given(
    logits=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=12),
    smoothing=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)
def test_the_data_term_is_the_weighted_cross_entropy(logits, smoothing, seed):
    rng = np.random.default_rng(seed)
    z, y, s = np.array(logits), rng.integers(0, 3, len(logits)), rng.random(len(logits))
    target = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -(s * (target * log_p).sum(1)).mean()
    objective = tl.Objective(label_smoothing=smoothing)
    found = objective.data_term(*map(torch.from_numpy, (z, y, s)))
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_the_mean_over_equal_batches_is_the_loss_of_them_all():
    s = torch.from_numpy(tl.Objective(class_weight=[1, 5]).weights(DATA, SPLIT.train)[SPLIT.train[:24]])
    logits, y = torch.randn(24, 2), torch.from_numpy(DATA.labels[SPLIT.train[:24]])
    term = tl.Objective().data_term
    parts = [term(logits[i : i + 6], y[i : i + 6], s[i : i + 6]) for i in range(0, 24, 6)]
    assert torch.stack(parts).mean().item() == pytest.approx(term(logits, y, s).item(), rel=1e-6)


def test_weights_have_mean_one_and_balance_the_classes_of_the_training_part_only():
    y = np.array([0] * 30 + [1] * 10 + [1] * 60)
    data, train = Dataset(list(range(100)), y, ("a", "b")), np.arange(40)
    s = tl.Objective(class_weight="balanced").weights(data, train)
    assert np.allclose(s[train], compute_sample_weight("balanced", y[train]))
    certain = np.random.default_rng(0).random(100)
    s = tl.Objective(sample_weight=certain).weights(data, train)
    assert np.allclose(s, certain / certain[train].mean())


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"l2_sp": -1}, "l2_sp"),
        ({"l2_head": math.nan}, "l2_head"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"sample_weight": np.ones(3)}, "sample_weight must be 48"),
        ({"sample_weight": -np.ones(48)}, "at least 0"),
        ({"sample_weight": np.zeros(48)}, "all 0"),
        ({"class_weight": "even"}, "class_weight must be"),
        ({"class_weight": [1, 2, 3]}, "2 numbers"),
    ],
)
def test_an_objective_that_makes_no_sense_is_an_error(wrong, says):
    with pytest.raises(ValueError, match=says):
        tl.Objective(**wrong).weights(DATA, SPLIT.train)


def test_l2_sp_holds_the_network_at_its_start_and_weight_decay_does_not_fight_it():
    free, held = (
        tl.finetune(tiny(), DATA, NO_VAL, recipe=Full(weight_decay=0.5), objective=objective, **FAST)
        for objective in (None, tl.Objective(l2_sp=1e4))
    )

    def moved(found):
        theta, start = found.model.state_dict(), found.start
        return sum((theta[k] - start[k]).square().sum().item() for k in theta if "conv" in k and "weight" in k)

    assert 0 < moved(held) < moved(free) / 2
    for objective in (tl.Objective(l2_sp=1), tl.Objective(l2_head=1)):
        for group in training._groups(tiny(), 1e-3, objective, {"weight_decay": 0.5}):
            penalised = objective.l2_head if group["stage"] == "head" else objective.l2_sp
            decays = not penalised and group["params"][0].ndim > 1
            assert group["weight_decay"] == (0.5 if decays else 0)


# Which parameters learn


@pytest.mark.parametrize("name", CUT)
def test_every_parameter_belongs_to_the_stage_that_uses_it(name):
    backbone = tiny(name)
    of, side = stages_of(backbone), backbone.input_size
    x = torch.randn(2, 3, side, side)
    assert {of[key] for key, _ in backbone.named_parameters()} <= {*backbone.stages, "head"}
    for stage in list(backbone.stages)[:-1]:
        backbone.zero_grad()
        backbone.prefix(stage)(x).square().sum().backward()
        reached = {of[key] for key, p in backbone.named_parameters() if p.grad is not None}
        before = list(backbone.stages)[: backbone._position(stage) + 1]
        assert reached <= set(before) and stage in reached


@pytest.mark.parametrize("name", CUT)
def test_what_is_frozen_stays_to_the_bit_through_training(name):
    backbone = tiny(name)
    stage = list(backbone.stages)[2]
    tl.freeze(backbone, until=stage)
    backbone.train()
    assert backbone.training
    of, before = stages_of(backbone), copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD(tl.parameter_groups(backbone, 0.1))
    x = torch.randn(4, 3, backbone.input_size, backbone.input_size)
    backbone(x).square().mean().backward()
    optimizer.step()
    frozen = list(backbone.stages)[:3]
    for key, value in backbone.state_dict().items():
        if of[key if key in of else key.rpartition(".")[0]] in frozen:
            assert torch.equal(value, before[key]), key
    assert not torch.equal(
        backbone.head.weight,
        before[
            next(
                k
                for k in before
                if backbone.state_dict()[k] is not None
                and k.endswith(("fc.weight", "classifier.weight", "head.weight"))
            )
        ],
    )
    if name == "test_resnet":
        assert not torch.equal(backbone.model.layer4[0].bn1.running_mean, before["model.layer4.0.bn1.running_mean"])


def test_unfreeze_undoes_freeze_and_copies_stay_frozen():
    backbone = tiny()
    classes = [type(m) for m in backbone.modules()]
    tl.freeze(backbone, until="final")
    twin = copy.deepcopy(backbone).train()
    assert not any(m.training for m in twin.model.layer1.modules())
    tl.unfreeze(backbone)
    assert [type(m) for m in backbone.modules()] == classes
    assert all(m.training for m in backbone.train().modules()) and all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_that_learns_between_frozen_ones_is_in_train_mode(name, stage):
    backbone = tiny(name)
    learns = list(backbone.stages)[stage]
    freeze_stages(backbone, set(backbone.stages) - {learns})
    of = stages_of(backbone.train())
    for key, module in backbone.named_modules():
        if key in of:
            assert module.training == (of[key] in (learns, "head")), key


def test_frozen_batchnorm_lets_its_weights_learn():
    backbone = tiny()
    freeze_stages(backbone, (), batchnorm=True)
    norm = backbone.train().model.layer2[0].bn1
    assert not norm.training and norm.weight.requires_grad and backbone.model.layer2[0].conv1.training


@pytest.mark.parametrize("name", [*CUT, "test_byobnet"])
def test_groups_hold_each_parameter_once_at_the_rate_of_its_stage(name):
    backbone = tiny(name)
    groups = tl.parameter_groups(backbone, 0.1, layer_decay=0.5, head_multiplier=7, weight_decay=0.01)
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in backbone.parameters())
    of = stages_of(backbone)
    owners = [s for s in backbone.stages if any(of[key] == s for key, _ in backbone.named_parameters())]
    for group in groups:
        stage = group["stage"]
        assert {of[key] for key in group["names"]} == {stage}
        depth = None if stage == "head" else len(owners) - 1 - owners.index(stage)
        assert group["lr"] == pytest.approx(0.7 if stage == "head" else 0.1 * 0.5**depth)
        assert all((p.ndim > 1 or group["weight_decay"] == 0) for p in group["params"])
    before = {key: p.detach().clone() for key, p in backbone.named_parameters()}
    for p in backbone.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD([g | {"weight_decay": 0} for g in groups]).step()  # the rates are real: no scheduler ran
    rate = {key: group["lr"] for group in groups for key in group["names"]}
    for key, p in backbone.named_parameters():
        assert torch.allclose(before[key] - p, torch.tensor(rate[key]), atol=1e-6), key


def test_tokens_and_positions_do_not_decay():
    groups = tl.parameter_groups(tiny("test_vit"), 0.1, weight_decay=0.1)
    decays = {key for group in groups if group["weight_decay"] for key in group["names"]}
    assert decays and not any("token" in key or "pos_embed" in key for key in decays)


def test_only_biases_and_the_head_learn():
    backbone = tiny()
    groups = tl.parameter_groups(backbone, 0.1, only=r".*bias")
    given = {key for group in groups for key in group["names"]}
    learn = {key for key, p in backbone.named_parameters() if p.requires_grad}
    assert given == learn == {k for k, _ in backbone.named_parameters() if k.endswith("bias")} | {"model.fc.weight"}
    with pytest.raises(ValueError, match="matches the whole name of no parameter"):
        tl.parameter_groups(backbone, 0.1, only="bias")


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"layer_decay": 1.5}, {"head_multiplier": 0}, {"weight_decay": -1}])
def test_a_rate_out_of_range_is_an_error(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        tl.parameter_groups(tiny(), **({"lr": 0.1} | wrong))


def problems(backbone, parameters):
    return [(row["parameter"], row["problem"]) for row in tl.audit(backbone, torch.optim.SGD(parameters, 0.1)).problems]


def test_audit_finds_each_planted_mistake_and_no_other():
    backbone = tiny()
    assert problems(backbone, backbone.parameters()) == []
    body = [p for p in backbone.parameters() if p is not backbone.head.weight]
    ((name, what),) = problems(backbone, body)
    assert name == "model.fc.weight" and "head forgotten" in what

    optimizer = torch.optim.SGD(backbone.parameters(), 0.1)
    backbone.model.reset_classifier(2)
    found = [row["problem"] for row in tl.audit(backbone, optimizer).problems]
    assert sum("head forgotten" in what for what in found) == 2
    assert sum("not a parameter of the model" in what for what in found) == 2 and len(found) == 4

    backbone = tiny()
    tl.freeze(backbone, until="stem")
    found = problems(backbone, backbone.parameters())
    assert found and all("frozen, yet given" in what for _, what in found)
    assert {stages_of(backbone)[name] for name, _ in found} == {"stem"}
    assert problems(backbone, [p for p in backbone.parameters() if p.requires_grad]) == []


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize("alias", [False, True])
def test_audit_finds_memory_given_twice(alias):
    backbone = tiny()
    optimizer = torch.optim.SGD(backbone.parameters(), 0.1)
    p = backbone.model.layer1[0].conv1.weight
    optimizer.param_groups[0]["params"].append(nn.Parameter(p.data) if alias else p)
    (row,) = tl.audit(backbone, optimizer).problems
    assert "given twice: the same memory as model.layer1.0.conv1.weight" in row["problem"]


def test_audit_goes_by_identity_and_not_by_value():
    backbone = tiny()
    a, b = backbone.model.layer1[0].bn1, backbone.model.layer1[0].bn2
    b.weight.data.copy_(a.weight.data)
    ((name, what),) = problems(backbone, [p for p in backbone.parameters() if p is not b.weight])
    assert name == "model.layer1.0.bn2.weight" and "forgotten" in what


def test_audit_finds_the_batchnorm_that_is_frozen_by_requires_grad_alone():
    backbone = tiny()
    for p in backbone.model.layer1.parameters():
        p.requires_grad_(False)
    found = problems(backbone, [p for p in backbone.parameters() if p.requires_grad])
    norms = [k for k, m in backbone.named_modules() if "layer1" in k and isinstance(m, nn.BatchNorm2d)]
    assert [name for name, _ in found] == norms and all("statistics" in what for _, what in found)


# Training


@pytest.mark.parametrize("recipe", ["head", "full", "lp_ft", "gradual", "surgical"])
def test_each_recipe_lowers_the_loss_it_trains_on(recipe):
    found = tl.finetune(tiny(), DATA, SPLIT, recipe=recipe, epochs=6, lr=1e-3, batch_size=8, augment=None)
    assert [row["epoch"] for row in found.history] == list(range(7)) and found.finished
    losses = [row["train loss"] for row in found.history[1:]]
    assert min(losses[1:]) < losses[0]
    assert all(p.requires_grad for p in found.model.parameters()) and not found.model.training


def test_recipes_say_which_stages_learn_when():
    stages = ["a", "b", "c"]
    assert Head().plan(stages, 2) == [(), ()]
    assert Full(until="a").plan(stages, 1) == LPFT(until="a").plan(stages, 1) == [("b", "c")]
    assert Gradual().plan(stages, 5) == [(), ("c",), ("b", "c"), ("a", "b", "c"), ("a", "b", "c")]
    assert Surgical().plan(stages, 1) == [("b",)] and Surgical(stage="c").plan(stages, 1) == [("c",)]


@pytest.mark.parametrize(
    "recipe, learn",
    [("head", set()), (Full(until="layer2"), {"layer3", "layer4"}), (Surgical(stage="layer2"), {"layer2"})],
)
def test_only_what_the_recipe_names_has_moved_statistics_included(recipe, learn):
    found = tl.finetune(tiny(), DATA, NO_VAL, recipe=recipe, **FAST)
    of, moved = stages_of(found.model), set()
    for key, value in found.model.state_dict().items():
        if not torch.equal(value, found.start[key]):
            moved.add(of.get(key) or of[key.rpartition(".")[0]])
    assert moved == learn | {"head"}
    if learn:
        norm = getattr(found.model.model, max(learn))[0].bn1
        assert norm.num_batches_tracked > 0


def test_frozen_batchnorm_statistics_are_bit_identical_after_full_training():
    found = tl.finetune(tiny(), DATA, NO_VAL, recipe=Full(freeze_batchnorm=True), **FAST)
    for key, value in found.model.state_dict().items():
        frozen = "running" in key or "tracked" in key
        assert torch.equal(value, found.start[key]) == frozen, key


@pytest.mark.parametrize("recipe", ["head", Full(until="layer2"), "gradual", LPFT(until="layer1")])
def test_a_stored_prefix_gives_the_weights_of_one_computed_each_time(recipe, monkeypatch):
    options = FAST | {"recipe": recipe, "epochs": 5, "augment": "flips"}
    split = NO_VAL if isinstance(recipe, LPFT) else SPLIT  # a probe is at its best at the start
    stored = tl.finetune(tiny(), DATA, split, **options)
    calls, ready = [], batches.Batches._ready
    monkeypatch.setattr(batches.Batches, "_ready", lambda *a: calls.append(a[0]._has(*a[2:])) or ready(*a))
    assert apart(stored, tl.finetune(tiny(), DATA, split, **options, store_prefix=False)) < 1e-4
    assert not any(calls)
    monkeypatch.setattr(batches, "IN_MEMORY", 0)
    assert same(stored, tl.finetune(tiny(), DATA, split, **options)) and any(calls)


def test_a_stored_prefix_runs_each_view_once(monkeypatch):
    seen = []
    prepare = Backbone.prepare
    monkeypatch.setattr(Backbone, "prepare", lambda self, inputs: seen.append(len(inputs)) or prepare(self, inputs))
    tl.finetune(tiny(), DATA, SPLIT, recipe="head", **(FAST | {"epochs": 8}), augment="flips")
    pairs = 4 * len(SPLIT.train) + len(SPLIT.val)
    assert sum(seen) <= pairs  # eight epochs, four views: half of what no store would cost


def test_arguments_and_global_random_state_are_left_alone():
    backbone = tiny().train()
    backbone.model.conv1[0].weight.requires_grad_(False)
    before, wants = backbone.fingerprint, [p.requires_grad for p in backbone.parameters()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    tl.finetune(backbone, DATA, SPLIT, recipe=Full(freeze_batchnorm=True), **FAST)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.fingerprint == before and backbone.training
    assert [p.requires_grad for p in backbone.parameters()] == wants


def test_the_seed_decides_and_nothing_else():
    a = tl.finetune(tiny(), DATA, SPLIT, **FAST, seed=1)
    torch.manual_seed(99)
    backbone = tiny()
    torch.rand(7)
    assert same(a, tl.finetune(backbone, DATA, SPLIT, **FAST, seed=1))
    assert not same(a, tl.finetune(tiny(), DATA, SPLIT, **FAST, seed=2))


def test_validation_chooses_the_epoch_and_its_weights_are_returned():
    found = tl.finetune(tiny(), DATA, SPLIT, **(FAST | {"lr": 5e-3, "epochs": 5}))
    losses = [row["val loss"] for row in found.history]
    assert found.epoch == int(np.argmin(losses))
    val = found.evaluate(DATA, SPLIT.val)
    assert val.log_loss == pytest.approx(min(losses), rel=1e-4)
    assert val.auc == pytest.approx(found.history[found.epoch]["val AUC"])


def test_the_test_part_is_never_looked_at(tmp_path):
    class Guarded(list):
        def __getitem__(self, i):
            assert i not in SPLIT.test, "a test input was read"
            return list.__getitem__(self, i)

    labels = DATA.labels.copy()
    labels[SPLIT.test] = 1 - labels[SPLIT.test]
    guarded = Dataset(Guarded(DATA.inputs), labels, DATA.class_names, DATA.groups)
    for recipe, split in (("lp_ft", NO_VAL), ("head", SPLIT)):
        objective = tl.Objective(class_weight="balanced")
        options = FAST | {"recipe": recipe, "objective": objective}
        a = tl.finetune(tiny(), guarded, split, **options, checkpoint=tmp_path / recipe)
        assert same(a, tl.finetune(tiny(), DATA, split, **options))


@pytest.mark.parametrize("K", [2, 3])
def test_lp_ft_starts_at_the_exact_linear_probe(K):
    data = spots(60, K)
    split, backbone = data.split(seed=1), tiny()
    found = tl.finetune(backbone, data, split, recipe="lp_ft", epochs=1, lr=1e-9, batch_size=16)
    features = tl.extract(backbone, data, precision="float32")
    probe = tl.linear_probe(features, split._replace(val=split.val[:0]))
    model = copy.deepcopy(found.model)
    model.load_state_dict(found.start)
    start = fine_tuning.FineTuned(model, found.history, 0, data.class_names).predict(data)
    assert np.allclose(start, probe.predict_proba(features.X), atol=1e-4)
    val = tl.evaluate(start[split.val], data.labels[split.val]).log_loss
    assert found.history[0]["val loss"] == pytest.approx(val, rel=1e-3)


def test_parts_of_a_batch_add_up_to_the_batch():
    options = FAST | {"recipe": Full(freeze_batchnorm=True), "epochs": 2}
    objective = tl.Objective(l2_sp=0.1, l2_head=0.1, class_weight=[1, 3])
    one, three = (tl.finetune(tiny(), DATA, SPLIT, **options, objective=objective, accumulate=k) for k in (1, 3))
    for a, b in zip(one.history, three.history, strict=True):
        assert a["val loss"] == pytest.approx(b["val loss"], rel=1e-3)
        assert a["train loss"] == pytest.approx(b["train loss"], rel=1e-3, nan_ok=True)


def test_the_schedule_warms_up_and_ends_near_zero():
    factors = [fine_tuning.schedule(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b for a, b in zip(factors[9:], factors[10:], strict=False)) and 0 < factors[-1] < 1e-3
    assert [fine_tuning.schedule(step, 1) for step in range(1)] == [1.0]


# Views


def test_the_eight_views_are_the_symmetries_of_the_square():
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(8, 1, 1, 1)
    turned = batches.turn(x, np.arange(8))
    assert len({tuple(image.flatten().tolist()) for image in turned}) == 8
    expected = [x[0].rot90(k, (1, 2)) for k in range(4)]
    expected += [image.flip(-1) for image in expected]
    assert torch.equal(turned, torch.stack(expected))
    assert {tuple(x[0].flatten().tolist()), *(tuple(x[0].flip(d).flatten().tolist()) for d in (-1, -2, (-1, -2)))} == {
        tuple(turned[v].flatten().tolist()) for v in batches.AUGMENTATIONS["flips"]
    }
    with pytest.raises(ValueError, match="square"):
        batches.turn(torch.zeros(2, 1, 3, 4), np.array([0, 1]))


def test_every_example_comes_once_an_epoch_and_in_every_view_before_one_returns():
    train = np.arange(10, 47)
    for world in (1, 2):
        views = {i: [] for i in train}
        for epoch in range(4):
            shares = [batches.share_of(train, 3, epoch, 5, "flips", rank, world) for rank in range(world)]
            rows = np.concatenate([rows for share in shares for rows, _, _ in share])
            assert sorted(rows) == sorted(train)
            assert {size for share in shares for _, _, size in share} <= {7, 8}
            for share in shares:
                for part, view, _ in share:
                    for i, v in zip(part, view, strict=True):
                        views[i].append(v)
        assert all(sorted(v) == [0, 2, 4, 6] for v in views.values())


# One run, however it is cut up


RUN = {"recipe": Gradual(), "epochs": 3, "lr": 1e-3, "batch_size": 12, "augment": "dihedral"}


def dropping():
    """A backbone with dropout, so that the random state matters."""
    backbone = tiny()
    backbone.model.drop_rate = 0.3
    return backbone


def die_at(step, folder):
    torch.set_num_threads(1)
    os.environ["TLBOOK_DEVICE"] = "cpu"
    os.environ["TLBOOK_CACHE"] = str(folder.parent / "cache")
    schedule = fine_tuning.schedule

    def counted(now, steps):
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return schedule(now, steps)

    fine_tuning.schedule, fine_tuning.CHECKPOINT_SECONDS = counted, 0
    tl.finetune(dropping(), DATA, SPLIT, **RUN, checkpoint=folder, resume=True)


def kill_and_resume(folder, steps, whole):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tlbook.fine_tuning", "tlbook.backbones", "timm", "sklearn.utils"])
    for step in steps:
        child = context.Process(target=die_at, args=(step, folder))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
    resumed = tl.finetune(dropping(), DATA, SPLIT, **RUN, checkpoint=folder, resume=True)
    assert same(whole, resumed) and whole.epoch == resumed.epoch
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {k: str(v) for k, v in a.items() if k != "seconds"} == {
            k: str(v) for k, v in b.items() if k != "seconds"
        }


STEPS = RUN["epochs"] * math.ceil(len(SPLIT.train) / RUN["batch_size"])


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_run_killed_at_a_random_step_and_resumed_is_the_run_never_interrupted(tmp_path):
    whole = tl.finetune(dropping(), DATA, SPLIT, **RUN)
    kill_and_resume(tmp_path / "run", [np.random.default_rng().integers(1, STEPS)], whole)


@pytest.mark.prove
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_ten_runs_killed_at_random_steps_each_end_with_the_same_weights(tmp_path):
    whole = tl.finetune(dropping(), DATA, SPLIT, **RUN)
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    for i, first in enumerate(np.random.default_rng(seed).integers(0, STEPS - 1, 10)):
        print("killed at steps", first, first + 1)
        kill_and_resume(tmp_path / str(i), [first, first + 1], whole)


def test_ctrl_c_stops_after_the_step_and_the_run_can_go_on(tmp_path, monkeypatch, capsys):
    schedule = fine_tuning.schedule

    def press(step, steps):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return schedule(step, steps)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(fine_tuning, "schedule", press)
    stopped = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    assert "stopped at step 5" in capsys.readouterr().out and not stopped.finished
    assert signal.getsignal(signal.SIGINT) is before
    losses = [row["val loss"] for row in stopped.history]
    assert stopped.evaluate(DATA, SPLIT.val).log_loss == pytest.approx(min(losses), rel=1e-4)
    monkeypatch.setattr(fine_tuning, "schedule", schedule)
    resumed = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    assert resumed.finished and same(resumed, tl.finetune(tiny(), DATA, SPLIT, **RUN))
    again = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    assert same(resumed, again)


def test_ctrl_c_before_the_first_step_ends_at_once(tmp_path, monkeypatch):
    prepared, prepare = [], Backbone.prepare

    def press(self, inputs):
        if not prepared:
            signal.raise_signal(signal.SIGINT)
        prepared.append(len(inputs))
        return prepare(self, inputs)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Backbone, "prepare", press)
    monkeypatch.setattr(batches, "at_once", lambda device: 8)
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(tiny(), DATA, SPLIT, recipe="head", **FAST, augment=None, checkpoint=tmp_path)
    assert sum(prepared) <= 8 and not any(tmp_path.iterdir()) and signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_a_later_prefix_is_stored_returns_the_best_so_far_and_the_run_can_go_on(tmp_path, monkeypatch):
    stores, store = [], batches.Batches.store

    def press(*args, **options):
        stores.append(args)
        if len(stores) == 2:
            signal.raise_signal(signal.SIGINT)
        return store(*args, **options)

    whole = tl.finetune(tiny(), DATA, SPLIT, **RUN)
    monkeypatch.setattr(batches.Batches, "store", press)
    stopped = tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    assert not stopped.finished and [row["epoch"] for row in stopped.history] == [0, 1]
    assert same(whole, tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True))


def test_a_second_ctrl_c_does_not_wait_for_the_step(monkeypatch):
    def press_twice(step, steps):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step went on")

    monkeypatch.setattr(fine_tuning, "schedule", press_twice)
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(tiny(), DATA, SPLIT, **RUN)


def test_a_checkpoint_is_of_one_run_only(tmp_path):
    tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="resume=True goes on"):
        tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    others = [({"lr": 2e-3}, "lr"), ({"recipe": "full"}, "recipe"), ({"objective": tl.Objective(l2_sp=1)}, "l2_sp")]
    for other, named in others:
        with pytest.raises(ValueError, match=f"a run with other {named}"):
            tl.finetune(tiny(), DATA, SPLIT, **(RUN | other), checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="other backbone"):
        tl.finetune(tiny(seed=1), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="give checkpoint="):
        tl.finetune(tiny(), DATA, SPLIT, **RUN, resume=True)


TORCHRUN = Path(sys.executable).with_name("torchrun")
TWO = {"recipe": Full(until="layer1", freeze_batchnorm=True), "epochs": 5, "lr": 1e-3, "batch_size": 12}


@pytest.mark.skipif(shutil.which(str(TORCHRUN)) is None, reason="needs torchrun")
def test_two_processes_reach_the_loss_curve_of_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch, tlbook as tl, test_fine_tuning as t\n"
        "from accelerate import PartialState\n"
        "torch.set_num_threads(1)\n"
        "objective = tl.Objective(l2_sp=.1, class_weight='balanced')\n"
        "found = tl.finetune(t.tiny(), t.DATA, t.SPLIT, **t.TWO, objective=objective, checkpoint=sys.argv[1])\n"
        "assert PartialState().num_processes == 2\n"
        "if PartialState().is_main_process: found.save(sys.argv[2])\n"
        "try: tl.finetune(t.tiny(), t.DATA, t.SPLIT, recipe='full')\n"
        "except ValueError as error: assert 'freeze_batchnorm=True' in str(error)\n"
        "else: raise SystemExit('BatchNorm by process went unnoticed')\n"
        "PartialState().destroy_process_group()\n"
    )
    command = [str(TORCHRUN), "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    folders = [str(tmp_path / "checkpoint"), str(tmp_path / "model")]
    done = subprocess.run([*command, *folders], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    two = tl.load_finetuned(tmp_path / "model")
    one = tl.finetune(tiny(), DATA, SPLIT, **TWO, objective=tl.Objective(l2_sp=0.1, class_weight="balanced"))
    for a, b in zip(one.history, two.history, strict=True):
        for key in ("train loss", "val loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-3, nan_ok=True)
    assert np.allclose(one.predict(DATA), two.predict(DATA), atol=1e-3)


# What goes wrong says so


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_advice(tmp_path):
    with pytest.raises(RuntimeError, match=r"not finite at step \d+, with the learning rate .*try lr="):
        backbone = tiny()
        backbone.model.layer4[0].conv1.weight.data[0] = math.nan
        tl.finetune(backbone, DATA, NO_VAL, **FAST, checkpoint=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="output for a validation example is not finite at step 0"):
        tl.finetune(backbone, DATA, SPLIT, **FAST)


def test_a_gradient_that_is_not_finite_stops_the_step_it_appears_in():
    backbone = tiny()
    backbone.model.layer4.register_forward_hook(lambda m, i, z: z + (z - z.detach()).abs().sqrt())  # ∞ · 0
    with pytest.raises(RuntimeError, match="the gradient is not finite at step 1"):
        tl.finetune(backbone, DATA, SPLIT, **FAST)


def test_a_loss_that_diverges_stops():
    with pytest.raises(RuntimeError, match=r"(diverges|not finite).*at step \d+, with the learning rate"):
        tl.finetune(tiny(), DATA, SPLIT, recipe="head", epochs=20, lr=1e4, batch_size=8)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"recipe": "best"}, "recipe must be one of head, full"),
        ({"recipe": Surgical(stage="layer9")}, "no stage 'layer9'"),
        ({"recipe": Full(until="final")}, "has no parameters"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"accumulate": 30}, "too few"),
        ({"lr": 0}, "lr must be above 0"),
        ({"augment": "colour"}, "augment must be one of"),
        ({"precision": "float8"}, "precision must be"),
    ],
)
def test_an_argument_that_makes_no_sense_is_an_error(wrong, says):
    with pytest.raises(ValueError, match=says):
        tl.finetune(tiny(), DATA, SPLIT, **(FAST | wrong))


def test_a_split_that_makes_no_sense_is_an_error():
    for split, says in (
        (SPLIT._replace(val=SPLIT.train[:3]), "in train and in val or test"),
        (SPLIT._replace(train=SPLIT.train[DATA.labels[SPLIT.train] == 0]), r"without a training example: \['b'\]"),
    ):
        with pytest.raises(ValueError, match=says):
            tl.finetune(tiny(), DATA, split, **FAST)


def test_an_input_that_cannot_be_read_is_named():
    inputs = list(DATA.inputs)
    inputs[SPLIT.train[3]] = "not an image"
    data = Dataset(inputs, DATA.labels, DATA.class_names)
    with pytest.raises(ValueError, match=f"example {SPLIT.train[3]} cannot be read"):
        tl.finetune(tiny(), data, SPLIT, **FAST)


# What comes out


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_saved_model_predicts_the_same(name, tmp_path):
    backbone = tiny(name)
    data = spots(24, side=backbone.input_size if name == "test_vit" else 32)
    found = tl.finetune(backbone, data, data.split(seed=0), recipe="head", epochs=1, batch_size=8)
    found.save(tmp_path)
    back = tl.load_finetuned(tmp_path)
    assert np.array_equal(back.predict(data), found.predict(data))
    assert repr(back.history) == repr(found.history)  # NaN is not equal to itself
    assert back.class_names == found.class_names and back.epoch == found.epoch
    assert np.allclose(found.predict(data).sum(1), 1) and np.array_equal(
        found.predict([data[i][0] for i in range(3)]), found.predict(data.subset(range(3)))
    )
    with pytest.raises(ValueError, match="classes are"):
        found.evaluate(Dataset(data.inputs, data.labels, ("x", "y")), [0, 1])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tl.load_finetuned(tmp_path / "nothing")


def test_the_line_ends_at_the_start_and_at_the_result():
    found = tl.finetune(tiny(), DATA, SPLIT, **FAST)
    line = fine_tuning.loss_along_line(found, DATA, SPLIT.val, alphas=(0.0, 1.0))
    assert line[0]["loss"] == pytest.approx(found.history[0]["val loss"], rel=1e-4)
    assert line[1]["loss"] == pytest.approx(found.history[found.epoch]["val loss"], rel=1e-4)


def test_figures_say_what_they_show(monkeypatch):
    shown = []
    monkeypatch.setattr(tl.plots, "show", lambda figure, alt: shown.append((figure, alt)))
    found = tl.finetune(tiny(), DATA, SPLIT, **FAST)
    tl.plots.history(found)
    tl.plots.loss_line(fine_tuning.loss_along_line(found, DATA, SPLIT.val))
    (history, said), (line, also) = shown
    assert len(history.axes[0].lines) >= 2 and f"epoch {found.epoch}" in said
    assert len(line.axes[0].lines) >= 1 and "α = 1" in also


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: none is visible")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_reaches_the_loss_of_the_cpu(precision, monkeypatch):
    options = FAST | {"recipe": Full(until="layer1", freeze_batchnorm=True), "precision": precision}
    cpu = tl.finetune(tiny(), DATA, SPLIT, **(options | {"precision": "float32"}))
    monkeypatch.setenv("TLBOOK_DEVICE", "cuda")
    gpu = tl.finetune(tiny(), DATA, SPLIT, **options)
    assert gpu.model.device.type == "cuda"
    tolerance = 0.01 if precision == "float32" else 0.1
    for a, b in zip(cpu.history, gpu.history, strict=True):
        assert a["val loss"] == pytest.approx(b["val loss"], rel=tolerance)


def test_bfloat16_trains_after_float32_in_the_same_process():
    a = tl.finetune(tiny(), DATA, SPLIT, recipe="head", **FAST)
    b = tl.finetune(tiny(), DATA, SPLIT, recipe="head", **FAST, precision="bfloat16")
    assert a.history[-1]["val loss"] == pytest.approx(b.history[-1]["val loss"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in b.model.parameters())


def test_seeds_of_different_steps_and_ranks_differ():
    found = {engine.number_of(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)}
    assert len(found) == 180


def test_a_head_that_nothing_has_trained_is_never_kept(monkeypatch):
    data = tl.data.solar_cells(64).subset(range(300))
    split = tl.data.Split(np.arange(0, 200), np.arange(200, 300), np.arange(0))
    of_true_class = iter((0.9, 0.1, 0.3))  # what validation sees at the start and after each epoch

    def seen(network, batches, jobs, K):
        p = next(of_true_class)
        return np.where(np.arange(K) == data.labels[split.val][:, None], p, 1 - p)

    monkeypatch.setattr(engine, "softmax", seen)
    found = tl.finetune(tl.load_backbone(), data, split, recipe="head", epochs=2, augment=None)
    assert np.argmin([row["val loss"] for row in found.history]) == 0 and found.epoch == 2


def test_a_backbone_of_which_nothing_may_learn_is_refused_but_for_its_head():
    frozen = tiny().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the backbone requires a gradient"):
        tl.finetune(frozen, DATA, SPLIT, recipe="lp_ft", **FAST)
    assert tl.finetune(frozen, DATA, SPLIT, recipe="head", **FAST).epoch


def test_what_the_caller_froze_stays_frozen_whatever_the_recipe():
    backbone = tiny()
    tl.freeze(backbone, until="layer1")
    found = tl.finetune(backbone, DATA, NO_VAL, recipe="full", **FAST)
    moved = {name for name, t in found.model.state_dict().items() if not torch.equal(t, found.start[name])}
    assert moved and not any(".layer1." in name or ".conv1." in name and "layer" not in name for name in moved)
    assert any(".layer4." in name and "running_mean" in name for name in moved)


def test_a_checkpoint_knows_which_examples_validated(tmp_path):
    tl.finetune(tiny(), DATA, SPLIT, **RUN, checkpoint=tmp_path)
    rows = np.concatenate(SPLIT[:2])
    other = Split(rows[:-5], rows[-5:], SPLIT.test)
    with pytest.raises(ValueError, match="other labels, weights, split"):
        tl.finetune(tiny(), DATA, other, **RUN, checkpoint=tmp_path, resume=True)
