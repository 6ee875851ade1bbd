"""Adaptation without labels: each formula against a brute force, and the assumption that breaks it."""

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power

import tlbook as tl
from tlbook import adaptation


@pytest.fixture
def rows():
    """Features of three groups of 30, 20 and 40 examples, correlated, with an offset and a scale of their own."""
    rng = np.random.default_rng(0)
    groups = np.repeat([7, 3, 5], [30, 20, 40])
    X = rng.normal(size=(90, 6)) @ rng.normal(size=(6, 6)) * (1 + groups[:, None]) + 10 * groups[:, None]
    order = rng.permutation(90)
    return X[order], groups[order]


def test_centring_takes_each_groups_own_mean(rows):
    X, groups = rows
    by_hand = np.stack(
        [
            x - np.mean([z for z, h in zip(X, groups, strict=True) if h == g], axis=0)
            for x, g in zip(X, groups, strict=True)
        ]
    )
    assert np.allclose(adaptation.centre(X, groups), by_hand)


def test_standardising_gives_every_feature_of_every_group_mean_0_and_deviation_1(rows):
    X, groups = rows
    Z = adaptation.standardise(X, groups)
    for g in np.unique(groups):
        assert np.allclose(Z[groups == g].mean(0), 0, atol=1e-9) and np.allclose(Z[groups == g].std(0), 1)


def test_a_feature_that_hardly_varies_in_a_group_is_not_enlarged_without_limit():
    X = np.random.default_rng(0).normal(size=(50, 4))
    X[:, 0] *= 1e-6
    Z = adaptation.standardise(X, np.zeros(50))
    assert np.abs(Z[:, 0]).max() < 1e-3 and np.allclose(Z[:, 1:].std(0), 1)
    assert np.array_equal(adaptation.standardise(np.ones((3, 2)), [0, 0, 1]), np.zeros((3, 2)))


def test_whitening_leaves_no_correlation_in_any_group(rows):
    X, groups = rows
    Z = adaptation.whiten(X, groups, ridge=1e-9)
    for g in np.unique(groups):
        assert np.allclose(np.cov(Z[groups == g].T, bias=True), np.eye(6), atol=1e-4)


def test_whitening_is_the_inverse_root_of_the_covariance_with_its_ridge(rows):
    X, groups = rows
    for g in np.unique(groups):
        x = X[groups == g] - X[groups == g].mean(0)
        C = np.cov(x.T, bias=True)
        root = fractional_matrix_power(C + 0.1 * np.trace(C) / 6 * np.eye(6), -0.5)
        assert np.allclose(adaptation.whiten(X, groups)[groups == g], x @ root)


def test_coral_gives_the_source_the_mean_and_covariance_of_the_target(rows):
    X, groups = rows
    source, target = X[groups != 5], X[groups == 5]
    aligned = adaptation.coral(source, target, ridge=1e-9)
    assert np.allclose(aligned.mean(0), target.mean(0))
    assert np.allclose(np.cov(aligned.T, bias=True), np.cov(target.T, bias=True), rtol=1e-4, atol=1e-4)


def test_coral_is_the_formula_of_the_paper_on_features_of_variance_one(rows):
    X, groups = rows
    source, target = (x - x.mean(0) for x in (X[groups != 5], X[groups == 5]))
    source, target = source / source.std(0), target / target.std(0)
    of_source, of_target = (np.cov(x.T, bias=True) + np.eye(6) for x in (source, target))
    paper = source @ fractional_matrix_power(of_source, -0.5) @ fractional_matrix_power(of_target, 0.5)
    assert np.allclose(adaptation.coral(source, target), paper)


def test_coral_of_a_domain_onto_itself_changes_nothing(rows):
    assert np.allclose(adaptation.coral(rows[0], rows[0]), rows[0])


def test_adabn_normalises_each_group_by_its_own_photographs_and_leaves_the_backbone_alone():
    data = tl.data.solar_cells(32).subset(range(90))  # panels 0 and 1: 60 and 30 cells
    torch.manual_seed(0)
    backbone = tl.load_backbone()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    found = tl.adaptation.adabn(backbone, data, stages=("stem",))
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())

    # by hand: the first convolution, its channels standardised over the group, the layer's own scale and shift, ReLU6
    norm, x = backbone.model.bn1, backbone.prepare([data[i][0] for i in range(60, 90)])
    with torch.no_grad():
        z = backbone.model.conv_stem(x)
        z = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), correction=0, keepdim=True) + norm.eps).sqrt()
        z = (z * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(0, 6).mean((2, 3))
    assert np.allclose(found.X[60:], z.cpu(), atol=1e-3)
    assert np.array_equal(found.y, data.labels) and np.array_equal(found.groups, data.groups)


@pytest.mark.parametrize("adapt", [adaptation.centre, adaptation.standardise, adaptation.whiten])
def test_a_group_of_one_class_loses_its_class(adapt):
    rng = np.random.default_rng(0)
    healthy, defective = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) + [5, 0, 0]
    Z = adapt(np.concatenate([healthy, defective]), np.repeat([0, 1], 40))
    assert np.abs(Z[:40].mean(0) - Z[40:].mean(0)).max() < 1e-9


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: adaptation.centre(np.ones(3), [0, 0, 0]), r"shape \(N, D\), got \(3,\)"),
        (lambda: adaptation.centre(np.ones((3, 2)), [0, 0]), "for each of the 3 examples"),
        (lambda: adaptation.whiten([[1.0, np.nan]], [0]), "finite, got nan in row 0"),
        (lambda: adaptation.whiten(np.ones((3, 2)), [0, 0, 0], ridge=0), "ridge must be above 0"),
        (lambda: adaptation.coral(np.ones((3, 2)), np.ones((3, 3))), "same features, got 2 and 3"),
        (
            lambda: adaptation.adabn(None, tl.data.from_dataset([(torch.zeros(1, 4, 4, dtype=torch.uint8), 0)])),
            "give groups=",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
