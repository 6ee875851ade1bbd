"""What a search has tried: a row for each candidate, as it is printed, kept on the result and written to its folder."""

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
        note: why it was not judged, or "".
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
