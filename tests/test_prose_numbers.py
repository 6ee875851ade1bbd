"""Numbers that stay true: every number of two or more digits in a lesson's prose has a home.

A home is, rounded as the prose rounds it, a number in the stored outputs of the lesson or in its code; in the outputs
of a lesson that the same cell names ("lesson 03"); in a recorded result that it names (``benchmarks/results/x.json`` or
the program ``benchmarks/x.py``, which may keep it in tlbook/course); or a phrase in tlbook/course/facts.json, with the
reference it is from.
"""

import copy
import json
import re
from decimal import Decimal
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = {path: nbformat.read(path, as_version=4) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
FACTS = json.loads((ROOT / "tlbook" / "course" / "facts.json").read_text(encoding="utf-8"))
NUMBER = re.compile(r"(?<![\w./^{])(\d[\d,]*(?:\.\d+)?|\.\d+)(?![\w/]|\.\d)(\s?%)?")
NOT_PROSE = (
    r"```.*?```",  # code
    r"`[^`]*`",
    r"\]\([^)]*\)",  # where links lead
    r"https?://\S+",
    r"\[[^\]]*\](?=\(\S+ \"[a-z]+\d{4}[a-z]?\"\))",  # what cites a work
    r"\[[^\]]*\](?=\(\w+\.ipynb)",  # what names a lesson
    r"\*\*References\.\*\*.*",
    r"[Ll]essons? \d\d(?:(?:, | and | to |–)\d\d)*",
    r"\*\*\d\d\.\d+\*\*",  # the number of an exercise
    r"\b(?:EfficientNet-Lite|ResNet-|ImageNet-|Python |CC BY[-\w]* |Apache-)\d[\d.]*",
    r"\*About \d+ minutes?.*?\*",  # another test holds the minutes
    r"^\| (?:19|20)\d\d \|",  # the year of a history
)


def prose(source):
    """The source of a markdown cell without what is not said in words; what cites goes before what links."""
    source = source.replace("\u202f", "").replace("\u00a0", " ")
    for pattern in (*NOT_PROSE[:2], *NOT_PROSE[4:6], *NOT_PROSE[2:4], *NOT_PROSE[6:]):
        source = re.sub(pattern, " ", source, flags=re.DOTALL | re.MULTILINE)
    return source


def spoken(source):
    """[(as written, its value as Decimal, whether in per cent)] of the numbers of two or more digits."""
    found = [(match[0], match[1].rstrip(","), bool(match[2])) for match in NUMBER.finditer(prose(source))]
    values = [(written, Decimal(digits.replace(",", "")), percent) for written, digits, percent in found]
    return [each for each in values if len(re.sub(r"\D", "", each[0])) > 1]


def numbers_in(text):
    return {float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|\.\d+", text) if n}


def shown(notebook):
    """Every number in a lesson's stored outputs and in its code."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            texts.append(cell.source.replace("_", ""))
            for output in cell.outputs:
                data = output.get("data", {})
                texts += [output.get("text", ""), *(str(data.get(kind, "")) for kind in ("text/plain", "text/html"))]
                texts.append(str(output.get("metadata", {}).get("image/png", {}).get("alt", "")))
    return set().union(*(numbers_in(re.sub(r"base64,[^\"']*", "", text)) for text in texts))


def is_home(value, percent, numbers):
    """Whether one of the numbers, rounded to the decimals of the value, is the value."""
    half = 0.5 * 10.0 ** value.as_tuple().exponent + 1e-9
    scales = (1, 100) if percent else (1,)
    return any(abs(scale * number - float(value)) <= half for number in numbers for scale in scales)


def named_numbers(source):
    """The numbers of the lessons and the recorded results that a cell names."""
    found = set()
    for number in re.findall(r"(?:[Ll]essons? |\]\()(\d\d)", source):
        for path in NOTEBOOKS.glob(f"{number}_*.ipynb"):
            found |= shown(LESSONS[path])
    for path in re.findall(r"\]\((appendix_\w+\.ipynb)", source):
        found |= shown(LESSONS[NOTEBOOKS / path])
    for name in re.findall(r"benchmarks/(?:results/)?(\w+)\.(?:json|py)", source):
        for folder in (ROOT / "benchmarks" / "results", ROOT / "tlbook" / "course"):
            for path in folder.glob(f"{name}*.json"):
                found |= numbers_in(path.read_text(encoding="utf-8"))
    return found


def homeless(notebook):
    """The numbers of a lesson's prose that have no home, each with its cell."""
    own = shown(notebook)
    return [
        f"cell {i}: {written}"
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown"
        for written, value, percent in spoken(without_facts(cell.source))
        if not is_home(value, percent, own | named_numbers(cell.source))
    ]


def without_facts(source):
    """The source without the phrases of facts.json."""
    for fact in FACTS:
        source = re.sub(r"\s+".join(map(re.escape, fact["says"].split())), " ", source)
    return source


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_number_in_the_prose_has_a_home(path):
    assert homeless(LESSONS[path]) == []


def lesson(words, printed="AUC 0.8614, 2624 cells, 0.3129 defective", code="size = 96"):
    cell = nbformat.v4.new_code_cell(code, outputs=[nbformat.v4.new_output("stream", text=printed)])
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(words), cell])


@pytest.mark.parametrize(
    "words", ["AUC 0.861", "an AUC of .86", "2,624 cells", "31 % are defective", "31.3% of them", "96 pixels"]
)
def test_what_is_rounded_from_an_output_or_set_in_the_code_has_a_home(words):
    assert homeless(lesson(words)) == []


@pytest.mark.parametrize(
    "words, number",
    [
        ("AUC 0.862", "0.862"),
        ("2,642 cells", "2,642"),
        ("32 % of them", "32 %"),
        ("97 pixels", "97"),
        ("(0.8641)", "0.8641"),
    ],
)
def test_a_wrong_number_is_named(words, number):
    assert homeless(lesson(f"The cells. {words}.")) == [f"cell 0: {number}"]


def test_a_wrong_number_planted_in_a_lesson_is_named():
    for path, notebook in LESSONS.items():
        planted = copy.deepcopy(notebook)
        planted.cells[2].source += "\n\nIt reaches 0.86149327 with 7,654,329 of them."
        assert set(homeless(planted)) - set(homeless(notebook)) == {"cell 2: 0.86149327", "cell 2: 7,654,329"}, (
            path.stem
        )


def test_another_lesson_lends_its_numbers_only_where_it_is_named():
    (path,) = NOTEBOOKS.glob("00_*.ipynb")
    number = next(n for n in sorted(shown(LESSONS[path])) if n != int(n) and len(str(n)) == 5)
    assert homeless(lesson(f"It was {number}.")) == [f"cell 0: {number}"]
    assert homeless(lesson(f"In lesson 00 it was {number}.")) == []
    assert homeless(lesson(f"In [lesson 00](00_start_here.ipynb) it was {number}.")) == []


def test_what_is_no_prose_is_not_read():
    words = (
        '`seed=77` [Kumar et al., 2022](https://x.org/9876 "kumar2022") **03.12** ResNet-18 [04](04_x.ipynb) $10^{-4}$'
    )
    assert homeless(lesson(words)) == []


def test_a_fact_has_a_source_and_is_used():
    keys = json.loads((ROOT / "tlbook" / "course" / "references.json").read_text(encoding="utf-8"))
    said = " ".join(" ".join(c.source for n in LESSONS.values() for c in n.cells).split())
    for fact in FACTS:
        assert fact["source"] in keys or fact["source"].startswith("https://") or " " in fact["source"], fact
        assert fact["says"] in said, f"no lesson says {fact['says']!r} any more"
