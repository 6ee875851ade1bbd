"""The running score card: what each method buys on panels that no one has labelled.

Two kinds of rows stand side by side: those that ship with the course (``recorded.json``, with command, commit, date and
hardware) and those that this reader's own cells produced, which live in the cache folder.
"""

import json
from pathlib import Path

from tlbook import cache
from tlbook.table import Table


def record(lesson, method, evaluation, *, trained):
    """Add a row to the reader's score card; the row of the same lesson and method is replaced.

    Args:
        lesson: its number, such as "03".
        method: a few words.
        evaluation: an `Evaluation` on held-out panels.
        trained: how many parameters were fitted.
    """
    row = {
        "lesson": lesson,
        "method": method,
        "AUC": round(evaluation.auc, 3),
        "AUC 95 %": "{:.2f} … {:.2f}".format(*evaluation.interval["auc"]),
        "balanced accuracy": round(evaluation.balanced_accuracy, 3),
        "trained": int(trained),
    }
    rows = [old for old in _own_rows() if (old["lesson"], old["method"]) != (lesson, method)]
    with cache.atomic(_own()) as part:
        part.write_text(json.dumps([*rows, row], indent=1), encoding="utf-8")


def scorecard():
    """Show the recorded rows and the reader's own, by lesson.

    Returns:
        Table of whose, lesson, method, AUC with its interval, balanced accuracy, trained parameters.
    """
    recorded = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))
    shipped = [{"whose": f"recorded {recorded['date']}"} | row for row in recorded["rows"]]
    own = [{"whose": "yours"} | row for row in _own_rows()]
    return Table(sorted(shipped + own, key=lambda row: (row["lesson"], row["method"], row["whose"])))


def _own():
    return cache.folder() / "scorecard.json"


def _own_rows():
    return json.loads(_own().read_text(encoding="utf-8")) if _own().exists() else []
