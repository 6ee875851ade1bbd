"""The slides: a deck for each lesson, by a rule, from the outputs that it is stored with; reveal.js and no network.

    python book/build_slides.py   # build/slides/index.html: `make slides`

| in the lesson                               | on a slide                                                  |
| ------------------------------------------- | ----------------------------------------------------------- |
| the title and the question                  | the first                                                   |
| "Predict first", a bet                      | one of its own, before the answer                           |
| a picture                                   | one each: its heading, the picture, what the lesson says of it |
| an answer that is printed                   | the same, with the printed lines                            |
| a formula                                   | one each, with the sentence before it                       |
| the questions                               | one each, the right answer after a step                     |
| the recap; the last picture and its sentence | the last two                                               |
"""

import html
import re
import shutil
from itertools import accumulate

import nbformat
from build_book import HERE, PREDICT, ROOT, answering, installed, short_title
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tlbook.course import frame

IMG, TABLE = re.compile(r'<img [^>]*src="data:image/[^>]*>'), re.compile(r"<table.*?</table>", re.DOTALL)
LINK, SENTENCES = re.compile(r"(?<!!)\[([^\]]*)\]\([^)]*\)"), re.compile(r"(?<=[.?!])\s+(?=[A-Z*`$“\"])")
LAST = re.compile(r"^(?:> (.*)|\*(?:The (?:last )?slide|One sentence)\.\* *(.*))$", re.MULTILINE)
QUESTION = re.compile(r"\*Question \d+\.\*.*?(?=\*Question \d+\.\*|\Z)", re.DOTALL)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="static/reveal.css"><link rel="stylesheet" href="static/slides.css">
<script>window.MathJax = {{options: {{enableMenu: false}}, tex: {{inlineMath: [["\\\\(", "\\\\)"]]}}}};</script>
<script src="static/tex-svg.js"></script><script src="static/reveal.js"></script></head>
<body><div class="reveal"><div class="slides">
{slides}
</div></div><script src="static/slides.js"></script></body></html>
"""

INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides</title>
<style>body {{ font: 1.2rem/1.6 sans-serif; margin: 2rem auto; max-width: 40rem; padding: 0 1rem }}</style></head>
<body><h1>Slides</h1>
<ul>
{links}
</ul>
<p>→ and ← turn the page, <kbd>Esc</kbd> shows all, <kbd>F</kbd> fills the screen.
To print, add <code>?print-pdf</code> to the address.</p>
</body></html>
"""


def main(site=ROOT / "build" / "slides"):
    """Build the decks and their list in the folder ``site``."""
    shutil.rmtree(site, ignore_errors=True)
    (site / "static").mkdir(parents=True)
    for name in ("reveal.js", "reveal.css"):
        shutil.copy(installed("sphinx-revealjs", f"revealjs/dist/{name}"), site / "static")
    shutil.copy(installed("sphinx-mathjax-offline", "mathjax/tex-svg.js"), site / "static")
    shutil.copytree(frame.NOTEBOOKS / "figures", site / "figures", ignore=shutil.ignore_patterns("*.py"))
    for name in ("slides.css", "slides.js"):
        shutil.copy(HERE / name, site / "static")
    links = []
    for path in frame.lessons():
        slides = deck(nbformat.read(path, as_version=4))
        title = short_title(path)
        (site / f"{path.stem}.html").write_text(PAGE.format(title=title, slides="\n".join(slides)), encoding="utf-8")
        links.append(f'<li><a href="{path.stem}.html">{html.escape(title)}</a> ({len(slides)})</li>')
    (site / "index.html").write_text(INDEX.format(links="\n".join(links)), encoding="utf-8")
    print(site / "index.html")


def deck(notebook):
    """The slides of a lesson, each a <section>."""
    cells, heading, before = notebook.cells, "", ""
    slides, answers, shown_last = [opening(cells[0].source)], answering(cells), last_picture(cells)
    for i, cell in enumerate(cells[1:], 1):
        tags = cell.metadata.get("tags", ())
        if "questions" in tags:
            slides += [poll(found) for found in QUESTION.findall(cell.source)]
        elif cell.cell_type == "markdown":
            for text in paragraphs(cell.source):
                if text.startswith("#"):
                    heading, before = text.lstrip("# "), ""
                elif text.startswith("!["):
                    slides.append(section(heading, markdown(text), kind="picture"))
                elif "$$" in text:
                    slides.append(section(heading, markdown(before) + markdown(text), kind="formula"))
                elif PREDICT.search(text):
                    slides.append(section("Your guess first", markdown(text), kind="guess"))
                if heading == "Recap" and text.startswith("- "):
                    slides.append(section("Recap", markdown(text), kind="recap"))
                before = text if not text.startswith("#") else ""
        else:
            found, seen = pictures(cell), markdown(said_after(cells, i))
            for img in found[:-1]:
                slides.append(section(heading, img, kind="picture"))
            if found and (seen or found[-1] != shown_last):
                slides.append(section(heading, found[-1] + seen, kind="picture"))
            elif i in answers:
                slides.append(section(heading, tables(cell) + seen, kind="answer"))
    return [*slides, closing(cells)]


def opening(source):
    """Title and question."""
    title = source.splitlines()[0].removeprefix("# ")
    (question,) = re.findall(r"\*\*The question\.\*\*(.*?)\n\s*\n", source, re.DOTALL) or [""]
    return section("", f"<h1>{inline(title)}</h1>{markdown(question)}", kind="opening")


def poll(source):
    """A question with its choices; the right one, and why, after a step."""
    asked = re.split(r"\n\s*\n", source)[0]
    choices = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", source, re.DOTALL)
    right = next((f"{choice[:2]} {why.strip()}" for choice, why in choices if why.strip().startswith("Right")), "")
    listed = "".join(f"<li>{inline(choice)}</li>" for choice, _ in choices)
    answer = f'<div class="fragment">{markdown(right)}</div>'
    return section("", f'{markdown(asked)}<ul class="choices">{listed}</ul>{answer}', kind="poll")


def closing(cells):
    """The last slide: one picture, one sentence, and the number that the lesson ends with."""
    texts = "\n\n".join(cell.source for cell in cells[-6:] if cell.cell_type == "markdown")
    found = LAST.search(texts)
    sentence = next(filter(None, found.groups())) if found else ""
    said = re.findall(r"\*([^*]+)\*|\"([^\"]+)\"", sentence)  # without the words that name the picture
    sentence = " ".join(a or b for a, b in said) or sentence
    sentence = sentence[:1].upper() + sentence[1:] + ("." if sentence[-1:].isalnum() else "")
    number = [line for cell in tagged(cells, "headline") for line in printed(cell).splitlines()]
    shown = last_picture(cells) + markdown(sentence)
    return section(
        "", shown + (f"<p class='number'>{html.escape(number[-1])}</p>" if number else ""), kind="picture last"
    )


def last_picture(cells):
    """The picture of the cell tagged "slide", or that of the headline, or the last."""
    for way in (tagged(cells, "slide"), tagged(cells, "headline"), cells):
        if images := [img for cell in way for img in pictures(cell)]:
            return images[-1]
    return ""


def tagged(cells, tag):
    return [cell for cell in cells if tag in cell.metadata.get("tags", ())]


def section(heading, body, kind):
    top = f"<h2>{inline(heading)}</h2>" if heading else ""
    return f'<section class="{kind}">{top}{body}</section>'


def paragraphs(source):
    """The blocks of a Markdown cell: a formula, a list or a table is one of them, what is folded is left out."""
    source = re.sub(r"<details>.*?</details>", "", source.split("**References.**")[0], flags=re.DOTALL)
    source = re.sub(r"^(#+ .*)$", r"\n\1\n", source, flags=re.MULTILINE)
    return [text.strip() for text in re.split(r"\n\s*\n", source) if text.strip()]


def said_after(cells, i):
    """What the lesson says of the outputs of cell i: the first sentences of the next paragraph, if it comes at once."""
    if i + 1 == len(cells) or cells[i + 1].cell_type == "code":
        return ""
    text = next(iter(paragraphs(cells[i + 1].source)), "")
    if text.startswith(("#", "!", "|", "-", "```", "Now ", "Next ")) or "$$" in text or PREDICT.search(text):
        return ""
    kept = ""
    for sentence in SENTENCES.split(text.replace("\n", " ").removeprefix("> ")):
        if kept and len(kept) + len(sentence) > 230 or not sentence.endswith((".", "?", "!", ".)", ".*", "?*")):
            break
        kept = f"{kept} {sentence}".strip()
    return kept


def pictures(cell):
    """The <img> elements that a code cell is stored with."""
    data = [output.get("data", {}) for output in cell.get("outputs", ())]
    return [img for d in data if isinstance(d.get("text/html"), str) for img in IMG.findall(d["text/html"])]


def tables(cell):
    """What a code cell printed and the tables that it shows, if they are short enough for a slide."""
    data = [output.get("data", {}).get("text/html") or "" for output in cell.get("outputs", ())]
    found = [table for d in data for table in TABLE.findall(d) if table.count("<tr") <= 12 and table.count("<th") <= 6]
    return (f"<pre>{html.escape(printed(cell))}</pre>" if printed(cell) else "") + "".join(found)


def printed(cell):
    """What a code cell printed, without the lines that are about the reader's bet."""
    text = "".join(output.text for output in cell.get("outputs", ()) if output.output_type == "stream")
    lines = [re.sub(r" \(no bet\)$", "", line) for line in text.splitlines()]
    filled = list(accumulate(1 + len(line) // 68 for line in lines))  # rows of a slide, long lines broken
    kept = sum(rows <= 13 for rows in filled)
    return "\n".join([*lines[:kept], "…"] if kept < len(lines) else lines)


def markdown(text):
    return _markdown().render(plain(text))


def inline(text):
    return _markdown().renderInline(plain(text))


def plain(text):
    """Without links: a slide is looked at, not clicked."""
    return LINK.sub(r"\1", text)


def _markdown():
    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)
    parser.add_render_rule("math_inline", lambda self, tokens, i, *_: f"\\({html.escape(tokens[i].content)}\\)")
    for kind in ("math_block", "math_inline_double"):
        parser.add_render_rule(kind, lambda self, tokens, i, *_: f"\\[{html.escape(tokens[i].content)}\\]")
    return parser


if __name__ == "__main__":
    main()
