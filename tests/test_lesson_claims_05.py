"""What lesson 05 asserts about its experts fails when there is nothing to transfer: random weights, shuffled labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.data import Split
from tlbook.training.recipes import Full


@pytest.fixture(scope="module")
def data():
    return tl.data.solar_cells(64)


@pytest.fixture(scope="module")
def expert(data):
    """(backbone, labels) -> the evaluation of an expert on mono panels, on mono panels that it was not trained on."""
    mono = data.columns["kind"] == "mono"
    part = Split(*(rows[mono[rows]] for rows in data.split(test=0.5, val=0, seed=0)))

    def expert(backbone, labels=data.labels):
        relabelled = replace(data, labels=labels)
        recipe = Full(until="blocks.3", freeze_batchnorm=True)
        found = tl.finetune(backbone, relabelled, part, recipe=recipe, epochs=3, augment=None)
        return found.evaluate(relabelled, part.test)

    return expert


@pytest.fixture(scope="module")
def random(expert, data):
    """Experts that started from two networks that were never trained."""

    mono = data.split(test=0.5, val=0, seed=0).train
    mono = mono[data.columns["kind"][mono] == "mono"]

    def from_random(seed):
        torch.manual_seed(seed)
        blank = tl.load_backbone(weights=None)
        tl.recalibrate_batchnorm(blank, data, mono[::2])  # held at 0 and 1, its statistics would normalise nothing
        return expert(blank)

    return [from_random(seed) for seed in (0, 1)]


def assert_transfers(evaluation, from_random):
    """As the lesson does."""
    assert evaluation.interval["auc"][0] > 0.5
    gain = tl.compare(evaluation, from_random)
    assert gain.interval[0] > 0 and gain.difference > 0.05


def test_an_expert_owes_its_score_to_where_it_started(expert, random):
    found = expert(tl.load_backbone())
    for from_random in random:
        assert_transfers(found, from_random)


def test_the_claim_fails_with_random_weights(random):
    for a, b in (random, random[::-1]):
        with pytest.raises(AssertionError):
            assert_transfers(a, b)


def test_the_claim_fails_with_shuffled_labels(expert, data):
    shuffled = expert(tl.load_backbone(), np.random.default_rng(0).permutation(data.labels))
    low, high = shuffled.interval["auc"]
    assert low <= 0.5 <= high
    with pytest.raises(AssertionError):
        assert_transfers(shuffled, shuffled)
