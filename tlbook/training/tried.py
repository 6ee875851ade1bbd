"""What a search has tried: a row for each candidate, as it is kept on the result and written to its folder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """A row of what was tried.

    Attributes:
        name: what it was.
        log_loss, low, high: the mean over held-out examples and its 95 % interval (over groups, where there are any);
            None where it was not judged.
        auc: on the same examples.
        temperature: what its logits are divided by, 1 or more: what its held-out predictions ask for.
        seconds: what all its folds took.
        kept: whether it is the one that was kept.
        note: why it was not judged, or what half of the examples would have cost; "" of most.
    """

    name: str
    log_loss: float | None = None
    low: float | None = None
    high: float | None = None
    auc: float | None = None
    temperature: float = 1.0
    seconds: float = 0.0
    kept: bool = False
    note: str = ""


def width_in_words(low, high, between):
    """An interval; or, where all losses are the least that so few examples can tell, that these tell none."""
    return "too few to tell" if low == high else f"{low:.3f}{between}{high:.3f}"


def card_of_tried(rows, markdown):
    """Lines of a saved model's card: what was tried (as dicts), on which evidence one was kept. markdown: escapes."""
    if not rows:
        return []
    lines = ["## What was tried", "", "Each was judged on training and validation examples that it was not fitted to."]
    lines += ["", "| | log loss | 95 % interval | AUC | seconds |", "| --- | ---: | --- | ---: | ---: |"]
    for row in rows:
        name = f"**{markdown(row['name'])}** (kept)" if row["kept"] else markdown(row["name"])
        if row["log_loss"] is None:
            lines += [f"| {name} | {markdown(row['note'])} | | | |"]
            continue
        interval = width_in_words(row["low"], row["high"], " … ")
        auc = "–" if row["auc"] is None else f"{row['auc']:.3f}"  # the judged ones are of one class
        lines += [f"| {name} | {row['log_loss']:.3f} | {interval} | {auc} | {row['seconds']:.1f} |"]
    notes = [f"{row['name']}: {row['note']}." for row in rows if row["note"] and row["log_loss"] is not None]
    return [*lines, "", *(f"{markdown(note)}\n" for note in notes)]
