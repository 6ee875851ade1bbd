"""What was found: findings in plain words, the worst first."""

from dataclasses import dataclass, field
from pathlib import Path

from tlbook.data import Dataset
from tlbook.table import Table

SERIOUS, LOOK = "serious", "look"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        check: which question it answers, in a word or two ("copies", "scenes", "facts", …).
        severity: "serious": the score would flatter, or cannot be believed. "look": worth a look.
        title: a sentence. text: what was measured, and what to do.
        worth: an AUC or a share, by which findings are sorted within their severity.
        examples: index pairs or singles to look at, the worst first.
    """

    check: str
    severity: str
    title: str
    text: str
    worth: float
    examples: list = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Suspicions:
    """What `suspect` found, the worst first.

    Attributes:
        findings: [Finding]
        facts: a row for each fact that is known without a pixel: what it says of the label, and how well features show
            it.
        scores: {name: AUC} of the classifier (linear probe), on examples it did not see: at random, and by groups.
        fine: what was asked and raised no suspicion, in words.
        data: the Dataset.
    """

    findings: list
    facts: Table
    scores: dict
    fine: list
    data: Dataset = field(repr=False)

    @property
    def serious(self):
        """The findings for which a score should not be believed."""
        return [finding for finding in self.findings if finding.severity == SERIOUS]

    def __repr__(self):
        lines = [f"{self.data!r}", ""]
        if not self.findings:
            lines += ["Nothing suspicious was found.", ""]
        for n, f in enumerate(self.findings, 1):
            lines += [f"{n}. {'SERIOUS' if f.severity == SERIOUS else 'Look'}: {f.title}", f"   {f.text}", ""]
        if self.facts:
            lines += ["AUC of the label from each fact alone, and of the fact from the features:", repr(self.facts), ""]
        lines += [f"{name}: AUC {auc:.3f}" for name, auc in self.scores.items()]
        lines += ["", "No suspicion: " + "; ".join(self.fine) + "."] if self.fine else []
        return "\n".join(lines)

    def save(self, path):
        """Write all of it as one HTML page with pictures, which needs no other file."""
        from tlbook.leaks.page import write_page

        write_page(self, Path(path))
