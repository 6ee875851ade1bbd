"""What lesson 04 asserts about transfer fails where there is nothing to transfer: random weights, shuffled labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.course.league import rows
from tlbook.training.recipes import LPFT


@pytest.fixture(scope="module")
def judged():
    """seed of random weights (None: pretrained), labels -> lesson 04's LP-FT, judged on the unseen panels."""
    cells = tl.data.solar_cells(64)
    split = cells.split(test=0.5, seed=0)

    def judged(seed, labels=cells.labels):
        data = tl.data.Dataset(cells.inputs, labels, cells.class_names, cells.groups)
        torch.manual_seed(seed or 0)
        backbone = tl.load_backbone() if seed is None else tl.load_backbone(weights=None)
        if seed is not None:
            tl.recalibrate_batchnorm(backbone, data, split.train[::2])
        recipe = LPFT(until="blocks.1")
        found = tl.finetune(backbone, data, split, recipe=recipe, epochs=3, lr=3e-4, augment="flips")
        return found.evaluate(data, split.test)

    return judged


def ahead(a, b):
    found = tl.compare(a, b)
    return a.auc > 0.7 and found.difference > 0.05 and found.interval[0] > 0


def test_lp_ft_is_not_ahead_of_random_weights_where_there_is_nothing_to_transfer(judged):
    """That it is ahead with pretrained weights and true labels the lesson asserts."""
    one, other = judged(0), judged(1)
    assert not ahead(one, other) and not ahead(other, one)
    shuffled = np.random.default_rng(0).permutation(tl.data.solar_cells(64).labels)
    assert not ahead(judged(None, shuffled), judged(0, shuffled))


def test_the_league_of_the_text_is_the_recorded_one():
    text = (Path(__file__).parents[1] / "notebooks" / "04_fine_tuning.ipynb").read_text(encoding="utf-8")
    for row in rows():
        assert "| {} | {:.3f} ({:.2f} … {:.2f}) |".format(row["method"], row["AUC"], *row["interval"]) in text
        for other in ("probe", "full"):
            if f"less {other}" in row and row["method"] != other:
                gap = row[f"less {other}"]
                words = "{:+.3f} ({:+.3f} … {:+.3f}) |".format(gap["AUC"], *gap["interval"])
                assert words.replace("-", "−") in text


RECORDED = Path(__file__).parents[1] / "benchmarks/results/probe_start.json"


def test_the_switches_of_the_text_are_the_recorded_ones():
    text = (Path(__file__).parents[1] / "notebooks" / "04_fine_tuning.ipynb").read_text(encoding="utf-8")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    for row in recorded["arms"]:
        assert "{:.3f} ({:.2f} … {:.2f})".format(row["AUC"], *row["interval"]) in text


@pytest.mark.prove
def test_one_recorded_arm_comes_out_again():
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    (row,) = [r for r in recorded["arms"] if r["probe start"] and r["BatchNorm held"] and r["head's rate"] == 1]
    data = tl.data.solar_cells(recorded["size"])
    fold = data.folds(2, by="group", val=0, seed=0)[0]
    how = {"epochs": recorded["epochs"], "lr": recorded["lr"], "augment": "flips", "seed": recorded["seeds"][0]}
    found = tl.finetune(tl.load_backbone(), data, fold, recipe=LPFT(head_multiplier=1.0), **how)
    auc = tl.evaluate(found.predict(data.subset(fold.test)), data.labels[fold.test], resamples=1).auc
    assert auc == pytest.approx(row["AUC of each half, first seed"][0], abs=0.02)
