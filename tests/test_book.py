"""The book and the slides: no link is broken, nothing is fetched, answers wait, and a small screen holds everything."""

import os
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat
import pytest

pytest.importorskip("sphinx_book_theme", reason="the book needs the extra: pip install 'tlbook[book]'")
import build_book
import build_slides

import tlbook as tl
from tlbook.course import frame

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
LESSONS = [path.stem for path in frame.lessons()]
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}


class Page(HTMLParser):
    """What a page links to, what it fetches, its ids, and the text that is not folded."""

    def __init__(self, path):
        super().__init__()
        self.links, self.fetched, self.ids, self.folded, self.open_text = [], [], set(), 0, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in FETCHED and given.get(FETCHED[tag]):
            self.fetched.append(given[FETCHED[tag]])
        self.folded += tag == "details" and "open" not in given

    def handle_endtag(self, tag):
        self.folded -= tag == "details" and self.folded > 0

    def handle_data(self, text):
        if not self.folded:
            self.open_text.append(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "book"
    build_book.main(out)  # ends the process at the first warning of Sphinx
    return out


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "slides"
    build_slides.main(out)
    return out


@pytest.fixture(scope="module")
def pages(site, slides):
    found = [path for folder in (site, slides) for path in folder.rglob("*.html") if "_static" not in path.parts]
    return {path: Page(path) for path in found}


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


def opened(browser, width, height, **kwargs):
    """A page without a network, and the addresses that it asked for all the same."""
    page = browser.new_context(viewport={"width": width, "height": height}, offline=True, **kwargs).new_page()
    page.set_default_timeout(600_000)
    asked = []
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or asked.append(r.url))
    return page, asked


def test_every_lesson_the_glossary_and_the_package_have_a_page(site):
    for name in [*LESSONS, "index", "zh", "glossary", "search", "print", "api/index", "api/feature_extraction"]:
        assert (site / f"{name}.html").is_file(), name


def test_every_public_name_of_the_package_is_on_a_page(pages, site):
    documented = {anchor for path, page in pages.items() if path.parent == site / "api" for anchor in page.ids}
    for name, home in tl._HOME.items():
        assert f"tlbook.{home}.{name}" in documented, name
    for module in tl._MODULES.values():
        assert f"module-tlbook.{module}" in documented, module


def test_no_link_within_the_book_is_broken(pages):
    for path, page in pages.items():
        for link in [*page.links, *page.fetched]:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            assert target.exists(), f"{path.name} -> {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].ids, f"{path.name} -> {link}"


def test_no_link_leads_to_a_file_of_the_repository(pages):
    for path, page in pages.items():
        assert not [link for link in page.links if re.search(r"\.(ipynb|md)(#|$)", link)], path.name


def test_no_page_fetches_anything_from_the_network(pages):
    for path, page in pages.items():
        assert not [address for address in page.fetched if re.match(r"(https?:)?//", address)], path.name
        for sheet in {path.parent / f.partition("?")[0] for f in page.fetched if ".css" in f}:
            assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize("name", LESSONS)
def test_an_answer_is_folded_until_it_is_asked_for(pages, site, name):
    text = "".join(pages[site / f"{name}.html"].open_text)
    assert "The answer to" not in text
    assert "Right:" not in text  # of a question


def test_what_answers_a_bet_is_folded_and_nothing_before_it():
    def code(source):
        return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("stream", text="1\n")])

    cells = [
        code("before = 1"),
        code('tl.bet("01.1", ..., ...)'),
        code("print(on_the_way)"),
        code('tl.outcome("01.1", 1)'),
        code("after = 1"),
        nbformat.v4.new_markdown_cell("*Predict first: how many?*"),
        code("print(5)"),
        code("print(6)"),
    ]
    assert build_book.answering(cells) == {2, 3, 6}


def test_what_a_lesson_says_of_an_answer_is_folded_up_to_the_next_heading():
    folded = build_book.fold_first_paragraphs("It is 5.\n\nWe saw why.\n\n## Next\n\nMore.")
    assert folded.index("We saw why") < folded.index("</details>") < folded.index("## Next")
    assert build_book.fold_first_paragraphs("## Next\n\nMore.") == "## Next\n\nMore."


def test_a_widget_is_a_sentence_in_a_page_without_a_kernel(site):
    stored = [path for path in frame.lessons() if "Moved by hand while" in path.read_text(encoding="utf-8")]
    assert len(stored) == 4
    for path in stored:
        text = (site / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "In JupyterLab a control stands here" in text, path.stem
        assert "VBox(children" not in text and "Run this cell again" not in text, path.stem


def test_the_page_to_print_has_every_lesson_with_nothing_folded(site, pages):
    text = (site / "print.html").read_text(encoding="utf-8")
    for name in LESSONS:
        assert text.count(f'<section class="chapter" id="{name}">') == 1
    assert (
        "<details>" not in text
        and "tex-svg.js" in text
        and "The answer to" in "".join(pages[site / "print.html"].open_text)
    )


def test_a_phone_shows_a_page_without_cutting_anything_off(browser, site):
    page, asked = opened(browser, 360, 812, color_scheme="dark")
    for name in [*LESSONS, "index", "glossary", "zh", "teaching", "api/index", "api/feature_extraction", "api/plots"]:
        page.goto((site / f"{name}.html").as_uri(), wait_until="load")
        page.evaluate("() => typeof MathJax === 'undefined' || MathJax.startup.promise")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        for width in (375, 360):
            page.set_viewport_size({"width": width, "height": 812})
            too_wide = page.evaluate(
                """(width) => [...document.querySelectorAll(".bd-article img")].filter(
                     (img) => img.getBoundingClientRect().width > width).map((img) => img.alt)""",
                width,
            )
            assert not too_wide, name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert not asked


def test_formulas_are_typeset_without_a_network(browser, site):
    page, asked = opened(browser, 1280, 900)
    for name in ("index", "03_feature_extraction", "04_fine_tuning", "05_parameter_transfer"):
        page.goto((site / f"{name}.html").as_uri(), wait_until="load")
        page.evaluate("() => MathJax.startup.promise")
        assert page.locator(".math").count() == page.locator(".math mjx-container svg").count() > 0, name
        assert "\\(" not in page.locator("article").first.inner_text()
    assert not asked


def test_what_was_seen_opens_with_the_answer(browser, site):
    page, _ = opened(browser, 1280, 900)
    page.goto((site / "03_feature_extraction.html").as_uri(), wait_until="load")
    answer, seen = page.locator("details.hide.below-input").first, page.locator("details.seen").first
    assert not seen.evaluate("e => e.open")
    answer.locator("summary").first.click()
    page.wait_for_function("document.querySelector('details.seen').open")


def test_light_and_dark_can_be_chosen(browser, site):
    page, _ = opened(browser, 1280, 900, color_scheme="light")
    page.goto((site / "index.html").as_uri(), wait_until="load")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(3):  # the button opens a list; in older themes it goes from one to the next
        page.locator("button.theme-switch-button:visible").first.click()
        if page.locator(".theme-change-button[data-mode=dark]:visible").count():
            page.locator(".theme-change-button[data-mode=dark]:visible").click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


@pytest.mark.parametrize("words", ["骨干网络", "骨干", "线性探针", "backbone"])
def test_the_search_finds_the_glossary_from_english_and_from_chinese(browser, site, words):
    page, asked = opened(browser, 1280, 900)
    page.goto(f"{(site / 'search.html').as_uri()}?q={words}", wait_until="load")
    page.wait_for_selector("ul.search li a[href*='glossary.html']")
    assert not asked


def test_the_glossary_shows_the_rows_that_hold_what_is_typed(browser, site):
    page, _ = opened(browser, 375, 812)
    page.goto((site / "glossary.html").as_uri(), wait_until="load")
    page.fill("#filter", "骨干")
    rows = page.locator(".bd-article tbody tr:visible")
    assert 0 < rows.count() < 10 and all("骨干" in row.inner_text() for row in rows.all())


def test_the_last_slide_has_the_number_that_the_lesson_ends_with(slides):
    for path in frame.lessons():
        notebook = nbformat.read(path, as_version=4)
        (headline,) = (cell for cell in notebook.cells if "headline" in cell.metadata.get("tags", ()))
        number = build_slides.printed(headline).splitlines()[-1:]
        last = (slides / f"{path.stem}.html").read_text(encoding="utf-8").split("<section")[-1]
        assert all(build_slides.html.escape(line) in last for line in number)
        assert number or not path.stem[0].isdigit(), path.stem


def test_each_picture_of_a_lesson_is_on_a_slide(slides):
    for path in frame.lessons():
        deck = (slides / f"{path.stem}.html").read_text(encoding="utf-8")
        for cell in nbformat.read(path, as_version=4).cells:
            assert all(img in deck for img in build_slides.pictures(cell)), path.stem


@pytest.mark.parametrize("name", LESSONS)
def test_no_slide_is_taller_than_its_screen(browser, slides, name):
    page, asked = opened(browser, 1280, 720)
    page.goto((slides / f"{name}.html").as_uri(), wait_until="load")
    page.wait_for_selector("body[data-ready]")
    for number in range(page.evaluate("Reveal.getTotalSlides()")):
        page.evaluate(f"Reveal.slide({number})")
        found = page.evaluate(
            """() => { const s = Reveal.getCurrentSlide(), r = s.getBoundingClientRect();
               return {over: s.scrollHeight - s.clientHeight, wide: s.scrollWidth - s.clientWidth, bottom: r.bottom,
                       words: parseFloat(getComputedStyle(s).fontSize),
                       pictures: [...s.querySelectorAll("img")].map((i) => i.getBoundingClientRect().height)}; }"""
        )
        assert found["over"] <= 0 and found["wide"] <= 0 and found["bottom"] <= 720, f"slide {number + 1}: {found}"
        assert found["words"] >= 20 and all(height >= 200 for height in found["pictures"]), (
            f"slide {number + 1}: {found}"
        )
    assert not asked
