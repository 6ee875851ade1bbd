"""What several test modules share."""

import os
import signal
from pathlib import Path

import pytest
import torch

# `make test` empties this folder first; plain `pytest` uses it again. The reader's own cache stays out of it.
os.environ.setdefault("TLBOOK_CACHE", str(Path(__file__).parents[1] / "build" / "test-cache"))

# A shell without job control starts what it puts in the background deaf to Ctrl-C, and tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_lesson():
    """Return a function that writes a small but complete lesson: title, set-up, the cells given, headline."""
    import nbformat  # not by all: a machine with a GPU may have nothing of Jupyter

    def make(path, *cells):
        def code(source, *tags):
            return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})

        title = nbformat.v4.new_markdown_cell(f"# {path.name[:2]} A small lesson")
        headline = "print('it took a while')\nprint('AUC .87')"
        notebook = nbformat.v4.new_notebook(
            cells=[title, code("import os", "setup"), *map(code, cells), code(headline, "headline")],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return make


@pytest.fixture(scope="session")
def solar_features():
    """Real features of the real cells, small: four stages at 96 px."""
    import tlbook as tl

    stages = ("blocks.1", "blocks.2", "blocks.4", "final")
    return tl.extract(tl.load_backbone(), tl.data.solar_cells(96), stages=stages, precision="float32")


@pytest.fixture
def one_thread_and_own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLBOOK_DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three classes of twelve photographs, in mixed modes: to be read and never changed."""
    from pictures import write_folder

    return write_folder(tmp_path_factory.mktemp("own") / "photos")
