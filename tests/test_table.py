"""Tables: numbers to the right, the same decimals down a column, as text and as HTML."""

import re

import numpy as np
import pytest

import tlbook as tl
from tlbook.table import Table, apart_from

TABLE = Table(
    [
        {"method": "probe", "AUC": 0.9, "seconds": 2.25, "trained": 1281, "C": 1e-05, "ready": True},
        {
            "method": "full <all>",
            "AUC": np.float32(0.86149),
            "seconds": 39.0,
            "trained": 3400000,
            "C": 1.0,
            "ready": False,
        },
    ]
)


def test_a_column_of_numbers_has_the_same_decimals_and_stands_to_the_right():
    lines = repr(TABLE).splitlines()
    assert lines[2].split()[1:4] == ["0.900", "2.2", "1,281"] and lines[3].split()[2:5] == [
        "0.861",
        "39.0",
        "3,400,000",
    ]
    assert len({line.index(text) + len(text) for line, text in zip(lines[2:], ("0.900", "0.861"), strict=True)}) == 1


def test_what_spans_many_powers_of_ten_keeps_its_own():
    assert "1e-05" in repr(TABLE) and "1e-05" in TABLE._repr_html_()
    assert "0.0001" in repr(Table([{"lr": 1e-4}, {"lr": 3e-4}])) and "nan" in repr(Table([{"loss": float("nan")}]))


def test_as_html_it_says_the_same_and_is_aligned():
    html = TABLE._repr_html_()
    assert re.findall(r"<td style='text-align:right[^>]*>([^<]*)", html) == [
        *("0.900", "2.2", "1,281", "1e-05"),
        *("0.861", "39.0", "3,400,000", "1"),
    ]
    assert "full &lt;all&gt;" in html and "overflow-x:auto" in html
    assert Table()._repr_html_() and repr(Table()) == ""


@pytest.mark.parametrize("auc", [0.74, 0.8])
def test_a_mixed_column_shows_blanks_and_numbers(auc):
    assert f"{auc:.3f}" in repr(Table([{"AUC yours": ""}, {"AUC yours": auc}]))


def test_scores_and_comparisons_are_tables_in_a_notebook():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 200), np.repeat(np.arange(20), 10)
    p = np.clip(y * 0.2 + rng.random(200) * 0.8, 0, 1)
    a, b = (tl.evaluate(np.stack([1 - q, q], 1), y, groups=groups, reference=(y, groups)) for q in (p, rng.random(200)))
    html, text = a._repr_html_(), repr(a)
    for words in (
        f"{a.auc:.3f}",
        "{:.3f}".format(a.interval["auc"][1]),
        "group prior",
        "within-group AUC",
        "20 groups",
    ):
        assert words in html and words in text
    difference = tl.compare(a, b)
    assert f"{difference.difference:+.3f}" in difference._repr_html_() and "<table" in difference._repr_html_()


def test_names_that_are_taken_are_written_otherwise_and_no_two_are_one():
    assert apart_from(("class", "known"), ["a", "known"]) == ["a", "p(known)"]
    assert apart_from(("class", "known"), ["known", "p(known)"]) == ["p(p(known))", "p(known)"]
