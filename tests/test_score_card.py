"""The score card: the reader's own rows beside the recorded ones."""

from pathlib import Path

import nbformat
import pytest

import tlbook as tl


@pytest.fixture
def own_card(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))
    return lambda: [row for row in tl.scorecard() if row["whose"] == "yours"]


@pytest.fixture
def evaluation():
    return tl.evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])


def test_a_recorded_row_comes_back_with_its_scores(own_card, evaluation):
    assert own_card() == []
    tl.record("03", "linear probe", evaluation, trained=1281)
    (row,) = own_card()
    assert (row["lesson"], row["method"], row["trained"]) == ("03", "linear probe", 1281)
    assert row["AUC"] == round(evaluation.auc, 3)


def test_the_same_method_of_the_same_lesson_is_replaced_and_rows_go_by_lesson(own_card, evaluation):
    tl.record("03", "linear probe", evaluation, trained=1)
    tl.record("00", "linear probe", evaluation, trained=2)
    tl.record("03", "linear probe", evaluation, trained=3)
    assert [(row["lesson"], row["trained"]) for row in own_card()] == [("00", 2), ("03", 3)]
    assert "linear probe" in repr(tl.scorecard()) and "<table>" in tl.scorecard()._repr_html_()


def test_the_rows_that_ship_are_what_the_stored_lessons_measured(own_card):
    stored = {}
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if "headline" in cell.metadata.get("tags", ()):
                stored[path.name[:2]] = cell.outputs[0].text
    recorded = [row for row in tl.scorecard() if row["whose"] != "yours"]
    assert recorded
    for row in recorded:
        if row["method"] == "linear probe, final features":
            assert f"{row['AUC']:.3f}" in stored[row["lesson"]]
