"""The claim that transfer helps, and that what asserts it would notice if it did not."""

import numpy as np
import pytest
import torch

import tlbook as tl


@pytest.fixture(scope="module")
def cells():
    return tl.data.solar_cells(96)


@pytest.fixture(scope="module")
def score(cells):
    """Return a function from features (and labels other than theirs) to an evaluation on panels not trained on."""
    folds = cells.folds(k=4, seed=0)

    def score(features, labels=cells.labels):
        features = tl.feature_extraction.Features(features.X, labels, cells.groups, features.blocks)
        p = tl.cross_val_predict(features, folds, C=1e-2)
        return tl.evaluate(p, labels, groups=cells.groups)

    return score


@pytest.fixture(scope="module")
def random(cells, score):
    """The scores of two backbones that were never trained."""

    def score_of(seed):
        torch.manual_seed(seed)
        return score(tl.extract(tl.load_backbone(weights=None), cells, stages=["blocks.4"], precision="float32"))

    return [score_of(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def pretrained(score, solar_features):
    return score(solar_features.select("blocks.4"))


def assert_transfers(evaluation, baseline):
    assert evaluation.interval["auc"][0] > 0.5
    assert tl.compare(evaluation, baseline).interval[0] > 0


def test_pretrained_features_find_defects_on_unseen_panels_better_than_random_ones(pretrained, random):
    for baseline in random:
        assert_transfers(pretrained, baseline)


def test_the_claim_fails_with_random_weights(random):
    for a, b in (random, random[::-1]):
        with pytest.raises(AssertionError):
            assert_transfers(a, b)


def test_the_claim_fails_with_shuffled_labels(score, solar_features):
    labels = np.random.default_rng(0).permutation(solar_features.y)
    shuffled = score(solar_features.select("blocks.4"), labels)
    low, high = shuffled.interval["auc"]
    assert low < 0.5 < high
    with pytest.raises(AssertionError):
        assert_transfers(shuffled, shuffled)
