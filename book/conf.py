"""Sphinx's settings for the book. What it reads is written by build_book.py, which also starts it."""

import re

from sphinx.search.en import SearchEnglish

project = "Transfer learning, measured"
author = "The authors of the transfer learning course"
project_copyright = "the authors. Prose CC BY 4.0, code MIT, photographs of solar cells CC BY-NC-SA 4.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
templates_path = []
exclude_patterns = ["static"]

# Lessons are shown with the outputs that they are stored with
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# The package
default_role = "py:obj"
autodoc_typehints = "none"
napoleon_use_ivar = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
add_module_names = False
viewcode_follow_imported_members = False

# Mathematics in one file, and no menu that would load others
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}

html_theme = "sphinx_book_theme"
html_title = project
html_css_files, html_js_files = ["book.css"], ["book.js"]
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_issues_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "back_to_top_button": False,
    "navbar_persistent": [],  # the field that searches stands in the sidebar, once
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "search_bar_text": "Search · 查找",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


class SearchEnglishAndChinese(SearchEnglish):
    """English words by their stems, Chinese by every pair of neighbouring signs: 骨干网络 is 骨干, 干网, 网络."""

    lang = "en-zh"
    language_name = "English"  # it names the stemmer in JavaScript
    han = re.compile(r"[\u3400-\u9fff]+")
    js_splitter_code = r"""
function splitQuery(query) {
  const han = /([\u3400-\u9fff]+)/;
  const pairs = (run) => run.length < 2 ? [run] : Array.from({length: run.length - 1}, (_, i) => run.slice(i, i + 2));
  const words = query.split(/[^\p{Letter}\p{Number}_]+/u).flatMap((word) => word.split(han)).filter(Boolean);
  return words.flatMap((run) => han.test(run) ? pairs(run) : [run]);
}
"""

    def split(self, input):
        runs = self.han.findall(input)
        return super().split(self.han.sub(" ", input)) + [r[i : i + 2] for r in runs for i in range(max(1, len(r) - 1))]


def keep_formulas(app, what, name, obj, options, lines):
    """An indented block after a blank line is a formula or a drawing: it stays as it is written."""
    width = [len(line) - len(line.lstrip()) for line in lines]
    for i in reversed(range(2, len(lines))):
        if lines[i].strip() and not lines[i - 1].strip() and lines[i - 2].strip() and width[i] >= width[i - 2] + 4:
            lines[i - 1 : i] = ["", " " * width[i - 2] + "::", ""]


def setup(app):
    app.add_search_language(SearchEnglishAndChinese)
    app.connect("autodoc-process-docstring", keep_formulas, priority=100)  # before napoleon


html_search_language = "en-zh"
