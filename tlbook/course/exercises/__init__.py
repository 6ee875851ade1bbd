"""Exercises that check themselves: ``tl.check("03.1", answer)``, ``tl.hint("03.1")``, ``tl.solution("03.1")``.

Each lesson has a module here with a dict EXERCISES of `Exercise`. A checker gets the answer and raises an
AssertionError that says *why* it is wrong; the misconceptions that it knows by name are tested.
"""

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Exercise:
    """``check(answer)`` raises AssertionError with the reason; ``solution`` is Python that defines ``answer``."""

    check: callable
    hint: str
    solution: str


def check(number, answer):
    """Say whether ``answer`` solves exercise ``number``, and if not, why.

    Args:
        number: such as "03.1".
        answer: what the exercise asks for; ``...`` means not answered yet.

    Raises:
        RuntimeError: Python runs with -O, which takes out the asserts that judge an answer.
    """
    if not __debug__:
        raise RuntimeError(
            "Python runs with -O (or PYTHONOPTIMIZE), which takes out the asserts that judge an answer: any would be "
            "called right. Start it without"
        )
    exercise = _find(number)
    if answer is ...:
        print(f"Exercise {number}: put your answer in place of the dots. Stuck? tl.hint({number!r})")
        return
    try:
        exercise.check(answer)
    except AssertionError as wrong:
        print(f"Exercise {number}: not yet. {wrong}")
    except Exception as error:  # whatever the reader's own code raises
        print(f"Exercise {number}: your answer raised {type(error).__name__}: {error}")
    else:
        print(f"Exercise {number}: right.")


def hint(number):
    """Print a hint for exercise ``number``."""
    print(_find(number).hint)


def solution(number):
    """Print one solution of exercise ``number``."""
    print(_find(number).solution.strip())


def _find(number):
    lesson = str(number).split(".")[0]
    try:
        exercises = import_module(f"tlbook.course.exercises.lesson_{lesson}").EXERCISES
    except ModuleNotFoundError:
        raise ValueError(f"no exercises for lesson {lesson!r}: numbers look like '03.1'") from None
    if number not in exercises:
        raise ValueError(f"no exercise {number!r}; lesson {lesson} has {', '.join(exercises)}")
    return exercises[number]
