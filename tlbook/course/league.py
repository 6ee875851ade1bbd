"""The league table: every method of the course at one size, on the same folds, with the same small search."""

import json
from pathlib import Path

RECORD = Path(__file__).with_name("league.json")  # written by benchmarks/league.py, with its command and commit


def rows():
    """The rows of the record, the best mean AUC first.

    AUC is the mean over training seeds on panels held out of training, with its interval over panels; "less probe" and
    "less full" are paired: the same panels drawn for both. What other seeds give is no part of an interval.
    """
    return sorted(json.loads(RECORD.read_text(encoding="utf-8"))["table"], key=lambda row: -row["AUC"])


def forest():
    """Draw the league: (figure, what it shows in words). On the left AUC, on the right the paired difference."""
    from tlbook import plots

    drawn = rows()
    figure, axes = plots.plt.subplots(
        1, 2, figsize=(7.2, 0.36 * len(drawn) + 1.1), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    for y, row in enumerate(drawn):
        for axis, value in ((axes[0], row), (axes[1], row.get("less probe"))):
            if value is not None:
                axis.plot(value["interval"], [y, y], color=plots.GREY, linewidth=2)
                axis.plot(value["AUC"], y, "o", color=plots.BLUE)
        seeds = row["AUC of each seed"]
        axes[0].plot(seeds, [y] * len(seeds), "|", color=plots.ORANGE, markersize=11, markeredgewidth=1.5)
    axes[0].set_yticks(range(len(drawn)), [row["method"] for row in drawn])
    axes[0].set(ylim=(len(drawn) - 0.5, -0.5), xlabel="AUC, 95 % over panels\n(strokes: each seed)")
    axes[1].axvline(0, color="black", linewidth=0.8)
    axes[1].set_xlabel("less the probe,\nthe same panels")
    said = "; ".join("{} {:.3f} ({:.2f} … {:.2f})".format(row["method"], row["AUC"], *row["interval"]) for row in drawn)
    return figure, f"The league as points with intervals, the best first: {said}."
