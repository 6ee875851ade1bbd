"""In a notebook: bars that read well and stay, and a stop button that stops what waits."""

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from tlbook import progress

SLOW = """
import time
from tlbook import progress
with progress.bar(20, "outside", " images") as outer:
    for _ in range(20):
        time.sleep(0.1)
        with progress.bar(2, "inside", " pairs") as inner:
            inner.update(); inner.update()
        outer.update()
with progress.bar(5, "short", " images") as bar:
    bar.update(5)
"""
TRAIN = """
import signal, sys
sys.path.insert(0, "tests")
from small import DATA, RUN, SPLIT, tiny
import tlbook as tl
schedule = tl.fine_tuning.schedule
def press(step, steps):
    if step == 4:
        signal.raise_signal(signal.SIGINT)
    return schedule(step, steps)
tl.fine_tuning.schedule = press
tl.finetune(tiny(), DATA, SPLIT, **RUN)
"""


def test_a_bar_in_a_notebook_is_one_line_of_standard_output(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SLOW)])
    NotebookClient(notebook, coalesce_streams=True).execute()
    (output,) = notebook.cells[0].outputs
    assert output.name == "stdout"
    seen = [line.split("\r")[-1] for line in output.text.rstrip("\n").split("\n")]
    assert len(seen) == 1 and "outside: 100%" in seen[0] and "20/20" in seen[0]
    assert "short" not in output.text


def test_in_a_terminal_a_bar_is_on_standard_error_and_wiped(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert not progress.in_notebook()
    with progress.bar(2, "outside", " images") as outer:
        outer.start_t -= 10  # as if it had taken long
        with progress.bar(7, "inside", " pairs") as inner:
            inner.update(3)
        outer.update(2)
    seen = capsys.readouterr()
    assert seen.out == "" and "outside" in seen.err and "inside 3/7" in seen.err and seen.err.split("\r")[-1] == ""


def test_work_inside_an_error_leaves_no_bar_behind():
    with pytest.raises(ZeroDivisionError), progress.bar(2, "outside", " images"):
        raise ZeroDivisionError
    with progress.bar(2, "next", " images") as following:
        assert hasattr(following, "start_t")  # a bar of its own


def test_the_stop_button_ends_the_training_and_the_code_cells_that_wait():
    manager, client = start_new_kernel()
    try:
        wanted = {client.execute(code): code for code in (TRAIN, "print('went on')")}
        replies, heard = {}, []
        while len(replies) < 2:
            reply = client.get_shell_msg(timeout=120)
            replies[wanted[reply["parent_header"]["msg_id"]]] = reply["content"]
        assert replies[TRAIN]["ename"] == "KeyboardInterrupt"
        assert replies["print('went on')"]["status"] == "aborted"
        while client.iopub_channel.msg_ready():
            heard.append(client.get_iopub_msg()["content"].get("text", ""))

        kept = "print(tl.fine_tuning.interrupted.stopped, len(tl.fine_tuning.interrupted.history))"
        client.execute_interactive(kept, timeout=60, output_hook=lambda m: heard.append(m["content"].get("text", "")))
        said = "".join(heard)
        assert "tl.fine_tuning.interrupted holds them" in said and "Ctrl-C 2" in said, said
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
