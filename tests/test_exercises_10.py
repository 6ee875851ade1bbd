import pytest

import tlbook as tl
from tlbook.exercises.lesson_10 import EXERCISES

RIGHT = {"A": "yes", "B": "undecided", "C": "undecided", "D": "no"}

WRONG = {  # misconception -> (exercise, answer, words of its message)
    "features every epoch": ("10.1", lambda n, f, s, e: (e * n / f / 3600, e * n / s / 3600), "computed once"),
    "seconds": ("10.1", lambda n, f, s, e: (n / f, e * n / s), "an hour has"),
    "one epoch": ("10.1", lambda n, f, s, e: (n / f / 3600, n / s / 3600), "in every epoch"),
    "the forward rate": ("10.1", lambda n, f, s, e: (n / f / 3600, e * n / f / 3600), "forward and backward"),
    "one number": ("10.1", lambda n, f, s, e: n / f / 3600, "two numbers"),
    "level is ahead": ("10.2", RIGHT | {"B": "yes"}, "includes 0"),
    "a cause": ("10.2", RIGHT | {"C": "yes"}, "one by one"),
    "the wrong split": ("10.2", RIGHT | {"D": "yes"}, "another question"),
    "left out": ("10.2", {"A": "yes"}, "Judge all"),
    "another word": ("10.2", RIGHT | {"A": "maybe"}, "none of"),
}


@pytest.mark.parametrize("number", EXERCISES)
def test_the_solution_is_right(number, capsys):
    names = {}
    exec(EXERCISES[number].solution, names)
    tl.check(number, names["answer"])
    assert capsys.readouterr().out == f"Exercise {number}: right.\n"


@pytest.mark.parametrize("name", WRONG)
def test_a_misconception_is_told_by_name(name, capsys):
    number, answer, words = WRONG[name]
    tl.check(number, answer)
    said = capsys.readouterr().out
    assert "not yet" in said and words in said
