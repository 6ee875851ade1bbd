"""The teaching guide quotes the lessons: sections, wrong answers and bets stand there, and a poll holds the answer."""

import re
from pathlib import Path

import nbformat
import pytest

from tlbook.course import frame

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
NUMBERED = [path for path in frame.lessons() if path.name[0].isdigit()]
CHOICE = re.compile(r"<summary>[A-D]\. (.*?)</summary>\s*(\w+)")


def part(number):
    """The section of the guide on a lesson."""
    return re.search(rf"^## {number} .*?(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)[0]


def text(path, kind="markdown"):
    return "\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind)


def options(poll):
    """[(low, high)] of "below 0.6 · 0.6 to 0.8 · above 0.8"."""
    found = []
    for option in poll.replace("−", "-").split("·"):
        numbers = [float(x) for x in re.findall(r"-?[\d.]+", option)]
        low = float("-inf") if "below" in option else numbers[0]
        found.append((low, float("inf") if "above" in option else numbers[-1]))
    return found


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_each_lesson_has_a_path_and_its_minutes(path):
    guide, lesson = part(path.name[:2]), text(path)
    assert f"(notebooks/{path.name})" in guide
    (minutes,) = re.findall(r"\*About (\d+) minutes? of computing", lesson)
    assert re.search(rf"· {minutes} minutes? of computing", guide)
    spent = sum(map(int, re.findall(r"\((\d+)(?:[:,)])", guide.split("**45 minutes.**")[1].split("**Skip.**")[0])))
    assert 43 <= spent <= 46, spent


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_the_sections_that_the_guide_names_are_in_the_lesson(path):
    headings = {re.sub(r" \*\(yours\)\*$", "", h) for h in re.findall(r"^##+ (.*)$", text(path), re.MULTILINE)}
    way = part(path.name[:2]).split("**45 minutes.**")[1].split("| bet |")[0]
    for name in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", way):
        assert name in headings, name


def test_every_usual_topic_has_its_place_in_a_lesson():
    topics = re.search(r"## Where the usual topics stand.*?(?=^## )", GUIDE, re.MULTILINE | re.DOTALL)[0]
    places = re.findall(r"\]\((notebooks/\w+\.ipynb)\), “(.*?)”", topics)
    assert len(places) == 2 * topics.count("\n| ") - 4 > 30  # two a topic, none for the head of the table
    for name, heading in places:
        assert re.search(rf"^##+ {re.escape(heading)}$", text(ROOT / name), re.MULTILINE), (name, heading)


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_the_wrong_answers_are_wrong_ones_of_the_lesson(path):
    wrong = {choice for choice, verdict in CHOICE.findall(text(path)) if verdict == "No"}
    quoted = re.findall(r"“(.*?)”", part(path.name[:2]))
    assert set(quoted) <= wrong, set(quoted) - wrong
    assert len(quoted) >= 3 or not wrong


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_every_bet_has_a_poll_and_the_stored_answer_is_in_one_of_its_options(path):
    bets = set(re.findall(r'tl\.bet\("(\d\d\.\d)"', text(path, "code")))
    polls = dict(re.findall(r"^\| (\d\d\.\d) .*? \| (.*?) \|$", part(path.name[:2]), re.MULTILINE))
    assert bets <= polls.keys()
    cells = nbformat.read(path, as_version=4).cells
    printed = "".join(o.text for c in cells for o in c.get("outputs", ()) if o.output_type == "stream")
    for number, answer in re.findall(r"The answer to (\d\d\.\d): (-?[\d.e-]+)", printed):
        assert sum(low < float(answer) <= high for low, high in options(polls[number])) == 1, (number, answer)
