"""Recipes: what each lets learn, and where it starts."""

import copy

import numpy as np
import pytest
import torch
from small import DATA, FAST, NO_VAL, SPLIT, spots, tiny

import tlbook as tl
from tlbook import fine_tuning
from tlbook.training.recipes import LPFT, Full, Gradual, Head, Surgical
from tlbook.training.trainable import stages_of

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")


@pytest.mark.parametrize("recipe", ["head", "bias", "full", "lp_ft", "gradual", "surgical"])
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
    found = tl.finetune(tiny(), DATA, NO_VAL, **(FAST | {"recipe": recipe}))
    of, moved = stages_of(found.model), set()
    for key, value in found.model.state_dict().items():
        if not torch.equal(value, found.start[key]):
            moved.add(of.get(key) or of[key.rpartition(".")[0]])
    assert moved == learn | {"head"}
    if learn:
        norm = getattr(found.model.model, max(learn))[0].bn1
        assert norm.num_batches_tracked > 0


def test_frozen_batchnorm_statistics_are_bit_identical_after_full_training():
    found = tl.finetune(tiny(), DATA, NO_VAL, **(FAST | {"recipe": Full(freeze_batchnorm=True)}))
    for key, value in found.model.state_dict().items():
        frozen = "running" in key or "tracked" in key
        assert torch.equal(value, found.start[key]) == frozen, key


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
