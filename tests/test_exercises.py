"""Exercises: solutions pass, other right answers pass, and each misconception is told why it is wrong."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import tlbook as tl

# Of each exercise: other right answers, and wrong ones with words of the message each must get. All are Python
# expressions that may use np, torch, tl, and what the lesson has at hand: data and its split.
ANSWERS = {
    "00.1": (
        [
            "lambda p, y: max(t for t in p if (p[y == 1] >= t).mean() >= 0.9)",
            "lambda p, y: sorted(p[y == 1])[int(0.1 * y.sum() + 1e-9)]",
        ],
        {
            "lambda p, y: np.quantile(p, 0.1)": "looks at all cells",
            "lambda p, y: np.quantile(p[y == 1], 0.9)": "above it",
            "lambda p, y: np.quantile(p[y == 1], 0.5)": "at least 90 %",
            "lambda p, y: 0.0": "a higher threshold would",
        },
    ),
    "00.2": (
        [
            "lambda groups, split: sum(g in set(groups[split.train]) for g in groups[split.test]) / len(split.test)",
            "lambda groups, split: 1 - float((~np.isin(groups[split.test], groups[split.train])).mean())",
        ],
        {
            "lambda groups, split: np.isin(groups[split.test], groups[split.train])": "one number from 0 to 1",
            "lambda groups, split: np.isin(groups[split.test], groups[split.train]).sum()": "That counts them",
            "lambda groups, split: 100 * np.isin(groups[split.test], groups[split.train]).mean()": "in per cent",
            "lambda groups, split: (~np.isin(groups[split.test], groups[split.train])).mean()": "whose panel is new",
            "lambda groups, split: np.isin(split.test, split.train).mean()": "the test cells themselves",
            "lambda groups, split: np.isin(np.unique(groups[split.test]), groups[split.train]).mean()": (
                "the share of panels"
            ),
            "lambda groups, split: np.isin(groups[split.test], groups[split.train]).sum() / len(groups)": (
                "divides by all cells"
            ),
            "lambda groups, split: np.isin(groups[split.train], groups[split.test]).mean()": "*training* cells",
            "lambda groups, split: np.isin(groups[split.test], groups[np.r_[split.train, split.val]]).mean()": (
                "the validation cells"
            ),
            "lambda groups, split: 0.5": "random training cells it should be",
            "lambda groups, split: max(0.1, np.isin(groups[split.test], groups[split.train]).mean())": "should be 0",
        },
    ),
    "03.1": (
        [
            "lambda z: torch.nn.functional.adaptive_avg_pool2d(z, 2).permute(0, 2, 3, 1).flatten(1)",
            "lambda z: z.unflatten(3, (2, -1)).unflatten(2, (2, -1)).mean((3, 5)).permute(0, 2, 3, 1).flatten(1)",
        ],
        {
            "lambda z: z.mean((2, 3))": "one mean a channel",
            "lambda z: torch.nn.functional.adaptive_avg_pool2d(z, 2)": "flatten it",
            "lambda z: torch.nn.functional.adaptive_avg_pool2d(z, 2).flatten(1)": "the four of the first channel",
            "lambda z: torch.nn.functional.adaptive_avg_pool2d(z, 2).permute(0, 3, 2, 1).flatten(1)": "along the rows",
            "lambda z: z.mean((2, 3)).repeat(1, 4)": "the whole map, four times",
            "lambda z: torch.cat([z[:, :, i::2, j::2].mean((2, 3)) for i in (0, 1) for j in (0, 1)], 1)": (
                "every second position"
            ),
            "lambda z: torch.nn.functional.adaptive_max_pool2d(z, 2).permute(0, 2, 3, 1).flatten(1)": "the maximum",
            "lambda z: 6 * torch.nn.functional.adaptive_avg_pool2d(z, 2).permute(0, 2, 3, 1).flatten(1)": "the sum",
            "lambda z: z.flatten(1)": "should become (3, 20)",
            "lambda z: torch.nn.functional.adaptive_avg_pool2d(z, 2).tolist()": "should return a tensor",
            "lambda z: torch.cat([z[:, :, r, c].mean((2, 3)) for r in (slice(0, 2), slice(-2, None))"
            " for c in (slice(0, 3), slice(-3, None))], 1)": "other sizes too",
            "lambda z: torch.randn(3, 20)": "C means of each",
        },
    ),
    "03.2": (
        [
            "lambda train, test: tuple((x - train.mean(0)) / train.std(0, ddof=1) for x in (train, test))",
            "lambda train, test: (lambda s: (s.transform(train), s.transform(test)))("
            "__import__('sklearn.preprocessing').preprocessing.StandardScaler().fit(train))",
        ],
        {
            "lambda train, test: tuple((x - np.concatenate([train, test]).mean(0))"
            " / np.concatenate([train, test]).std(0) for x in (train, test))": "train and test together",
            "lambda train, test: tuple((x - x.mean(0)) / x.std(0) for x in (train, test))": "by themselves",
            "lambda train, test: tuple((x - train.mean()) / train.std() for x in (train, test))": "One mean",
            "lambda train, test: tuple(x - train.mean(0) for x in (train, test))": "not scaled",
            "lambda train, test: (train, test[:1])": "in the shapes they came in",
        },
    ),
}
HERE = Path(__file__).parent
MODULES = [import_module(path.stem) for path in sorted(HERE.glob("answers_*.py"))]  # answers longer than an expression
RIGHT = {number: answers for module in MODULES for number, answers in module.RIGHT.items()}
WRONG = {f"{answer[0]}, {name}": answer for module in MODULES for name, answer in module.WRONG.items()}
EXERCISES = {
    number: exercise
    for path in sorted(Path(tl.exercises.__file__).parent.glob("lesson_*.py"))
    for number, exercise in import_module(f"tlbook.course.exercises.{path.stem}").EXERCISES.items()
}


@pytest.fixture(scope="module")
def at_hand():
    data = tl.data.solar_cells()
    return {"np": np, "torch": torch, "tl": tl, "data": data, "split": data.split(seed=0)}


@pytest.fixture
def said(at_hand, capsys):
    """Return what `tl.check` prints about the answer that an expression makes."""

    def say(number, expression):
        tl.check(number, eval(expression, dict(at_hand)))
        return capsys.readouterr().out

    return say


def test_every_exercise_has_an_alternative_and_three_misconceptions_under_test():
    for number in EXERCISES:
        if number in ANSWERS:
            right, wrong = ANSWERS[number]
            assert len(right) >= 1 and len(set(wrong.values())) >= 3, number
        else:
            told = [words for exercise, _, words in WRONG.values() if exercise == number]
            assert len(RIGHT[number]) >= 1 and len(set(told)) >= 3, number


@pytest.mark.parametrize("number", RIGHT)
def test_a_right_answer_of_another_kind_passes(number, capsys):
    for answer in RIGHT[number]:
        tl.check(number, answer)
        assert capsys.readouterr().out == f"Exercise {number}: right.\n"


@pytest.mark.parametrize("misconception", WRONG)
def test_a_misconception_is_told_by_name(misconception, capsys):
    number, answer, words = WRONG[misconception]
    tl.check(number, answer)
    told = capsys.readouterr().out
    assert "not yet" in told and words in told


@pytest.mark.parametrize("number", EXERCISES)
def test_the_solution_that_is_shown_passes(number, at_hand, capsys):
    scope = dict(at_hand)
    tl.solution(number)
    exec(capsys.readouterr().out, scope)
    tl.check(number, scope["answer"])
    assert capsys.readouterr().out == f"Exercise {number}: right.\n"


@pytest.mark.parametrize("number, answer", [(n, a) for n, (right, _) in ANSWERS.items() for a in right])
def test_another_right_answer_passes(number, answer, said):
    assert said(number, answer) == f"Exercise {number}: right.\n"


@pytest.mark.parametrize(
    "number, answer, words", [(n, a, w) for n, (_, wrong) in ANSWERS.items() for a, w in wrong.items()]
)
def test_a_misconception_is_told_why_it_is_wrong(number, answer, words, said):
    message = said(number, answer)
    assert message.startswith(f"Exercise {number}: not yet.") and words in message


@pytest.mark.parametrize("number", EXERCISES)
def test_a_hint_helps_and_dots_ask_for_an_answer(number, capsys):
    tl.hint(number)
    assert len(capsys.readouterr().out) > 20
    tl.check(number, ...)
    assert f"tl.hint('{number}')" in capsys.readouterr().out


def test_an_error_that_has_nothing_to_do_with_unseen_panels_is_reported_as_it_is(capsys):
    tl.check("01.1", lambda labels, groups, train, test: 1 / 0)
    assert "raised ZeroDivisionError" in capsys.readouterr().out


def test_an_answer_that_raises_is_reported_not_raised(said):
    assert "your answer raised ZeroDivisionError" in said("03.1", "lambda z: 1 / 0")


@pytest.mark.parametrize("number, says", [("77.1", "no exercises for lesson '77'"), ("03.99", "lesson 03 has")])
def test_an_unknown_number_says_which_there_are(number, says):
    with pytest.raises(ValueError, match=says):
        tl.check(number, 1)


def test_where_asserts_are_taken_out_no_answer_is_called_right():
    code = "import tlbook as tl; tl.check('00.1', 0.5)"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "right." not in done.stdout
    assert "Python runs with -O" in done.stderr and "Start it without" in done.stderr
