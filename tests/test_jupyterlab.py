"""JupyterLab in a real browser: every widget is moved by keyboard, and a lesson is run from top to bottom."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browsers import browser, keep_picture

__all__ = ["browser"]  # a fixture

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TOKEN = "of-this-test-alone"

SETUP = """
import time
import numpy as np, torch
import tlbook as tl
from tlbook.progress import track

for _ in track(range(3), 3, "counting to three", " steps"):
    time.sleep(0.6)
everything = tl.data.solar_cells(size=32)
data = everything.subset(np.sort(np.random.default_rng(0).choice(len(everything), 240, replace=False)))
torch.manual_seed(0)
backbone = tl.load_backbone(weights=None)
features = tl.extract(backbone, data, stages=("stem", "blocks.1"), cache=False)
rng = np.random.default_rng(0)
def made(shift):
    p = np.clip(data.labels * 0.3 * shift + rng.uniform(0.2, 0.6, len(data)), 0, 1)
    return tl.evaluate(np.stack([1 - p, p], 1), data.labels, groups=data.groups)
curve = {"all cells": {"recalibrated": {round(a, 1): made(a) for a in np.linspace(0, 1, 6)}}}
split = data.split(by="group")
"""
WIDGETS = {
    "stage explorer": "tl.widgets.stage_explorer(backbone, data, features)",
    "panel draws": "tl.widgets.panel_draw_explorer(features, split, {4: [0.6, 0.7], 8: [0.65, 0.7]})",
    "interpolation": "tl.widgets.interpolation_slider(curve)",
    "embedding": "tl.widgets.embedding_explorer(features, data)",
    "threshold": 'tl.widgets.threshold_slider({"validation": made(1), "test": made(1)})',
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of this Python on this machine alone, and the folder that it shows."""
    pytest.importorskip("jupyterlab", reason="no JupyterLab here: pip install 'tlbook[course]'")
    pytest.importorskip("anywidget", reason="no anywidget here: pip install 'tlbook[course]'")
    home = tmp_path_factory.mktemp("lab")
    root = home / "notebooks"
    root.mkdir()
    settings = {
        "notebook-extension/tracker": '{"windowingMode": "none"}',  # every cell is in the page, seen or not
        "apputils-extension/notification": '{"fetchNews": "false"}',  # no question that covers the notebook
    }
    for name, value in settings.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"} | own
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.root_dir": root,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": TOKEN,
        "LabApp.expose_app_in_browser": True,
        "LabApp.workspaces_dir": home / "workspaces",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with (
        (home / "log.txt").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (home / "log.txt").read_text()
                time.sleep(0.5)
        yield address, root
        server.terminate()


def opened(browser, lab, name):
    """A tab with a notebook of the folder, its kernel started."""
    tab = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    tab.set_default_timeout(600_000)
    tab.goto(f"{lab[0]}/lab/tree/{name}?token={TOKEN}&reset")
    tab.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel")
    return tab


def cells_of(tab):
    """The notebook's cells as its file would hold them."""
    return tab.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")


def run_all(tab, seconds):
    """Run every cell, and return the code cells; an error in one of them fails the test."""
    tab.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    for _ in range(2 * seconds):
        tab.wait_for_timeout(500)
        code = [cell for cell in cells_of(tab) if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
        errors = [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
        assert not errors, errors[0]["evalue"]
        if all(cell["execution_count"] for cell in code):
            return code
    raise AssertionError(f"{sum(not cell['execution_count'] for cell in code)} cells not run after {seconds} s")


@pytest.fixture(scope="module")
def tab(browser, lab):
    """A notebook with every widget, run."""
    cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, *WIDGETS.values())]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab[1] / "widgets.ipynb")
    tab = opened(browser, lab, "widgets.ipynb")
    first, *_ = run_all(tab, 300)
    assert "counting to three: 100%" in "".join("".join(out.get("text", "")) for out in first["outputs"])
    yield tab
    tab.context.close()


def widget(tab, name):
    """The cell of a widget, in sight."""
    cell = tab.locator(".jp-CodeCell").nth(1 + list(WIDGETS).index(name))
    cell.locator("[role=status]").wait_for()
    cell.locator("[role=status]").scroll_into_view_if_needed()
    return cell


def move(tab, cell, key, control):
    """Press a key on a control; the text that is read aloud after it, and the seconds until it came."""
    status = cell.locator("[role=status]")
    before = status.inner_text()
    control.focus()
    start = time.perf_counter()
    tab.keyboard.press(key)
    while status.inner_text() == before:
        assert time.perf_counter() - start < 300, f"nothing came of {key}"
    return status.inner_text(), time.perf_counter() - start


@pytest.mark.parametrize(
    "name, control, key, says",
    [
        ("stage explorer", "input[type=range]", "ArrowRight", "cell 1 ("),
        ("stage explorer", "input[type=number]", "ArrowUp", "cell 2 ("),
        ("stage explorer", "input[type=radio] >> nth=0", "ArrowDown", "at blocks.1"),
        ("interpolation", "input[type=range]", "ArrowLeft", "α = 0.8"),
        ("threshold", "input[type=range] >> nth=0", "ArrowRight", "of the defects missed"),
        ("threshold", "input[type=range] >> nth=1", "ArrowRight", "of the defects missed"),
        ("panel draws", "select", "Shift+ArrowDown", "panels, "),
        ("embedding", ".tlbook-control svg", "ArrowRight", "nearest: "),
    ],
)
def test_every_widget_is_moved_by_keyboard_and_says_what_came_of_it(tab, name, control, key, says):
    """Its picture changes as well, no cell of the notebook is touched, and the second time it answers at once."""
    cell, cells = widget(tab, name), len(cells_of(tab))
    keep_picture(tab, f"widget_{name.replace(' ', '_')}_before")
    drawn = cell.locator("img").get_attribute("src")
    said, first = move(tab, cell, key, cell.locator(control))
    print(f"\n{name}, {key}: {first * 1000:.0f} ms")
    assert says in said
    for _ in range(3000):  # the text may come a moment before the picture
        if cell.locator("img").get_attribute("src") != drawn:
            break
        tab.wait_for_timeout(100)
    assert cell.locator("img").get_attribute("src") != drawn
    keep_picture(tab, f"widget_{name.replace(' ', '_')}_after")
    tab.keyboard.press("b")  # of a notebook: insert a cell below
    tab.wait_for_timeout(300)
    assert len(cells_of(tab)) == cells


def test_every_control_has_a_name_and_a_spoken_value(tab):
    for name in WIDGETS:
        controls = widget(tab, name).locator(".tlbook-control :is(input, select, svg)")
        assert controls.count()
        for i in range(controls.count()):
            control = controls.nth(i)
            named = "e => e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.title"
            assert control.evaluate(named).strip() not in ("", "null"), (name, i)
            if control.get_attribute("type") == "range":
                assert control.get_attribute("aria-valuetext").strip()
    spoken = widget(tab, "interpolation").locator("input[type=range]").get_attribute("aria-valuetext")
    assert spoken in ("0", "0.2", "0.4", "0.6", "0.8", "1")
    assert not tab.locator(".jp-OutputArea [title=null]").count()


def test_a_notebook_that_is_opened_again_says_to_run_the_cell(tab, browser, lab):
    tab.evaluate("jupyterapp.commands.execute('docmanager:save')")
    shutil.copy(lab[1] / "widgets.ipynb", lab[1] / "again.ipynb")
    again = opened(browser, lab, "again.ipynb")
    again.wait_for_selector("text=Run this cell again")
    assert again.locator("text=Run this cell again").count() == len(WIDGETS)
    assert "VBox(" not in again.inner_text(".jp-Notebook")
    keep_picture(again, "widget_not_run")
    again.context.close()


def test_a_lesson_runs_from_top_to_bottom(browser, lab):
    """Lesson 00, as a reader runs it: without an error, with its headline."""
    shutil.copy(NOTEBOOKS / "00_start_here.ipynb", lab[1])
    tab = opened(browser, lab, "00_start_here.ipynb")
    keep_picture(tab, "lesson_00_before")
    tab.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    code = run_all(tab, 900)
    assert len(code) > 20 and [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    printed = ["".join(out.get("text", "")) for cell in code for out in cell["outputs"]]
    assert any(text.startswith("AUC ") and "unseen panels" in text for text in printed)
    keep_picture(tab, "lesson_00_after")
    tab.context.close()
