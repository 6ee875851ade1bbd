"""Bets: the reader's guess before a code cell answers, and how well the guesses held, as in lesson 10.

A bet is an interval that should hold the answer four times in five. It is kept in the cache folder.
"""

import json

from scipy.stats import binom

from tlbook import cache
from tlbook.table import Table

SURE = 0.8  # how often a bet should hold


def bet(number, low, high):
    """Record a bet: you are 80 % sure that the answer to question ``number`` lies between ``low`` and ``high``.

    A bet may be changed until its outcome has been shown; then it stands. Without a bet a lesson runs all the same.

    Args:
        number: such as "03.2": the lesson, and the place in it. low, high: numbers; ``...`` means no bet.

    Raises:
        ValueError: a number that names no lesson, bounds that are not finite or in the wrong order.

    >>> import tlbook as tl
    >>> tl.bet("03.2", ..., ...)
    Bet 03.2: put two numbers in place of the dots, between which you are 80 % sure to find the answer.
    """
    number = _checked(number)
    if low is ... or high is ...:
        print(
            f"Bet {number}: put two numbers in place of the dots, between which you are 80 % sure to find the answer."
        )
        return
    low, high = float(low), float(high)
    if not -float("inf") < low <= high < float("inf"):
        raise ValueError(f"a bet needs two finite numbers, low ≤ high, got {low:g} and {high:g}")
    known, made = _read(), {"low": low, "high": high, "outcome": None}
    if number in known and known[number]["outcome"] is not None:
        print(f"Bet {number}: the answer has been shown, so your {_span(known[number])} stands.")
        return
    _write(known | {number: made})
    print(f"Bet {number}: {_span(made)}. Run the next code cell.")


def outcome(number, value):
    """Say the answer to question ``number``, and how close the reader's bet was; the first outcome is the one kept.

    Args:
        number: as given to `bet`. value: what was measured.
    """
    number, value, known = _checked(number), float(value), _read()
    made = known.get(number)
    if made is None:
        print(f"The answer to {number}: {value:.4g} (no bet)")
        return
    if made["outcome"] is None:
        made["outcome"] = value
        _write(known)
    print(f"The answer to {number}: {value:.4g}. Your bet was {_span(made)}: {_verdict(made | {'outcome': value})}")


def bets():
    """Return the reader's bets whose answer is known, with how many held: a `Bets` table, empty where there is none."""
    known = sorted((number, made) for number, made in _read().items() if made["outcome"] is not None)
    return Bets(
        {"bet": number, "from": made["low"], "to": made["high"], "answer": made["outcome"], "held": _holds(made)}
        for number, made in known
    )


class Bets(Table):
    """A row for each bet; ``share`` of them held, which should be about 0.8."""

    @property
    def share(self):
        """The share of bets that held the answer; NaN without bets."""
        return sum(row["held"] for row in self) / len(self) if self else float("nan")

    def __str__(self):
        n, held = len(self), sum(row["held"] for row in self)
        if not n:
            return "No bets yet. Wherever a lesson asks for one, two numbers in place of the dots are enough."
        if binom.cdf(held, n, SURE) < 0.05:
            verdict = "too few: your intervals are too narrow, you are surer than you should be"
        elif binom.sf(held - 1, n, SURE) < 0.05:
            verdict = "more than you claimed: your intervals could be narrower"
        else:
            verdict = f"within the luck of {n} bet{'s' * (n != 1)}"
        return f"{held} of {n} bets held the answer ({held / n:.0%}). You said 80 %: {verdict}."

    def __repr__(self):
        return f"{self}\n{super().__repr__()}" if self else str(self)

    def _repr_html_(self):
        return f"<p>{self}</p>{super()._repr_html_() if self else ''}"


def _checked(number):
    lesson, dot, place = str(number).partition(".")
    if not (len(lesson) == 2 and lesson.isdigit() and dot and place):
        raise ValueError(f"a bet has a number like '03.2', the lesson and the place in it; got {number!r}")
    return str(number)


def _span(made):
    return f"{made['low']:.4g} to {made['high']:.4g}"


def _holds(made):
    return made["low"] <= made["outcome"] <= made["high"]


def _verdict(made):
    low, high, value = made["low"], made["high"], made["outcome"]
    if _holds(made):
        return "it held."
    return f"{value - high:.3g} too low." if value > high else f"{low - value:.3g} too high."


def _file():
    return cache.folder() / "bets.json"


def _read():
    return json.loads(_file().read_text(encoding="utf-8")) if _file().exists() else {}


def _write(known):
    with cache.atomic(_file()) as part:
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")
