"""What lesson 06 says of other seeds is what was recorded."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_table_of_seeds_is_the_recorded_one():
    text = (ROOT / "notebooks" / "06_worked_example.ipynb").read_text(encoding="utf-8")
    recorded = json.loads((ROOT / "benchmarks/results/lesson_06.json").read_text(encoding="utf-8"))
    for name in ("five steps", "LP-FT"):
        row = recorded[name]
        seeds = ", ".join(f"{auc:.3f}" for auc in row["AUC of each seed"])
        assert f"| {seeds} | {row['mean']:.3f} | {row['standard deviation over seeds']:.3f} |" in text
    gain = recorded["LP-FT − five steps"]
    assert f"The difference of the means is {gain['mean']:.3f} (before rounding)." in text
    for what, given in (("panels", "five seeds"), ("seeds", "panels")):
        low, high = (f"{end:.3f}".replace("-", "−") for end in gain[f"interval over {what}"])
        assert f"Over {what}, with these {given} as they are, it is {low} to {high}." in text


@pytest.mark.prove
def test_a_recorded_seed_comes_out_again():
    import lesson_06 as benchmark

    recorded = json.loads((ROOT / "benchmarks/results/lesson_06.json").read_text(encoding="utf-8"))
    found = benchmark.run(1)
    for name in ("five steps", "LP-FT"):
        assert found[name]["AUC"] == pytest.approx(recorded[name]["AUC of each seed"][1], abs=0.03)
