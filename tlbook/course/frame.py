"""The frame around every lesson, written from one source each.

    python tlbook/course/frame.py                     # renew the frames: `make links`
    python tlbook/course/frame.py --repo owner/name   # tell the course where its repository is
    python tlbook/course/frame.py --record            # keep the score card of the last run as the recorded one

| in the lessons                              | source                              |
| ------------------------------------------- | ----------------------------------- |
| links to neighbours, Colab, Binder; set-up  | the file names; pyproject.toml      |
| `[Kumar et al., 2022](… "kumar2022")`       | references.json, cited by key       |
| the list of references at the end           | references.json, and what is cited  |
| the glossary, GLOSSARY.md                   | glossary.json                       |

The address of the repository stands in pyproject.toml alone. `make links` takes it from the git remote "origin", if
that is on GitHub. Until there is one, no lesson and no README has a link to Colab or Binder, and the set-up cell says
what to install.

The figure of the READMEs, league.png, is the one that lesson 10 is stored with.
"""

import argparse
import base64
import json
import os
import platform
import re
import subprocess
from datetime import date
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOTEBOOKS = ROOT / "notebooks"
PYPROJECT = ROOT / "pyproject.toml"
CITED = re.compile(r'\]\(\S+ "([a-z]+\d{4}[a-z]?)"\)')  # [text](link "key")
PNG = re.compile(r'<img [^>]*src="data:image/png;base64,([^"]+)"')
NAVIGATION = re.compile(r"^.*\[Course map\]\(.*\n*", re.MULTILINE)
REPOSITORY = re.compile(r'\n\[project\.urls\]\nRepository = "https://github\.com/([^"]+)"\n')
GITHUB = re.compile(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")
BADGES = re.compile(r"^\[!\[.*colab\.research.*\n\[!\[.*mybinder.*\n· ", re.MULTILINE)
SETUP = """\
# Set-up, the same in every lesson.{remark}
import importlib.util

if importlib.util.find_spec("tlbook") is None:
    {remedy}
import numpy as np

import tlbook as tl"""


def repository():
    """owner/name, from the only place that holds it; None as long as there is no address."""
    found = REPOSITORY.search(PYPROJECT.read_text(encoding="utf-8"))
    return found and found[1]


def remote():
    """owner/name of the git remote "origin", None if there is none on GitHub."""
    command = ["git", "config", "--get", "remote.origin.url"]
    try:
        address = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except FileNotFoundError:  # no git
        return None
    found = GITHUB.search(address)
    return found and found[1]


def lessons():
    """The notebooks with a number, then the appendices."""
    return [*sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), *sorted(NOTEBOOKS.glob("appendix_*.ipynb"))]


def number(path):
    """What the glossary calls a lesson: "04", or the name of an appendix."""
    return path.name[:2] if path.name[0].isdigit() else path.stem


def references():
    return json.loads((HERE / "references.json").read_text(encoding="utf-8"))


def glossary():
    return json.loads((HERE / "glossary.json").read_text(encoding="utf-8"))


def title(notebook):
    """ "04 Fine-tuning", without what follows the colon."""
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ").split(":")[0]


def navigation(path, titles, repo, colab=True):
    """The line that leads to the lesson before, the course map, the lesson after, Colab and Binder."""
    names = [lesson.name for lesson in lessons() if lesson.name[0].isdigit()]
    here, links = names.index(path.name) if path.name in names else None, ["[Course map](../README.md#course-map)"]
    if here:
        links.insert(0, f"← [{titles[names[here - 1]]}]({names[here - 1]})")
    if here is not None and here + 1 < len(names):
        links.append(f"[{titles[names[here + 1]]}]({names[here + 1]}) →")
    if colab and repo:
        links.append(
            f"open in [Colab](https://colab.research.google.com/github/{repo}/blob/main/notebooks/{path.name}) or "
            f"[Binder](https://mybinder.org/v2/gh/{repo}/HEAD?urlpath=lab/tree/notebooks/{path.name})"
        )
    return " · ".join(links)


def setup(repo):
    """The set-up cell. On Colab it installs what a lesson imports, and nothing that Colab has already."""
    if not repo:
        remedy = """raise ModuleNotFoundError("In the course's folder: pip install -e '.[course]'")"""
        return SETUP.format(remark="", remedy=remedy)
    remark = "\n# On Colab it installs the package next to the torch that is already there."
    return SETUP.format(remark=remark, remedy=f'%pip install -q "tlbook[lessons] @ git+https://github.com/{repo}"')


def badges(text, repo):
    """A README with the badges of Colab and Binder, or without them as long as there is no address."""
    text = BADGES.sub("", text)
    if not repo:
        return text
    colab = f"https://colab.research.google.com/github/{repo}/blob/main/notebooks/00_start_here.ipynb"
    binder = f"https://mybinder.org/v2/gh/{repo}/HEAD?urlpath=lab/tree/notebooks/00_start_here.ipynb"
    here, there = ("Open in Colab", "Launch Binder") if "\n[中文](" in text else ("在 Colab 中打开", "在 Binder 中运行")
    lines = (
        f"[![{here}](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
        f"[![{there}](https://mybinder.org/badge_logo.svg)]({binder})\n· "
    )
    return re.sub(r"^(?=\[(?:中文|English)\]\()", lines, text, count=1, flags=re.MULTILINE)


def reference(key, work):
    year = re.search(r"\d{4}[a-z]?$", key)[0]
    end = "" if work["title"].endswith("?") else "."
    return f"{work['authors']} ({year}). {work['title']}{end} *{work['venue']}*. {work['link']}"


def framed(path, titles):
    """The notebook at ``path`` with its frame renewed. What was computed is left alone.

    Raises:
        KeyError: a key that is cited and is not in references.json.
    """
    notebook, works, repo = nbformat.read(path, as_version=4), references(), repository()
    cited = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cited |= set(CITED.findall(cell.source))
            cell.source = CITED.sub(lambda m: f']({works[m[1]]["link"]} "{m[1]}")', cell.source)
        if "setup" in cell.metadata.get("tags", ()):
            cell.source = setup(repo)
    first, last = notebook.cells[0], notebook.cells[-1]
    heading, text = NAVIGATION.sub("", first.source).split("\n", 1)
    first.source = f"{heading}\n\n{navigation(path, titles, repo)}\n\n{text.strip()}"
    text = NAVIGATION.sub("", last.source).split("**References.**")[0].strip()
    if cited:
        text += "\n\n**References.**\n\n" + "\n".join(f"- {reference(key, works[key])}" for key in sorted(cited))
    last.source = f"{text}\n\n{navigation(path, titles, repo, colab=False)}"
    return notebook


def glossary_page():
    """The glossary as Markdown: from English, and from Chinese in the order of the signs (Latin letters first)."""
    where = {number(path): f"[{number(path).replace('_', ': ')}](notebooks/{path.name})" for path in lessons()}
    english, chinese = glossary(), sorted(glossary(), key=lambda t: t["zh"].lstrip("（").lower())
    to_chinese = [
        f"| {t['term']} | {t['zh']} | {t['meaning']} | {where.get(t['lesson'], t['lesson'])} |" for t in english
    ]
    to_english = [f"| {t['zh']} | {t['term']} | {where.get(t['lesson'], t['lesson'])} |" for t in chinese]
    return "\n".join(
        [
            "# Glossary · 术语表",
            "",
            "Each term is set in bold in the lesson where it is explained. [Course map](README.md#course-map) · "
            "[from Chinese](#从中文查起)",
            "",
            "每个术语在讲解它的那一课里以粗体标出。",
            "",
            "| term | 中文 | meaning | lesson |",
            "| --- | --- | --- | --- |",
            *to_chinese,
            "",
            "## 从中文查起",
            "",
            "| 中文 | term | 课 |",
            "| --- | --- | --- |",
            *to_english,
            "",
        ]
    )


def frame():
    """Renew the frame of every lesson, the glossary, and the figure of the READMEs."""
    titles = {path.name: title(nbformat.read(path, as_version=4)) for path in lessons()}
    for path in lessons():
        nbformat.write(framed(path, titles), path)
    (ROOT / "GLOSSARY.md").write_text(glossary_page(), encoding="utf-8")
    (NOTEBOOKS / "league.png").write_bytes(figure())
    for path in (ROOT / "README.md", ROOT / "README.zh.md"):
        path.write_text(badges(path.read_text(encoding="utf-8"), repository()), encoding="utf-8")


def figure():
    """The first PNG that lesson 10 is stored with."""
    (path,) = NOTEBOOKS.glob("10_*.ipynb")
    outputs = [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", ())]
    shown = [o.get("data", {}) for o in outputs]
    pngs = [d.get("image/png") or PNG.search(d.get("text/html", "")) for d in shown]
    png = next(filter(None, pngs))
    return base64.b64decode(png if isinstance(png, str) else png[1])


def move(repo):
    """Write the address of the repository into pyproject.toml; what links to it follows by `frame`."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"repo must be owner/name, got {repo!r}")
    text = REPOSITORY.sub("", PYPROJECT.read_text(encoding="utf-8"))
    address = f'\n[project.urls]\nRepository = "https://github.com/{repo}"\n'
    PYPROJECT.write_text(text.replace("\n[tool.hatch.version]", f"{address}\n[tool.hatch.version]"), encoding="utf-8")


def record():
    """Make the reader's score card, as the last run of all lessons left it, the recorded one."""
    from tlbook import device
    from tlbook.course import score_card

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout
    hardware = f"{os.cpu_count()} cores, {platform.machine()}; " + ", ".join(map(str, device.describe().values()))
    about = {"command": "make course", "commit": commit.strip(), "date": date.today().isoformat(), "hardware": hardware}
    rows = sorted(score_card.own_rows(), key=lambda row: (row["lesson"], row["method"]))
    score_card.RECORDED.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", help="owner/name; that of the git remote when left out")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if address := arguments.repo or remote():
        move(address)
    if arguments.record:
        record()
    frame()
