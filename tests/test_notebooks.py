"""What nbval does not see: each rule for a stored lesson, and a lesson that breaks it."""

import copy
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest

from tlbook.course import runner

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IMAGE = re.compile(r"<img [^>]*>")
MARKER = "# NBVAL_CHECK_OUTPUT"
LINE, PAGE = 88, 800  # characters; pixels of a page, 96 to the inch


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", ())]


def is_widget(output):
    return "application/vnd.jupyter.widget-view+json" in output.get("data", ())


def problems(path):
    """Return what is wrong with a stored lesson, in words."""
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    found = []

    def check(right, words):
        if not right:
            found.append(words)

    check(path.stat().st_size <= 1_000_000, "is larger than 1 MB")
    check(len(notebook.cells) <= 45, "has more than 45 cells")
    check(notebook.metadata.get("kernelspec", {}).get("name") == "python3", "needs the kernel name python3")
    opening = "# Appendix" if path.name.startswith("appendix_") else f"# {path.name[:2]} "
    check(notebook.cells[0].source.startswith(opening), "must open with its number and title")
    check([cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)], "was not run whole, in order")
    check(all(output.output_type != "error" for output in outputs), "has a stored error")
    check(
        not tagged(notebook, "raises-exception"),
        "has a raises-exception tag, which passes when nothing is raised",
    )
    check(tagged(notebook, "setup")[:1] == cells[:1], "must tag its first code cell setup")
    check(len(tagged(notebook, "headline")) == 1, "needs one cell tagged headline")
    bare = [output for output in outputs if "image/png" in output.get("data", ())]
    images = [tag for output in outputs for tag in IMAGE.findall(output.get("data", {}).get("text/html", ""))]
    alt = [output.metadata.get("image/png", {}).get("alt") for output in bare]
    alt += [re.search(r'alt="[^"]+"', tag) for tag in images]
    check(all(alt), "has a figure without an alternative text")
    widths = [int(width) for tag in images for width in re.findall(r'width="(\d+)"', tag)]
    check(max(widths, default=0) <= PAGE, "has a figure wider than a page, whose letters a page makes small")
    for cell in cells:
        if "NBVAL_CHECK_OUTPUT" in cell.source:
            check(
                MARKER in cell.source.splitlines(),
                f"has a marker that is not alone on its line: {cell.source}",
            )
            check(cell.execution_count and cell.outputs, f"has a checked cell without an output: {cell.source}")
            check(not any(map(is_widget, cell.outputs)), f"has a checked cell with a progress bar: {cell.source}")
        long = [line for line in cell.source.splitlines() if len(line) > LINE and "git+https://" not in line]
        check(not long, f"has a code line of more than {LINE} characters: {long}")
        if len(cell.source.splitlines()) > 15:
            warnings.warn(f"{path.name}: cell [{cell.execution_count}] has more than 15 lines", stacklevel=2)
    return found


@pytest.fixture(scope="module")
def executed(tmp_path_factory, make_lesson):
    """Return a small lesson with its outputs, one of them checked."""
    path = make_lesson(tmp_path_factory.mktemp("lesson") / "00_small.ipynb", f"{MARKER}\nprint('44 panels')")
    runner.run_lesson(path, path)
    return path


def test_the_course_has_lessons():
    assert LESSONS


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_stored_lesson_keeps_every_rule(path):
    assert problems(path) == []


def test_every_lesson_starts_with_the_same_setup_cell():
    assert len({tagged(nbformat.read(path, 4), "setup")[0].source for path in LESSONS}) == 1


def _no_output(notebook):
    notebook.cells[2].update(outputs=[], execution_count=None)


def _error(notebook):
    notebook.cells[2].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]


def _figure(notebook):
    notebook.cells[2].outputs = [nbformat.v4.new_output("display_data", data={"image/png": ""})]


def _silent_image(notebook):
    notebook.cells[2].outputs = [nbformat.v4.new_output("display_data", data={"text/html": '<img alt="" src="">'})]


def _wide(notebook):
    html = '<img alt="a wide figure" width="1256" src="">'
    notebook.cells[2].outputs = [nbformat.v4.new_output("display_data", data={"text/html": html})]


def _bar(notebook):
    # It is shown only when the cache is empty, and nbval counts outputs.
    data = {"application/vnd.jupyter.widget-view+json": {}}
    notebook.cells[2].outputs.insert(0, nbformat.v4.new_output("display_data", data=data))


def _swap(notebook):
    notebook.cells[1:3] = notebook.cells[2:0:-1]


def _hide_marker(notebook):
    notebook.cells[2].source = "print('44 panels')  # NBVAL_CHECK_OUTPUT"


BREAKS = {
    "is larger than 1 MB": lambda notebook: notebook.metadata.update(extra="x" * 1_000_000),
    "has more than 45 cells": lambda notebook: notebook.cells.extend(
        nbformat.v4.new_markdown_cell() for _ in range(42)
    ),
    "needs the kernel name python3": lambda notebook: notebook.metadata.kernelspec.update(name="conda-env"),
    "must open with its number and title": lambda notebook: notebook.cells[0].update(source="# A small lesson"),
    "was not run whole, in order": _swap,
    "has a stored error": _error,
    "has a figure without an alternative text": _figure,
    "has a figure without an": _silent_image,
    "has a figure wider": _wide,
    "has a code line of more than 88": lambda notebook: notebook.cells[2].update(source="x = 1  # " + 80 * "x"),
    "has a raises-exception tag": lambda notebook: notebook.cells[2].metadata.update(tags=["raises-exception"]),
    "must tag its first code cell setup": lambda notebook: notebook.cells[1].metadata.clear(),
    "needs one cell tagged headline": lambda notebook: notebook.cells[3].metadata.clear(),
    "has a marker that is not alone on its line": _hide_marker,
    "has a checked cell without an output": _no_output,
    "has a checked cell with a progress bar": _bar,
}


@pytest.mark.parametrize("words", BREAKS)
def test_a_lesson_that_breaks_a_rule_is_found_out(words, executed, tmp_path):
    assert problems(executed) == []
    notebook = nbformat.read(executed, as_version=4)
    BREAKS[words](notebook)
    nbformat.write(notebook, tmp_path / executed.name)
    assert any(problem.startswith(words) for problem in problems(tmp_path / executed.name))


def nbval(path):
    """Run nbval on one notebook as `make test` does."""
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=3600"]
    sanitize = f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, sanitize, path.name]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    return subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True)


def up_to_first_checked_cell(path):
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells):
        if MARKER in cell.source:
            notebook.cells = notebook.cells[: number + 1]
            return notebook
    return None


@pytest.mark.parametrize("which", ["a small lesson", "a lesson of the course"])
def test_nbval_sees_a_stored_output_that_was_changed(which, executed, tmp_path):
    candidates = [executed] if which == "a small lesson" else LESSONS
    notebook = next(filter(None, map(up_to_first_checked_cell, candidates)))
    changed = copy.deepcopy(notebook)
    output = changed.cells[-1].outputs[-1]
    if "text" in output:
        output.text += "and one more"
    else:
        output.data["text/plain"] += " and one more"
    for name, one in {"kept": notebook, "changed": changed}.items():
        nbformat.write(one, tmp_path / f"{name}.ipynb")

    kept, changed = nbval(tmp_path / "kept.ipynb"), nbval(tmp_path / "changed.ipynb")
    assert kept.returncode == 0, kept.stdout
    assert changed.returncode == 1 and "and one more" in changed.stdout, changed.stdout


NO_NETWORK = """
import ipaddress
import socket


def refuse_foreign(address):
    host = address[0] if isinstance(address, tuple) else address
    try:
        inside = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise OSError(f"no network in this test: {address}")


def guard(name, owner, address_of):
    original = getattr(owner, name)

    def guarded(*arguments, **options):
        address_of(*arguments, **options)
        return original(*arguments, **options)

    setattr(owner, name, guarded)


def connect(self, address):
    if self.family != getattr(socket, "AF_UNIX", None):
        refuse_foreign(address)


guard("connect", socket.socket, connect)
guard("connect_ex", socket.socket, connect)
guard("create_connection", socket, lambda address, *_, **__: refuse_foreign(address))
guard("getaddrinfo", socket, lambda host, *_, **__: refuse_foreign(host))
"""

ESCAPES = """
import socket
for attempt in (
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.socket().connect(("192.0.2.1", 80)),
    lambda: socket.getaddrinfo("example.org", 80),
):
    try:
        attempt()
    except OSError as error:
        assert "no network in this test" in str(error), error
    else:
        raise AssertionError("the guard let a connection through")
"""


@pytest.mark.parametrize("which", ["a small lesson", "lesson 00"])
def test_a_lesson_runs_with_no_network(which, executed, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    path = executed if which == "a small lesson" else ROOT / "notebooks" / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(ESCAPES)]
    nbformat.write(notebook, tmp_path / path.name)
    runner.run_lesson(tmp_path / path.name, tmp_path / "out" / path.name)
