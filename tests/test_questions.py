"""Multiple-choice questions: plain HTML that folds, so that they work on a static page; each choice is explained.

A markdown cell tagged ``questions`` holds them::

    *Question 1.* What does a probe train?

    <details><summary>A. The whole network</summary>No: the features are frozen; only the linear classifier on them is fitted.</details>
    <details><summary>B. A linear classifier</summary>Right: 1,281 numbers here, and nothing else.</details>
"""  # noqa: E501

import re
from pathlib import Path

import nbformat
import pytest

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
QUESTION = re.compile(r"^\*Question (\d+)\.\* ", re.MULTILINE)
CHOICE = re.compile(r"<details><summary>(\w)\. (.+?)</summary>(.*?)</details>", re.DOTALL)


def text_of(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if "questions" in cell.metadata.get("tags", ()))


def problems(text):
    """What is wrong with the questions in this text, in words."""
    _, *parts = QUESTION.split(text)
    numbers, bodies = parts[::2], parts[1::2]
    found, right_ones = [], []
    if not 4 <= len(bodies) <= 6 or numbers != [str(i + 1) for i in range(len(bodies))]:
        found.append(f"needs four to six questions, numbered from 1; has {numbers}")
    for number, body in zip(numbers, bodies, strict=True):
        choices = CHOICE.findall(body)
        right = [letter for letter, _, why in choices if why.strip().startswith("Right")]
        if [letter for letter, *_ in choices] != list("ABCDE")[: len(choices)] or len(choices) < 3:
            found.append(f"question {number} needs choices A, B, C …")
        if len(right) != 1:
            found.append(f"question {number} needs one choice whose explanation starts with 'Right'")
        if body.count("<details>") != len(choices) or any(len(why.split()) < 6 for *_, why in choices):
            found.append(f"question {number} has a choice without an explanation")
        right_ones += right
    if len(set(right_ones)) == 1:
        found.append("the right choice always has the same letter")
    return found


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_questions_whose_every_choice_is_explained(path):
    if path.stem == "11_project" and not text_of(path):
        pytest.skip("a template: the reader asks the questions")
    assert problems(text_of(path)) == []


def question(i, right="B"):
    why = {letter: "Right: that is so for two reasons." for letter in right}
    return f"*Question {i}.* What is it?\n\n" + "\n".join(
        f"<details><summary>{letter}. a choice</summary>{why.get(letter, 'No: for this good reason here.')}</details>"
        for letter in "ABC"
    )


GOOD = [question(1), question(2, "A"), question(3), question(4, "C")]
BAD = {
    "needs four to six": GOOD[:3],
    "question 2 needs one choice": [GOOD[0], question(2, ""), *GOOD[2:]],
    "question 3 needs one choice": [*GOOD[:2], question(3, "AB"), GOOD[3]],
    "question 1 has a choice without": [GOOD[0].replace("No: for this good reason here.", "No."), *GOOD[1:]],
    "question 1 needs choices": [GOOD[0].replace("A. a", "D. a"), *GOOD[1:]],
    "always has the same letter": [question(i) for i in range(1, 5)],
}


@pytest.mark.parametrize("words", BAD)
def test_a_question_that_breaks_a_rule_is_found_out(words):
    assert problems("\n\n".join(GOOD)) == []
    assert any(words in problem for problem in problems("\n\n".join(BAD[words])))
