import mmap
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tlbook.course import doctor, runner

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lessons(tmp_path, make_lesson):
    """Two lessons in a folder of their own."""
    make_lesson(tmp_path / "notebooks" / "00_first.ipynb", "open('here.txt', 'w').close()")
    make_lesson(tmp_path / "notebooks" / "03_second.ipynb")
    (tmp_path / "notebooks" / "figures").mkdir()
    (tmp_path / "notebooks" / "figures" / "drawing.png").write_bytes(b"PNG")
    return tmp_path / "notebooks"


def test_a_run_reports_each_lesson_and_keeps_executed_copies(lessons, tmp_path):
    before = {path: path.read_bytes() for path in lessons.glob("*.ipynb")}
    rows = runner.run_course(lessons, out=tmp_path / "out")

    assert [row["lesson"] for row in rows] == ["00_first", "03_second"]
    assert all(row["headline"] == "AUC .87" for row in rows)  # the last line, not the first
    assert all(10 < row["peak memory MB"] < 300 for row in rows)
    copy = nbformat.read(tmp_path / "out" / "03_second.ipynb", as_version=4)
    assert [cell.execution_count for cell in copy.cells if cell.cell_type == "code"] == [1, 2]
    assert (tmp_path / "out" / "figures" / "drawing.png").exists()  # which the copies show
    assert (lessons / "here.txt").exists()  # a lesson works in the folder of the lessons
    assert before == {path: path.read_bytes() for path in lessons.glob("*.ipynb")}


def test_only_the_lessons_asked_for_are_run(lessons, tmp_path):
    rows = runner.run_course(lessons, only=["03"], out=tmp_path / "out")
    assert [row["lesson"] for row in rows] == ["03_second"]


def test_a_lesson_that_does_not_exist_is_named(lessons, tmp_path):
    with pytest.raises(ValueError, match="no lesson 07; there are 00, 03"):
        runner.find_lessons(lessons, ["07"])
    with pytest.raises(FileNotFoundError, match="no lessons in .*empty"):
        runner.find_lessons(tmp_path / "empty")


def test_a_failing_cell_stops_the_course_and_is_named_with_its_source(tmp_path, make_lesson):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    make_lesson(folder / "00_bad.ipynb", "x = 1", "labels = [7]\nraise KeyError('label 7')", "x = 2")
    make_lesson(folder / "01_never.ipynb")
    with pytest.raises(runner.LessonFailed) as failure:
        runner.run_course(folder, out=out)

    message = str(failure.value)
    assert message.startswith("00_bad, cell [3]:\n\n    labels = [7]\n")
    assert "KeyError: 'label 7'" in message and "Traceback" not in message and str(out) in message
    copy = nbformat.read(out / "00_bad.ipynb", as_version=4)
    assert copy.cells[3].outputs[0].ename == "KeyError"  # the error can be looked at
    assert copy.cells[4].execution_count is None
    assert not (out / "01_never.ipynb").exists()


def test_a_kernel_that_dies_is_an_error_that_names_the_cell(tmp_path, make_lesson):
    make_lesson(tmp_path / "00_killed.ipynb", "os.kill(os.getpid(), 9)")
    with pytest.raises(runner.LessonFailed, match=r"(?s)cell \[2\].*os\.kill.*kernel ended"):
        runner.run_course(tmp_path, out=tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_ctrl_c_ends_the_run_and_its_kernel(tmp_path, make_lesson):
    endless = "import time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    make_lesson(tmp_path / "notebooks" / "00_endless.ipynb", endless)
    command = [sys.executable, "-m", "tlbook", "course"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    pid = tmp_path / "notebooks" / "pid"
    while process.poll() is None and not (pid.exists() and pid.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:  # seen once: the first was lost
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) != 0
    assert runner.anonymous_memory(int(pid.read_text())) == 0


def test_executed_copies_hold_no_progress_bars(tmp_path, make_lesson):
    path = make_lesson(tmp_path / "00_bar.ipynb", "from tqdm import tqdm\nfor _ in tqdm(range(3)): pass")
    runner.run_lesson(path, tmp_path / "out" / path.name)
    assert nbformat.read(tmp_path / "out" / path.name, 4).cells[2].outputs == []


def test_of_a_widget_an_executed_copy_keeps_the_sentence_that_stands_in_its_place(tmp_path, make_lesson):
    view = "{'application/vnd.jupyter.widget-view+json': {'model_id': 'of this run'}, 'text/plain': ''}"
    cell = f"from IPython.display import HTML, display\ndisplay({view}, raw=True)\ndisplay(HTML('run this cell again'))"
    make_lesson(tmp_path / "notebooks" / "00_a.ipynb", cell)
    runner.run_course(tmp_path / "notebooks", out=tmp_path / "out")
    copy = nbformat.read(tmp_path / "out" / "00_a.ipynb", as_version=4)
    (output,) = copy.cells[2].outputs
    assert output.data["text/html"] == "run this cell again" and "widgets" not in copy.metadata


def test_refreshing_in_place_stores_outputs_without_timestamps(lessons):
    runner.run_course(lessons, only=["00"], out=lessons)
    stored = nbformat.read(lessons / "00_first.ipynb", as_version=4)
    assert stored.cells[-1].outputs and "execution" not in stored.cells[-1].metadata
    assert stored.metadata.kernelspec.name == "python3" and stored.metadata.language_info.name == "python"


def test_refreshing_a_failing_lesson_leaves_it_as_it_was(tmp_path, make_lesson):
    path = make_lesson(tmp_path / "00_bad.ipynb", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(runner.LessonFailed):
        runner.run_course(tmp_path, out=tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_lesson_runs_in_this_python_whatever_is_registered_as_python3(tmp_path, make_lesson, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["/no/such/python", "{connection_file}"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = make_lesson(tmp_path / "00_a.ipynb", f"import sys\nassert sys.executable == {sys.executable!r}")
    runner.run_lesson(path, tmp_path / "out" / path.name)


@pytest.mark.parametrize("has_proc", [True, False])
def test_anonymous_memory_sees_what_a_process_holds(has_proc, monkeypatch):
    if not has_proc:
        monkeypatch.setattr(runner.os.path, "exists", lambda path: False)
    before = runner.anonymous_memory(os.getpid())
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    held = mmap.mmap(-1, 200_000_000, **flags)  # past the allocator, which may have pages left over
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    assert runner.anonymous_memory(os.getpid()) - before == pytest.approx(len(held), rel=0.05)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert runner.anonymous_memory(ended.pid) == 0


def test_doctor_says_in_one_line_that_all_is_here_or_what_to_do_and_folds_the_rest(monkeypatch):
    found = doctor.doctor()
    assert found.summary.startswith("All is here: tlbook") and "\n" not in found.summary
    assert found._repr_html_().startswith("<details><summary>All is here") and "scikit-learn" in found._repr_html_()
    monkeypatch.setitem(doctor.BUNDLED, "solar cells", "no-such-package")
    assert doctor.doctor().summary == "Missing: solar cells (python -m pip install no-such-package)"


def test_doctor_names_the_command_that_brings_what_is_missing(monkeypatch):
    assert not any(row["remedy"] for row in doctor.doctor())
    monkeypatch.setitem(doctor.BUNDLED, "solar cells", "no-such-package")
    rows = doctor.doctor()
    assert {
        "what": "solar cells",
        "here": "missing",
        "remedy": "python -m pip install no-such-package",
    } in rows


def test_doctor_still_reports_when_torch_is_broken(monkeypatch):
    import tlbook.device

    def broken():
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(tlbook.device, "describe", broken)
    (row,) = [row for row in doctor.doctor() if row["what"] == "device"]
    assert "nms does not exist" in row["here"] and "pip install" in row["remedy"]


needs_bash = pytest.mark.skipif(os.name == "nt", reason="a script for Linux")


@needs_bash
@pytest.mark.parametrize("script", [".ci/run", "binder/postBuild", "binder/start"])
def test_a_script_is_executable_parses_and_stops_at_the_first_error(script):
    path = ROOT / script
    first, *rest = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert path.stat().st_mode & stat.S_IXUSR
    assert first in ("set -e", "set -euo pipefail")
    subprocess.run(["bash", "-n", path], check=True)


@needs_bash
def test_binder_gets_an_exact_python_and_hands_over_to_the_session():
    assert re.search(r"^  - python=3\.\d+$", (ROOT / "binder/environment.yml").read_text(), re.MULTILINE)
    start = subprocess.run(
        [ROOT / "binder/start", "bash", "-c", "echo $OMP_NUM_THREADS"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert start.stdout == "2\n"


def test_constraints_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+(; python_version >= "3\.\d+")?', pin) for pin in pins)


@pytest.mark.prove
def test_a_killed_run_never_leaves_half_a_copy(tmp_path, make_lesson):
    path = make_lesson(tmp_path / "00_big.ipynb", "print('x' * 20_000_000)")
    writer = (
        "import sys, nbformat; from tlbook.course.runner import _write\n"
        "notebook = nbformat.read(sys.argv[1], 4); print(flush=True)\n"
        "while True: _write(notebook, sys.argv[2])"
    )
    runner.run_lesson(path, path)
    copy = tmp_path / "out" / path.name
    for _ in range(50):
        process = subprocess.Popen([sys.executable, "-c", writer, path, copy], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.communicate()
        if copy.exists():
            assert copy.read_bytes() == path.read_bytes()
    assert copy.exists()
