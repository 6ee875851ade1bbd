"""What lesson 07 and its appendix assert fails when there is nothing to transfer: shuffled labels, random weights."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.feature_extraction import Features
from tlbook.table import Table

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def cells_of(name, *words):
    """The sources of a notebook's code cells that hold these words."""
    cells = nbformat.read(next(NOTEBOOKS.glob(f"{name}*.ipynb")), 4).cells
    return "\n".join(next(c.source for c in cells if c.cell_type == "code" and w in c.source) for w in words)


@pytest.fixture(scope="module")
def random_features():
    torch.manual_seed(0)
    backbone = tl.load_backbone(weights=None)
    stages = ("blocks.1", "blocks.2", "blocks.4")
    return tl.extract(backbone, tl.data.solar_cells(96), stages=stages, precision="float32")


@pytest.fixture
def lesson(solar_features):
    """(labels, features) -> what the lesson's cells have at hand, and a function that runs more of them."""
    data = tl.data.solar_cells(96)

    def lesson(labels=None, features=solar_features):
        y = data.labels if labels is None else np.random.default_rng(0).permutation(data.labels)
        kind = data.columns["kind"]
        scope = {
            **{"tl": tl, "np": np, "torch": torch, "data": data, "y": y, "panel": data.groups, "kind": kind},
            **{k: np.flatnonzero(kind == k) for k in ("mono", "poly")},
            **{"features": features, "X": features.select("blocks.4").X.astype(float)},
        }
        scope |= {"adaptation": tl.adaptation, "Features": Features, "Table": Table}

        def run(*words, name="07"):
            exec(cells_of(name, *words), scope)
            return scope

        return run

    return lesson


def test_a_source_of_the_other_kind_does_worse_only_where_there_is_something_to_know(lesson):
    cells = ("def probe(", "def judge(", "pairs = {", 'tl.outcome("07.1"')
    lesson()(*cells)
    with pytest.raises(AssertionError):
        lesson("shuffled")(*cells)


def test_the_wrong_column_harms_and_the_right_one_helps_unless_labels_are_shuffled(lesson):
    cells = ("def probe(", "def judge(", "pairs = {", "def with_source(", "draws = [")
    lesson()(*cells)
    with pytest.raises(AssertionError):
        lesson("shuffled")(*cells)


def test_centring_by_panel_costs_only_where_panels_were_told_apart_by_their_share(lesson):
    def cost(run):
        scope = run("def probe(")
        X, y, panel = (scope[k] for k in ("X", "y", "panel"))
        p = {how: np.zeros((len(y), 2)) for how in ("as they are", "centred")}
        for fold in scope["data"].folds(k=4, seed=0):
            p["as they are"][fold.test] = scope["probe"](X, fold.train, fold.test, y)
            p["centred"][fold.test] = scope["probe"](tl.adaptation.centre(X, panel), fold.train, fold.test, y)
        after, before = (tl.evaluate(p[how], y, groups=panel) for how in ("centred", "as they are"))
        return tl.compare(after, before)

    assert cost(lesson()).interval[1] < -0.03
    assert not cost(lesson("shuffled")).interval[1] < -0.03


def test_a_panel_of_defective_cells_is_hidden_only_where_its_defects_were_found(lesson):
    cells = ("def probe(", "many = ")
    run = lesson()
    run("def probe(")["names"] = np.unique(run()["panel"])
    run(*cells)
    run = lesson("shuffled")
    run("def probe(")["names"] = np.unique(run()["panel"])
    with pytest.raises(AssertionError):
        run(*cells)


def test_the_panel_can_be_read_from_pretrained_features_better_than_from_random_ones(solar_features, random_features):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    part = tl.data.solar_cells(96).folds(k=4, by="random", seed=0)[0]

    def named(features, stage):
        X, panel = features.select(stage).X.astype(float), features.groups
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(X[part.train], panel[part.train])
        return lda.score(X[part.test], panel[part.test])

    for stage in ("blocks.2", "blocks.4"):
        assert named(solar_features, stage) > 0.6 > named(random_features, stage)


def test_logme_orders_the_candidates_unless_labels_are_shuffled(lesson, solar_features, random_features):
    found = {stage: solar_features.select(stage).X for stage in ("blocks.1", "blocks.2", "blocks.4")}
    found |= {f"{stage}, random": random_features.select(stage).X for stage in found}

    def order(run):
        run("def probe(")["candidates"] = found
        scope = run()
        scope["everything"] = np.arange(len(scope["y"]))
        reached, scores = run("def study(")["studies"]["defect"]
        return tl.ranking.agreement(scores["LogME"], reached)

    assert order(lesson()).interval[0] > 0.3
    assert not order(lesson("shuffled")).interval[0] > 0.3


def confident_learning(labels, p):
    """(N,) bool, as Northcutt et al. (2021), Confident learning, section 3.1, count label errors, example by example.

    A class is confident of an example if it gets at least its mean probability among the examples labelled with it; of
    several such classes the most probable one counts. The label is in error where that is another class.
    """
    threshold = [np.mean([q[k] for q, label in zip(p, labels, strict=True) if label == k]) for k in range(p.shape[1])]
    found = []
    for q, label in zip(p, labels, strict=True):
        confident = [k for k in range(len(q)) if q[k] >= threshold[k]]
        found.append(bool(confident) and max(confident, key=lambda k: q[k]) != label)
    return np.array(found)


def test_doubtful_labels_are_suspected_by_confident_learning_too_unless_labels_are_shuffled(solar_features):
    data = tl.data.solar_cells(96)
    f, given = solar_features.select("blocks.4"), data.columns["probability"]
    doubtful = ~np.isin(given, (0, 1))

    def told(y):
        """How much more often doubtful labels are suspected than sure ones of the same class; by both rules."""
        p, suspected = np.zeros((len(y), 2)), {}
        for fold in data.folds(k=4, seed=0):
            fitted = tl.linear_probe(
                Features(f.X, y, f.groups, f.blocks), tl.data.Split(fold.train, [], fold.test), C=0.01
            )
            p[fold.test] = fitted.predict_proba(f.X[fold.test])
        suspected["below one half, as in the appendix"] = 1 - p[np.arange(len(y)), y] > 0.5
        suspected["confident learning"] = confident_learning(y, p)
        defective = data.labels == 1
        return [s[defective & doubtful].mean() - s[defective & ~doubtful].mean() for s in suspected.values()]

    assert min(told(data.labels)) > 0.25
    assert max(told(np.random.default_rng(0).permutation(data.labels))) < 0.1
