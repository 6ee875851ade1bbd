"""Links, references and glossary: what stands in the lessons is what their one source says."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LABELS = ("The question.", "You will be able to", "References.")
BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
OURS = re.compile(r"(?:git\+https://github\.com|google\.com/github|mybinder\.org/v2/gh)/([\w.-]+/[\w.-]+?)(?=[/\")]|$)")


def load(folder):
    """frame.py of this copy of the course."""
    spec = importlib.util.spec_from_file_location("frame", folder / "tlbook" / "course" / "frame.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


frame = load(ROOT)
LESSONS = {path: nbformat.read(path, as_version=4) for path in frame.lessons()}


def numbered():
    return {path: notebook for path, notebook in LESSONS.items() if path.name[0].isdigit()}


def text(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def bold(notebook):
    spans = BOLD.findall(re.sub(r"```.*?```|\$\$.*?\$\$", "", text(notebook), flags=re.DOTALL))
    return [span for span in spans if span not in LABELS and not re.fullmatch(r"\d\d\.\d+", span)]


def forms(entry):
    """The term of a glossary entry as it may stand in a sentence."""
    return {form.lower() for form in (entry["term"], *entry.get("also", ()))}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_frame_of_a_lesson_is_up_to_date(path):
    titles = {other.name: frame.title(notebook) for other, notebook in LESSONS.items()}
    assert frame.framed(path, titles) == LESSONS[path], "run: make links"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s#]+)", text(LESSONS[path])):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_work_is_cited_and_nobody_is_named_with_a_year_but_by_key():
    cited = {key for notebook in LESSONS.values() for key in frame.CITED.findall(text(notebook))}
    assert cited == set(frame.references())
    for path, notebook in LESSONS.items():
        body = text(notebook).split("**References.**")[0]
        plain = frame.CITED.sub("](", re.sub(r"\[[^\]]*\]\(\S+ \"\w+\"\)", "", body))
        assert not re.findall(r"[A-Z]\w+(?: et al\.| and [A-Z][\w. ]*\w)?,? \(?(?:19|20)\d\d[ab]?\)", plain), path.stem


def test_a_citation_names_its_author_and_year():
    works = frame.references()
    for notebook in LESSONS.values():
        for words, key in re.findall(r"\[([^\]]*)\]\(\S+ \"([a-z]+\d{4}[a-z]?)\"\)", text(notebook)):
            assert works[key]["authors"].split(",")[0] in words or str(works[key]["year"]) in words, (words, key)


def test_bold_words_are_the_terms_of_the_glossary_and_every_term_is_used():
    terms = {form: entry["term"] for entry in frame.glossary() for form in forms(entry)}
    used = set()
    for path, notebook in LESSONS.items():
        for span in bold(notebook):
            assert span.lower() in terms, f"{path.stem}: '{span}' is bold and not in glossary.json"
            used.add(terms[span.lower()])
    assert used == {entry["term"] for entry in frame.glossary()}


def test_a_term_is_explained_no_later_than_in_the_lesson_that_the_glossary_names():
    for entry in frame.glossary():
        first = next(
            frame.number(path) for path, lesson in LESSONS.items() if forms(entry) & {*map(str.lower, bold(lesson))}
        )
        assert first == entry["lesson"], entry["term"]


def test_the_glossary_page_has_every_term_from_english_and_from_chinese():
    page = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8")
    assert page == frame.glossary_page(), "run: make links"
    for entry in frame.glossary():
        assert f"| {entry['term']} | {entry['zh']} |" in page and f"| {entry['zh']} | {entry['term']} |" in page
    for name in re.findall(r"\]\(notebooks/(\w+\.ipynb)\)", page):
        assert (ROOT / "notebooks" / name).exists(), name


def test_every_lesson_has_a_chinese_abstract():
    for path, notebook in LESSONS.items():
        (abstract,) = re.findall(r"<summary>中文摘要</summary>(.*?)</details>", notebook.cells[0].source, re.DOTALL)
        assert len(re.findall(r"[\u4e00-\u9fff]", abstract)) > 60, path.stem


def test_the_figure_of_the_readmes_is_the_one_of_lesson_10():
    assert (ROOT / "notebooks" / "league.png").read_bytes() == frame.figure()


def test_both_readmes_name_the_same_commands():
    commands = [
        re.findall(r"```.*?```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
        for name in ("README.md", "README.zh.md")
    ]
    without_comments = [[re.sub(r" *#.*", "", block) for block in blocks] for blocks in commands]
    assert without_comments[0] == without_comments[1]


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_table_of_own_data_is_the_record(name):
    runs = json.loads((ROOT / "benchmarks/results/own_data.json").read_text(encoding="utf-8"))["runs"]
    runs = [run for run in runs if run["side"] == 64]
    said, arms = (ROOT / name).read_text(encoding="utf-8"), ("auto", "probe", "tutorial", "fastai")
    sets = {of: [run for run in runs if run["data"] == of] for of in dict.fromkeys(run["data"] for run in runs)}
    for rows in sets.values():
        accuracy = [np.mean([row[arm]["accuracy"] for row in rows]) for arm in arms]
        seconds = [np.median([row[arm]["seconds"] for row in rows]) for arm in arms]
        cells = " | ".join(f"{a:.2f} ({s:.0f} s)" for a, s in zip(accuracy, seconds, strict=True))
        assert f", {rows[0]['classes']}, {sum(rows[0]['examples'])} | {cells} |" in said
    gaps = {arm: [run[arm]["auto − it, accuracy"] for run in runs] for arm in arms[1:]}
    assert all(high >= 0 for of in gaps.values() for _, _, high in of)  # never clearly behind
    ahead = [sum(low > 0 for _, low, _ in of) for of in gaps.values()]
    numbers = re.findall(r"\d+", said[said.index(cells) :].split("\n\n")[1])
    assert {len(runs), *ahead} <= set(map(int, numbers))


def test_the_photographs_of_a_signer_are_one_group(monkeypatch):
    """Each showed 0 to 9; the files are numbered on, from any number, and now and then two are out of turn."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from small_data import signers

    shown = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] + [1, 0, 2, 3, 3, 5, 6, 7, 8, 9] + [4, 5, 6, 7, 8, 9]
    files = np.array([f"signs/{digit}/IMG_{1118 + i}.JPG" for i, digit in enumerate(shown)])
    turn = np.argsort(files)  # folder by folder
    assert signers(files[turn]).tolist() == np.repeat([0, 1, 2], [10, 10, 6])[turn].tolist()


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_tables_of_speed_are_the_records(name):
    said, folder = (ROOT / name).read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"
    record = json.loads((folder / "feature_extraction.json").read_text())
    speed, busy = record["images/s, median"], record["images/s beside a busy neighbour"]
    ways = [way.removesuffix(", JPEG files") for way in speed if way.endswith(", JPEG files")]
    assert len(ways) >= 5
    for way in ways:
        of = [f"{way}, {kind}" for kind in ("JPEG files", "12-megapixel JPEG files")]
        assert f" | {' | '.join(f'{speed[name]:,.0f} ({busy[name]:,.0f})' for name in of)} |" in said, way
    for way in (way for way in speed if "JPEG" not in way):
        assert re.search(rf"\b{speed[way]:,.0f}\b", said), way
    for shape in json.loads((folder / "probes.json").read_text(encoding="utf-8"))["shapes"].values():
        cells = " | ".join(f"{np.median(shape['seconds'][who]):.1f} s" for who in ("tlbook", "scikit-learn"))
        assert f" | {cells} | {shape['ratio']:.1f} |" in said


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_table_of_fine_tuning_follows_from_the_epochs(name):
    """How long until both are as good on the test part as the worse of the two is where validation ended it?"""
    said = (ROOT / name).read_text(encoding="utf-8")
    record = json.loads((ROOT / "benchmarks/results/fine_tuning_peers.json").read_text())
    epochs = record["epochs"]

    def end(fit):
        return min(fit, key=lambda row: row["val loss"])["test AUC"]

    def first(fit, level):
        return min(row["seconds"] for row in fit if row["test AUC"] >= level)

    for which in ("tutorial", "fastai", "timm"):
        cells = []
        for of in ("solar", "signs"):
            pairs = list(zip(epochs[f"{of}, tlbook"], epochs[f"{of}, {which}"], strict=True))
            times = [first(b, min(end(a), end(b))) / first(a, min(end(a), end(b))) for a, b in pairs]
            cells += [f"{np.mean([end(b) for _, b in pairs]):.2f}"]
            cells += [f"× {np.median(times):.1f} ({min(times):.1f}–{max(times):.1f})"]
        assert f" | {' | '.join(cells)} |" in said, which
    ours = [np.mean([end(fit) for fit in epochs[f"{of}, tlbook"]]) for of in ("solar", "signs")]
    assert f" | {ours[0]:.2f} | 1 | {ours[1]:.2f} | 1 |" in said
    after = said[said.index(f" | {ours[0]:.2f} | 1 |") :].split("\n\n")[1]
    for auc, seconds in (np.mean(record["probe"][of], axis=0) for of in ("solar", "signs")):
        assert re.search(rf"\b{auc:.2f}\D+{seconds:.0f}\D", after)


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_a_lesson_takes_as_many_minutes_as_the_course_map_says(name):
    rows = (ROOT / name).read_text(encoding="utf-8").splitlines()
    for path, notebook in numbered().items():
        (minutes,) = re.findall(r"\*About (\d+) minutes? of computing", notebook.cells[0].source)
        assert [row.rsplit("|", 2)[1].strip() for row in rows if f"(notebooks/{path.name})" in row and "|" in row] == [
            minutes
        ]


def addresses(folder):
    files = [*(folder / "notebooks").glob("*.ipynb"), folder / "README.md", folder / "README.zh.md"]
    return {found for path in files for found in OURS.findall(path.read_text(encoding="utf-8").replace('\\"', '"'))}


@pytest.fixture
def copied(tmp_path):
    """A copy of what has links, in a folder that is no git repository."""
    for name in ("README.md", "README.zh.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "tlbook").mkdir()
    shutil.copytree(ROOT / "tlbook" / "course", tmp_path / "tlbook" / "course")
    return load(tmp_path)


def test_the_repositorys_address_is_the_one_of_pyproject():
    assert addresses(ROOT) == {frame.repository()} - {None}


def test_links_move_to_another_repository_and_back_to_none(copied):
    before = copied.PYPROJECT.read_text(encoding="utf-8")
    for repo in ("somebody/elsewhere", "some.body/el_se-where"):
        copied.move(repo)
        copied.frame()
        assert copied.repository() == repo and addresses(copied.ROOT) == {repo}
        assert all("colab-badge.svg" in path.read_text(encoding="utf-8") for path in copied.ROOT.glob("README*"))
    copied.PYPROJECT.write_text(copied.REPOSITORY.sub("", copied.PYPROJECT.read_text(encoding="utf-8")))
    copied.frame()
    assert copied.repository() is None and addresses(copied.ROOT) == set()
    if frame.repository() is None:
        assert copied.PYPROJECT.read_text(encoding="utf-8") == before
        for path in [*LESSONS, ROOT / "README.md", ROOT / "README.zh.md"]:
            assert (copied.ROOT / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path.name


def test_without_an_address_nothing_points_to_a_placeholder():
    files = [*(ROOT / "notebooks").glob("*.ipynb"), *ROOT.glob("README*.md"), ROOT / "pyproject.toml"]
    assert not [path.name for path in files if "OWNER" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    ("address", "repo"),
    [
        ("https://github.com/somebody/else.git", "somebody/else"),
        ("git@github.com:somebody/else.where.git", "somebody/else.where"),
        ("https://github.com/somebody/else/", "somebody/else"),
        ("https://example.org/somebody/else", None),
        (None, None),
    ],
)
def test_the_address_is_that_of_the_git_remote(copied, address, repo):
    git = ["git", "-C", str(copied.ROOT)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    if address:
        subprocess.run([*git, "remote", "add", "origin", address], check=True)
    assert copied.remote() == repo


def test_an_address_that_is_none_is_named(copied):
    with pytest.raises(ValueError, match="owner/name, got 'elsewhere'"):
        copied.move("elsewhere")


def test_the_setup_cell_runs_where_the_package_is_and_says_what_to_do_where_it_is_not(monkeypatch):
    exec(frame.setup(None), {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[course\]'"):
        exec(frame.setup(None), {})
    assert '"tlbook[lessons] @ git+https://github.com/a/b"' in frame.setup("a/b")


def test_the_lesson_list_holds_lessons_only():
    found = {path.name for path in (ROOT / "notebooks").glob("[!.]*") if path.is_file() and path.suffix != ".png"}
    assert found == {path.name for path in LESSONS}


def test_the_lab_serves_the_repository_so_that_the_course_map_is_found():
    assert '--ServerApp.root_dir="$(CURDIR)"' in (ROOT / "Makefile").read_text(encoding="utf-8")
