"""What lesson 05 asserts about its experts fails when there is nothing to transfer: random weights, shuffled labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.data import Split
from tlbook.recipes import Full


@pytest.fixture(scope="module")
def data():
    return tl.data.solar_cells(48)


@pytest.fixture(scope="module")
def expert(data):
    """(backbone, labels) -> the evaluation, on mono panels not trained on, of θ⁰ + τ of an expert on mono panels."""
    mono = data.columns["kind"] == "mono"
    train, val, test = (part[mono[part]] for part in data.split(test=0.5, val=0, seed=0))

    def expert(backbone, labels=data.labels):
        relabelled = replace(data, labels=labels)
        recipe = Full(until="blocks.3", freeze_batchnorm=True)
        part = Split(train, val, test)
        found = tl.finetune(backbone, relabelled, part, recipe=recipe, epochs=2, lr=1e-3, augment=None)
        found.model.load_state_dict(tl.TaskVector(found.model, found.start).apply(found.start))
        return found.evaluate(relabelled, test)

    return expert


def assert_transfers(evaluation):
    """As the lesson does."""
    assert evaluation.interval["auc"][0] > 0.5


def test_a_task_vector_added_to_its_start_finds_defects_on_panels_of_its_kind(expert):
    assert_transfers(expert(tl.load_backbone()))


def test_with_random_weights_the_claim_fails(expert):
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        assert_transfers(expert(tl.load_backbone(weights=None)))


def test_with_shuffled_labels_the_claim_fails(expert, data):
    labels = np.random.default_rng(0).permutation(data.labels)
    with pytest.raises(AssertionError):
        assert_transfers(expert(tl.load_backbone(), labels))
