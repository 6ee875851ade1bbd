"""The score card: the reader's own rows beside the recorded ones."""

import json
import re
from pathlib import Path

import nbformat
import pytest

import tlbook as tl
from tlbook.course import score_card

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def own_card(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))
    return lambda: [row for row in tl.scorecard() if row["AUC yours"] != ""]


@pytest.fixture
def evaluation():
    return tl.evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])


def test_a_recorded_row_comes_back_with_its_scores(own_card, evaluation):
    assert own_card() == []
    tl.record("03", "a new method", evaluation, trained=1281, seconds=2.0)
    (row,) = own_card()
    assert (row["lesson"], row["method"], row["trained"], row["seconds"]) == ("03", "a new method", 1281, 2.0)
    assert row["AUC yours"] == round(evaluation.auc, 3) and row["AUC recorded"] == ""


def test_the_same_method_of_the_same_lesson_is_replaced_and_rows_go_by_lesson(own_card, evaluation):
    for lesson, trained in (("03", 1), ("00", 2), ("03", 3)):
        tl.record(lesson, "a new method", evaluation, trained=trained, seconds=1)
    assert [(row["lesson"], row["trained"]) for row in own_card()] == [("00", 2), ("03", 3)]
    assert "a new method" in repr(tl.scorecard()) and "<table>" in tl.scorecard()._repr_html_()


def test_the_readers_row_stands_beside_the_recorded_one(own_card, evaluation):
    theirs = tl.scorecard()[0]
    tl.record(theirs["lesson"], theirs["method"], evaluation, trained=5, seconds=1)
    (row,) = own_card()
    assert row["AUC recorded"] == theirs["AUC recorded"] and row["AUC yours"] == round(evaluation.auc, 3)
    assert row["trained"] == 5 and len(tl.scorecard()) == len(json.loads(score_card.RECORDED.read_text())["rows"])


def test_a_lesson_shows_no_rows_of_later_ones(own_card):
    assert {row["lesson"] for row in tl.scorecard(until="03")} == {"00", "01", "02", "03"}
    assert {row["lesson"] for row in tl.scorecard()} == {"00", "01", "02", "03", "04", "05", "06", "08"}


def test_the_rows_that_ship_are_what_the_stored_lessons_show(own_card):
    """Each lesson's stored table has the recorded AUC of its own rows, but for what another number of threads changes.

    Trained networks differ by that; what only runs and solves differs in the last digit.
    """
    for path in LESSONS:
        shown = "".join(
            output["data"]["text/plain"]
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", ())
            if "AUC recorded" in output.get("data", {}).get("text/plain", "")
        )
        for row in tl.scorecard():
            if row["lesson"] == path.name[:2] and shown:  # lesson 02 shows no card
                line = next(
                    line for line in shown.splitlines() if f"{row['lesson']}  " in line and row["method"] in line
                )
                yours = re.findall(r"0\.\d+", line.split(row["method"])[1])[:2]
                assert min(abs(float(auc) - row["AUC recorded"]) for auc in yours) < 0.02, (line, row["AUC recorded"])
