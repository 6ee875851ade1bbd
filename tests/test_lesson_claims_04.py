"""What lesson 04 asserts about transfer fails where there is nothing to transfer: random weights, shuffled labels."""

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.recipes import Full


@pytest.fixture(scope="module")
def judged():
    """start, labels, recipe -> the evaluation of one epoch of lesson 04's runs on the unseen half of the panels."""
    cells = tl.data.solar_cells(64)
    split = cells.split(test=0.5, seed=0)

    def judged(seed, labels=cells.labels, recipe="lp_ft", **options):
        data = tl.data.Dataset(cells.inputs, labels, cells.class_names, cells.groups)
        torch.manual_seed(seed or 0)
        backbone = tl.load_backbone() if seed is None else tl.load_backbone(weights=None)
        return tl.finetune(backbone, data, split, recipe=recipe, epochs=1, **options).evaluate(data, split.test)

    return judged


def ahead(a, b):
    return tl.compare(a, b).interval[0] > 0


def test_lp_ft_is_ahead_of_random_weights_only_where_there_is_something_to_transfer(judged):
    blank = judged(0)
    assert ahead(judged(None), blank)
    assert ahead(judged(None), judged(0, recipe=Full(head_multiplier=1.0), lr=1e-3))
    assert not ahead(judged(1), blank)
    shuffled = np.random.default_rng(0).permutation(tl.data.solar_cells(64).labels)
    assert not ahead(judged(None, shuffled), judged(0, shuffled))
