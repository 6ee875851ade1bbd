"""The book: the lessons as they are stored, the glossary and the package, as pages that need no network.

    python book/build_book.py          # build/book/index.html: `make book`
    python book/build_book.py --pdf    # and build/book/book.pdf, printed by Chromium

Nothing is run. A lesson is copied to build/book-source and changed there in four ways: outputs that answer a bet or a
"predict first" are folded, a sentence stands in the place of a widget, the links to Colab and Binder are left out, and
links to files of the repository become links to pages. Sphinx does the rest (conf.py).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat

from tlbook.course import frame

HERE = Path(__file__).parent
ROOT = HERE.parent

BET, OUTCOME = (
    re.compile(r'^tl\.bet\("(\d\d\.\d)"', re.MULTILINE),
    re.compile(r'^ *tl\.outcome\("(\d\d\.\d)"', re.MULTILINE),
)
PREDICT = re.compile(r"\*(?:Predict first|Bet)\b")
DETAILS = re.compile(r"<details><summary>(.*?)</summary>(\S.*?)</details>")  # on one line: Markdown in it is not read
MOVED = "<p><small>Moved by hand"  # what a notebook stores in the place of a widget; `static` says it for the book
PAGES = {  # a link to a file of the repository -> the page that has it
    "../README.md": "index.md",
    "../GLOSSARY.md": "glossary.md",
    "README.zh.md": "zh.md",
    "README.md": "index.md",
    "GLOSSARY.md": "glossary.md",
    "TEACHING.md": "teaching.md",
}
API = {  # the modules of the package, by what they are for
    "The three operators": ["feature_extraction", "fine_tuning", "parameter_transfer", "lora"],
    "What goes in": ["data", "backbones", "encoder", "text", "speech", "adaptation"],
    "What comes out": ["probes", "evaluation", "decisions", "leaks", "ranking", "plots", "page"],
    "Training": ["training.recipes", "training.trainable", "training.classifier"],
    "The ground": ["device", "cache"],
    "The course": ["course.exercises", "course.bets", "course.score_card", "course.doctor", "course.widgets"],
}


def main(out=ROOT / "build" / "book", pdf=False):
    """Build the book in the folder ``out``, beside what Sphinx reads."""
    out = Path(out).resolve()
    source, trees = out.parent / f"{out.name}-source", out.parent / f"{out.name}-trees"
    stage(source)
    shutil.rmtree(out, ignore_errors=True)
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-d", trees, "-c", HERE]
    brought = ["-D", f"html_static_path={source / 'static'}"]
    built = subprocess.run([sys.executable, "-m", "sphinx", *options, *brought, source, out])
    if built.returncode:
        raise SystemExit(built.returncode)
    whole = printable(out)
    if pdf:
        to_pdf(whole)
    print(out / "index.html")


def to_pdf(page):
    """Print a page with Chromium, beside it."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        raise SystemExit(f"no Chromium here to print with; open {page} in a browser and print it there")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=120000", "--no-pdf-header-footer"]
    pdf = page.with_name("book.pdf")
    subprocess.run([chromium, *quiet, f"--print-to-pdf={pdf}", page.as_uri()], check=True)


def stage(source):
    """Write what Sphinx reads."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for path in frame.lessons():
        nbformat.write(page(nbformat.read(path, as_version=4)), source / path.name)
    shutil.copytree(frame.NOTEBOOKS / "figures", source / "figures", ignore=shutil.ignore_patterns("*.py"))
    shutil.copy(frame.NOTEBOOKS / "league.png", source)

    for name, text in pages().items():
        (source / name).write_text(relink(text), encoding="utf-8")
    for name in ("LICENSE", "LICENSE-prose.md"):
        shutil.copy(ROOT / name, source / f"{Path(name).stem}.txt")

    (source / "api").mkdir()
    for name, text in api().items():
        (source / "api" / name).write_text(text, encoding="utf-8")

    # MathJax in one file, from the package that brings it
    (source / "static").mkdir()
    shutil.copy(installed("sphinx-mathjax-offline", "mathjax/tex-svg.js"), source / "static")
    for name in ("book.css", "book.js"):
        shutil.copy(HERE / name, source / "static")


def pages():
    """{file: text} of the first page, the same in Chinese, the glossary and the guide for teachers."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    course_map = re.search(r"\| lesson \|.*?\n\n", readme, re.DOTALL)[0]
    first = (HERE / "index.md").read_text(encoding="utf-8").replace("COURSE_MAP\n", course_map)
    for word, numbered in (("LESSONS", True), ("APPENDICES", False)):
        chosen = [path for path in frame.lessons() if path.name[0].isdigit() == numbered]
        first = first.replace(f"{word}\n", "".join(f"{short_title(path)} <{path.stem}>\n" for path in chosen))
    chinese = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    chinese = re.sub(r"^(\[!\[|(?:· )?\[English\]).*\n", "", chinese, flags=re.MULTILINE)
    guide = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    return {"index.md": first, "zh.md": chinese, "glossary.md": glossary(), "teaching.md": guide}


def api():
    """{file: text} of a page for each module, and of their list."""
    index, written = ["# The package", "", "What a lesson calls `tl`, by what it is for.", ""], {}
    for heading, modules in API.items():
        index += [f"## {heading}", "", "```{toctree}", ":maxdepth: 1", "", *modules, "```", ""]
        for name in modules:
            title = f"tlbook.{name}\n{'=' * (len(name) + 7)}\n"
            members = f".. automodule:: tlbook.{name}\n   :members:\n   :member-order: bysource\n"
            written[f"{name}.rst"] = f"{title}\n{members}"
    return written | {"index.md": "\n".join(index)}


def page(notebook):
    """The notebook as the book shows it."""
    notebook.metadata.pop("widgets", None)  # or MyST-NB fetches scripts that show them
    answers = answering(notebook.cells)
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = relink(frame.NAVIGATION.sub("", cell.source).rstrip())
            cell.source = DETAILS.sub(r"<details><summary>\1</summary>\n\n\2\n\n</details>\n", cell.source)
            if i - 1 in answers:
                cell.source = fold_first_paragraphs(cell.source)
            continue
        cell.source = cell.source.replace("# NBVAL_CHECK_OUTPUT\n", "")
        cell.outputs = [static(output) for output in cell.outputs]
        tags = cell.metadata.setdefault("tags", [])
        if "setup" in tags:
            fold(cell, "hide-cell", "Set-up, the same in every lesson")
        if i in answers:
            fold(cell, "hide-output", "Your guess first; then open what the code cell printed")
    return notebook


def short_title(path):
    """The heading of a lesson, up to its formula: a list of pages has no room for one."""
    heading = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
    title = re.sub(r":? *\$.*", "", heading).removeprefix("Appendix: ").strip()
    return title[0].upper() + title[1:]


def answering(cells):
    """The numbers of the code cells whose outputs answer a bet or a "predict first", from the question on."""
    folded, bet, predicted = set(), None, False
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            predicted = predicted or bool(PREDICT.search(cell.source))
            continue
        if cell.outputs and (bet or predicted) and not BET.search(cell.source):
            folded.add(i)
            predicted = False
        if bet in OUTCOME.findall(cell.source):
            bet = None
        if found := BET.search(cell.source):
            bet, predicted = found[1], False
    return folded


def fold(cell, tag, prompt):
    cell.metadata.tags.append(tag)
    cell.metadata["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": "Fold"}


def fold_first_paragraphs(source):
    """What a lesson says of an answer is folded with it: the paragraphs up to a heading or the next question."""
    paragraphs = re.split(r"\n\s*\n", source)
    ends = (
        i for i, text in enumerate(paragraphs) if text.startswith(("#", "<details", "|", ">")) or PREDICT.search(text)
    )
    end = next(ends, len(paragraphs))
    if not end:
        return source
    seen = ["<details class='seen'><summary>What was seen</summary>", *paragraphs[:end], "</details>"]
    return "\n\n".join([*seen, *paragraphs[end:]])


def static(output):
    """The output, or a sentence where it is a widget, which needs a kernel."""
    if MOVED not in str(output.get("data", "")):
        return output
    note = "<p class='widget-note'>In JupyterLab a control stands here, which is moved by hand.</p>"
    return nbformat.v4.new_output("display_data", {"text/html": f"<div class='widget'>{note}</div>"})


def relink(text):
    """Links to files of the repository become links to pages of the book."""
    for path, name in PAGES.items():
        text = text.replace(f"]({path}", f"]({name}")
    text = re.sub(r"^(- .*?)(https://\S+)$", r"\1<\2>", text, flags=re.MULTILINE)  # the list of references
    text = text.replace("](LICENSE-prose.md)", "](LICENSE-prose.txt)").replace("](LICENSE)", "](LICENSE.txt)")
    return text.replace("](notebooks/", "](")


def glossary():
    """The glossary's tables, with a field that searches them; the first word of each row is in the book's index."""
    heading, rest = frame.glossary_page().split("\n", 1)
    rest = re.sub(r"^\| (?!term|中文|---)(.*?) \|", r"| {index}`\1` |", rest, flags=re.MULTILINE)
    field = (
        '<p class="filter"><label for="filter">Search · 查找 </label>'
        '<input id="filter" type="search" placeholder="backbone, 骨干网络 …"> <output for="filter"></output></p>'
    )
    return f"{heading}\n\n{field}\n\n{rest}"


def printable(site):
    """Write print.html, all lessons and the glossary on one page with nothing folded; return its path."""
    chapters, style, scripts = [], "", ""
    for path in [*frame.lessons(), Path("glossary.md")]:
        text = (site / f"{path.stem}.html").read_text(encoding="utf-8")
        body = re.search(r'<article class="bd-article">(.*?)</article>', text, re.DOTALL)[1]
        body = re.sub(r'<a class="headerlink".*?</a>', "", body, flags=re.DOTALL)
        body = re.sub(r' id="[^"]*"', "", body).replace("<details", "<details open")
        chapters.append(f'<section class="chapter" id="{path.stem}">{body}</section>')
        style = style or "\n".join(re.findall(r"<link [^>]*(?:pygments|mystnb|book)[^>]*\.css[^>]*>", text))
        scripts = scripts or "\n".join(
            re.findall(r"<script>window\.MathJax.*?</script>|<script [^>]*tex-svg[^>]*></script>", text)
        )
    names = "|".join([*(path.stem for path in frame.lessons()), "glossary"])
    text = re.sub(rf'href="({names})\.html(?:#[^"]*)?"', r'href="#\1"', "\n".join(chapters))
    text = re.sub(r'href="#(?!' + names + r')[^"]*"', "", text).replace(
        'href="index.html#course-map"', 'href="index.html"'
    )
    head = f'<meta charset="utf-8"><title>Transfer learning, measured</title>{style}{scripts}'
    opening = f'<!doctype html><html lang="en" data-theme="light" class="printed"><head>{head}</head>'
    whole = site / "print.html"
    whole.write_text(f"{opening}<body>{text}</body></html>", encoding="utf-8")
    return whole


def installed(package, ending):
    """The path of a file that an installed package brought."""
    files = [f for f in metadata.files(package) or () if str(f).endswith(ending)]
    if len(files) != 1:
        raise FileNotFoundError(
            f"{package} has no file that ends in {ending}: install the extra, pip install 'tlbook[book]'"
        )
    return files[0].locate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=ROOT / "build" / "book")
    parser.add_argument("--pdf", action="store_true")
    main(**vars(parser.parse_args()))
