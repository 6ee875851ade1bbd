"""The bug hunt: each planted fault is there, and is found by its own evidence alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook.course import bug_hunt

APPENDIX = Path(__file__).parents[1] / "notebooks" / "appendix_bug_hunt.ipynb"


@pytest.fixture(scope="module")
def runs():
    """{(fault, seed): Run}; the fault of a sound run is None."""
    faults = [None, "double softmax", *bug_hunt.SUSPECTS]
    return {(fault, seed): bug_hunt._run(fault, seed) for fault in faults for seed in (0, 1)}


def test_each_fault_is_convicted_by_its_own_evidence_and_by_no_other(runs):
    for (fault, seed), run in runs.items():
        convicted = [name for name, evidence in bug_hunt.EVIDENCE.items() if evidence(run)]
        assert convicted == [fault] * (fault in bug_hunt.SUSPECTS), (fault, seed)


def test_the_eight_suspects_did_one_each():
    assert sorted(bug_hunt._FAULT_OF.values()) == sorted(bug_hunt.SUSPECTS) == sorted(bug_hunt.EVIDENCE)
    assert list(bug_hunt.suspects()) == list("ABCDEFGH")


def test_the_evidence_that_the_appendix_shows_convicts_the_double_softmax_alone(runs):
    nbformat = pytest.importorskip("nbformat", reason="reads the appendix: pip install nbformat")
    scope = {"tl": tl, "np": np}
    cells = nbformat.read(APPENDIX, 4).cells
    exec(next(c.source for c in cells if c.cell_type == "code" and "def evidence" in c.source), scope)
    for (fault, seed), run in runs.items():
        assert scope["evidence"](run) == (fault == "double softmax"), (fault, seed)


def test_what_a_sound_run_says_of_itself_is_so(runs):
    run = runs[None, 0]
    train, val, test = (set(run.data.groups[part]) for part in run.split)
    assert not (train & val or train & test or val & test)
    lowest = min(run.history, key=lambda row: row["val loss"])
    assert run.kept == lowest["epoch"]
    assert np.allclose(bug_hunt.answer(run, run.split.test), run.probabilities, atol=1e-5)
    z = run.model.head(torch.tensor(run.features).to(run.model.device)).detach().cpu()
    loss = torch.nn.functional.cross_entropy(z[run.split.val], torch.tensor(run.data.labels[run.split.val]))
    assert loss.item() == pytest.approx(lowest["val loss"], abs=1e-4)
    moved = [name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, run.start[name])]
    assert moved == ["model.classifier.weight", "model.classifier.bias"]


def test_a_sound_run_knows_something_of_unseen_panels_and_a_head_that_nothing_moved_does_not(runs):
    assert runs[None, 0].score.interval["auc"][0] > 0.5 > runs["forgotten head", 0].score.interval["auc"][0]
