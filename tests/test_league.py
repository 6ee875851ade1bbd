"""The league is what its fits said of every cell, and one of its fits can be made again."""

import json
from pathlib import Path

import numpy as np
import pytest

import tlbook as tl
from tlbook.course.league import RECORD, forest, rows

FITS = Path(__file__).parents[1] / "benchmarks" / "results" / "league"
METHODS = ("probe", "head", "full", "full, L2-SP", "surgical", "gradual", "LP-FT", "LoRA", "from scratch")


@pytest.fixture(scope="module")
def data():
    return tl.data.solar_cells(64)


@pytest.fixture(scope="module")
def folds(data):
    return data.folds(2, by="group", val=0.2, seed=0)


def fit(name):
    return json.loads((FITS / f"{name}.json").read_text(encoding="utf-8"))


def chosen(method, fold, seed):
    """The fit of a method whose rate has the lowest loss on the validation panels, with the first seed."""
    if method == "probe":
        return fit(f"probe-{fold}")
    tried = {path.stem.rsplit("-", 1)[0]: fit(path.stem) for path in FITS.glob(f"{method}-{fold}-*-0.json")}
    assert len(tried) == 3
    return fit(f"{min(tried, key=lambda name: tried[name]['val loss'])}-{seed}")


@pytest.mark.parametrize("method", METHODS)
def test_each_row_is_what_its_fits_said_of_every_cell(method, data, folds):
    cells = np.concatenate([fold.test for fold in folds])
    assert np.array_equal(np.sort(cells), np.arange(len(data)))  # all 44 panels are held out once
    (row,) = (row for row in rows() if row["method"] == method)
    judged = []
    for seed in range(3):
        p = np.concatenate([chosen(method, k, seed)["p"] for k in range(2)])
        p = np.stack([1 - p, p], 1)
        judged.append(tl.evaluate(p, data.labels[cells], groups=data.groups[cells]))
    assert row["AUC of each seed"] == pytest.approx([e.auc for e in judged], abs=1e-9)
    assert row["AUC"] == pytest.approx(np.mean([e.auc for e in judged]), abs=1e-9)
    low, high = row["interval"]
    assert low < row["AUC"] < high
    if method == "probe":  # one fit, whatever the seed: its interval is that of any evaluation
        assert row["interval"] == pytest.approx(judged[0].interval["auc"], abs=2e-3)


def test_the_probe_made_again_says_of_every_cell_what_the_record_holds(data, folds):
    features = tl.extract(tl.load_backbone(), data, precision="float32")
    for k, fold in enumerate(folds):
        p = tl.linear_probe(features, fold).predict_proba(np.asarray(features.X[fold.test]))[:, 1]
        recorded = np.array(fit(f"probe-{k}")["p"])
        assert np.abs(p - recorded).max() < 0.02


def test_the_record_says_how_it_was_made():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert all(record[key] for key in ("command", "commit", "date", "hardware", "fitted on"))
    assert {row["method"] for row in record["table"]} == set(METHODS)


def test_the_figure_holds_every_method_the_best_first():
    table, (figure, said) = rows(), forest()
    assert [row["method"] for row in table] == [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [row["AUC"] for row in table] == sorted((row["AUC"] for row in table), reverse=True)
    assert all(f"{row['method']} {row['AUC']:.3f}" in said for row in table)
