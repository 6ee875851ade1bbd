"""The running score card: what each method buys on panels that no one has labelled.

What the course recorded when it was last run as a whole (``recorded.json``, with command, commit, date and hardware)
stands beside what this reader's own cells measured, which lives in the cache folder.
"""

import json
from pathlib import Path

from tlbook import cache
from tlbook.table import Table

RECORDED = Path(__file__).with_name("recorded.json")


def record(lesson, method, evaluation, *, trained, seconds):
    """Add a row to the reader's score card; the row of the same lesson and method is replaced.

    Args:
        lesson: its number, such as "03".
        method: a few words.
        evaluation: an `Evaluation` on held-out panels.
        trained: how many parameters were fitted.
        seconds: how long a fit took, what is cached left out.
    """
    row = {
        "lesson": lesson,
        "method": method,
        "AUC": round(evaluation.auc, 3),
        "AUC 95 %": "{:.2f} … {:.2f}".format(*evaluation.interval["auc"]),
        "balanced accuracy": round(evaluation.balanced_accuracy, 3),
        "bal. acc. 95 %": "{:.2f} … {:.2f}".format(*evaluation.interval["balanced_accuracy"]),
        "trained": int(trained),
        "seconds": round(seconds, 1),
    }
    rows = [old for old in own_rows() if (old["lesson"], old["method"]) != (lesson, method)]
    with cache.atomic(_own()) as part:
        part.write_text(json.dumps([*rows, row], indent=1, ensure_ascii=False), encoding="utf-8")


def scorecard(until=None):
    """Show the reader's rows beside the recorded ones, by lesson.

    Args:
        until: the number of the last lesson to show, such as "03"; all of them when None.

    Returns:
        Table of lesson, method, AUC as recorded and as this reader measured it ("" where there is none), and of the
        reader's row, or else the recorded one: the 95 % intervals, balanced accuracy, trained parameters, seconds a
        fit.
    """
    recorded, own = ({(row["lesson"], row["method"]): row for row in rows} for rows in (_recorded(), own_rows()))
    table = Table()
    for lesson, method in sorted(recorded.keys() | own.keys()):
        theirs, mine = recorded.get((lesson, method)), own.get((lesson, method))
        if until is None or lesson <= until:
            aucs = {"AUC recorded": theirs["AUC"] if theirs else "", "AUC yours": mine["AUC"] if mine else ""}
            rest = {name: value for name, value in (mine or theirs).items() if name not in ("lesson", "method", "AUC")}
            table.append({"lesson": lesson, "method": method} | aucs | rest)
    return table


def own_rows():
    """The reader's rows, in the order in which they were measured."""
    return json.loads(_own().read_text(encoding="utf-8")) if _own().exists() else []


def _recorded():
    return json.loads(RECORDED.read_text(encoding="utf-8"))["rows"]


def _own():
    return cache.folder() / "scorecard.json"
