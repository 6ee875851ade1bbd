"""What lessons 01, 02 and 03 assert fails when there is nothing to transfer: random weights, shuffled labels."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.feature_extraction import Features

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def cells_of(lesson, *beginnings):
    """The sources of a lesson's code cells that hold these words."""
    cells = nbformat.read(next(NOTEBOOKS.glob(f"{lesson}_*.ipynb")), 4).cells
    found = [next(c.source for c in cells if c.cell_type == "code" and words in c.source) for words in beginnings]
    return "\n".join(found)


@pytest.fixture(scope="module")
def data():
    return tl.data.solar_cells(96)


@pytest.fixture(scope="module")
def judged(data):
    """features, labels, by, C -> an evaluation of the probe over four folds."""

    def judged(features, labels=data.labels, by="group", C=None):
        features = Features(features.X, labels, data.groups, features.blocks)
        p = tl.cross_val_predict(features, data.folds(k=4, by=by, seed=0), C=C)
        return tl.evaluate(p, labels, groups=data.groups)

    return judged


@pytest.fixture(scope="module")
def untrained(data):
    torch.manual_seed(0)
    return tl.extract(tl.load_backbone(weights=None), data, stages=["blocks.1", "final"], precision="float32")


@pytest.fixture(scope="module")
def shuffled(data):
    return np.random.default_rng(0).permutation(data.labels)


@pytest.fixture(scope="module")
def lead(data):
    """features, labels -> lesson 01's lead with all labelled panels, by its own code cells, with half of the steps.

    The mean over the four folds of the AUC of the probe minus that of the network from scratch.
    """
    scope = {"tl": tl, "np": np, "torch": torch, "nn": torch.nn, "data": data, "small": data, "__name__": "lesson"}
    exec(cells_of("01", "def network", "def train", "def predict", "def scratch"), scope)
    scope["STEPS"] = (50, 100, 200)

    def lead(features, labels):
        scope["labels"], scope["data"], gaps = torch.tensor(labels), replace(data, labels=labels), []
        for draw, fold in enumerate(data.folds(k=4, repeats=3, seed=0)[:4]):
            order = np.random.default_rng(draw).permutation(np.unique(data.groups[fold.train]))
            _, p = scope["scratch"](order, fold, draw)
            probe = tl.linear_probe(replace(features, y=labels), fold)
            gaps.append(
                probe.evaluate(replace(features, y=labels), fold.test).auc
                - tl.evaluate(p, labels[fold.test], resamples=2).auc
            )
        return float(np.mean(gaps))

    return lead


def test_lesson_01_pretrained_features_lead_a_start_from_scratch_only_where_there_is_something_to_transfer(
    data, lead, solar_features, untrained
):
    assert lead(solar_features.select("final"), data.labels) > 0.01
    assert not lead(untrained.select("final"), data.labels) > 0.01


def test_lesson_01_a_recorded_row_comes_out_again_and_the_record_says_what_the_lesson_does(data, solar_features):
    root = NOTEBOOKS.parent / "benchmarks"
    import lesson_01 as benchmark

    rows = json.loads((root / "results" / "lesson_01.json").read_text(encoding="utf-8"))["rows"]
    row = next(row for row in rows if (row["who"], row["draw"], row["panels"]) == ("pretrained", 4, 16))
    fold = data.folds(k=4, repeats=3, seed=0)[4]
    again = benchmark.fit(data, solar_features.select("final"), None, 4, 16, fold, "pretrained")
    assert again["AUC"] == pytest.approx(row["AUC"], abs=0.01)

    def aucs(who, n):
        return {row["draw"]: row["AUC"] for row in rows if (row["who"], row["panels"]) == (who, n)}

    for n in (16, 33):
        mine, theirs = aucs("pretrained", n), aucs("small", n)
        assert np.mean([mine[draw] - theirs[draw] for draw in theirs]) > 0.02


def test_lesson_02_an_early_probe_needs_the_preparation_that_it_was_fitted_on(data, solar_features, shuffled):
    backbone = copy.deepcopy(tl.load_backbone())
    backbone.mean, backbone.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    prepared_rightly = solar_features.select("blocks.1")
    prepared_wrongly = tl.extract(backbone, data, stages=["blocks.1"], precision="float32")

    def cost(labels):
        right, wrong = np.zeros((2, len(data), 2))
        for fold in data.folds(k=4, seed=0):
            probe = tl.linear_probe(replace(prepared_rightly, y=labels), fold, folds=2)
            right[fold.test] = probe.predict_proba(prepared_rightly.X[fold.test])
            wrong[fold.test] = probe.predict_proba(prepared_wrongly.X[fold.test])
        return tl.compare(*(tl.evaluate(p, labels, groups=data.groups) for p in (wrong, right)))

    assert cost(data.labels).interval[1] < 0
    assert not cost(shuffled).interval[1] < 0


def test_lesson_03_late_features_beat_early_ones_only_where_there_is_something_to_transfer(
    judged, solar_features, untrained, shuffled
):
    def late_minus_early(features, **options):
        return tl.compare(judged(features.select("final"), **options), judged(features.select("blocks.1"), **options))

    assert not late_minus_early(untrained).interval[0] > 0
    assert not late_minus_early(solar_features, labels=shuffled).interval[0] > 0
    small = late_minus_early(solar_features).interval  # that it holds at 160 px the lesson shows; here are 96
    assert small[0] < 0 < small[1]


def test_lessons_01_and_03_a_random_split_flatters_only_where_there_is_something_to_know(
    judged, solar_features, shuffled
):
    final = solar_features.select("final")
    assert tl.compare(judged(final, by="random"), judged(final)).interval[0] > 0
    assert not tl.compare(judged(final, shuffled, by="random"), judged(final, shuffled)).interval[0] > 0


def test_lesson_03_at_a_given_C_limiting_silent_units_helps_on_unseen_panels_unless_labels_are_shuffled(
    judged, solar_features, shuffled
):
    limited = solar_features.select("final")
    units = {f"unit {k}": slice(k, k + 1) for k in range(limited.X.shape[1])}
    usual = Features(limited.X, limited.y, limited.groups, units)  # no unit is below a tenth of itself: no limit

    def gain(**options):
        return tl.compare(judged(limited, C=1e-3, **options), judged(usual, C=1e-3, **options))

    assert gain().interval[0] > 0
    assert abs(gain(by="random").difference) < 0.01
    assert not gain(labels=shuffled).interval[0] > 0
