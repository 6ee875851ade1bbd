"""Bets: kept before the answer, judged after it, and in nobody's way."""

import pytest

import tlbook as tl


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))


def test_a_bet_is_judged_once_the_answer_is_known(capsys):
    tl.bet("01.1", 0.7, 0.8)
    assert len(tl.bets()) == 0
    tl.outcome("01.1", 0.75)
    assert "it held" in capsys.readouterr().out and tl.bets()[0]["held"]


@pytest.mark.parametrize("value, says", [(0.861, "0.061 too low"), (0.5, "0.2 too high")])
def test_a_missed_bet_says_by_how_much(value, says, capsys):
    tl.bet("01.1", 0.7, 0.8)
    tl.outcome("01.1", value)
    assert says in capsys.readouterr().out and not tl.bets()[0]["held"]


def test_a_bet_changes_before_the_answer_and_not_after_it(capsys):
    tl.bet("01.1", 0.1, 0.2)
    tl.bet("01.1", 0.7, 0.8)
    tl.outcome("01.1", 0.861)
    tl.bet("01.1", 0.86, 0.87)
    assert "your 0.7 to 0.8 stands" in capsys.readouterr().out
    tl.outcome("01.1", 0.75)  # run once more, on another machine's numbers
    assert [(row["from"], row["to"], row["answer"]) for row in tl.bets()] == [(0.7, 0.8, 0.861)]


def test_nothing_breaks_when_nobody_bets(capsys):
    tl.bet("01.1", ..., ...)
    assert "in place of the dots" in capsys.readouterr().out
    tl.outcome("01.1", 0.861)
    assert "0.861 (no bet)" in capsys.readouterr().out
    assert len(tl.bets()) == 0 and "No bets yet" in repr(tl.bets()) and "No bets yet" in tl.bets()._repr_html_()


@pytest.mark.parametrize("held, says", [(2, "too narrow"), (8, "within the luck"), (20, "could be narrower")])
def test_calibration_is_judged_beside_luck(held, says):
    n = 10 if held < 10 else 20
    for i in range(n):
        tl.bet(f"01.{i}", 0, 1)
        tl.outcome(f"01.{i}", 0.5 if i < held else 2)
    assert tl.bets().share == held / n
    assert says in repr(tl.bets()) and f"{held} of {n} bets" in tl.bets()._repr_html_()


@pytest.mark.parametrize("bounds", [(0.8, 0.7), (float("nan"), 1), (0, float("inf"))])
def test_bounds_that_are_no_interval_are_refused(bounds):
    with pytest.raises(ValueError, match="low ≤ high"):
        tl.bet("01.1", *bounds)


@pytest.mark.parametrize("number", ["1", "lesson 3", "031"])
def test_a_number_that_names_no_lesson_is_refused(number):
    with pytest.raises(ValueError, match="like '03.2'"):
        tl.bet(number, 0, 1)
