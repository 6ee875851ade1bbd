"""Run the lessons from top to bottom.

A lesson is a notebook ``NN_name.ipynb``, an appendix ``appendix_name.ipynb``. The headline is the last line printed by
the cell tagged ``headline``.
"""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import psutil

from tlbook import cache
from tlbook.table import Table

_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

_KERNEL_ENDED = "The kernel ended: the run was interrupted, or the machine ran out of memory."


class LessonFailed(RuntimeError):
    """A cell of a lesson raised an error, or its kernel ended."""


def find_lessons(folder="notebooks", only=None):
    """Return the notebooks of ``folder`` in the order of the course, appendices last.

    Args:
        folder: where the notebooks ``NN_name.ipynb`` and ``appendix_name.ipynb`` are.
        only: the numbers of the lessons wanted, such as ``["00", "03"]``, and the names of appendices, such as
            ``["appendix_panels"]``; all of them when None.

    Raises:
        FileNotFoundError: when there is no lesson in ``folder``.
        ValueError: when a number has no lesson.
    """
    lessons = {path.name.split("_")[0]: path for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))}
    lessons |= {path.stem: path for path in sorted(Path(folder).glob("appendix_*.ipynb"))}
    if not lessons:
        raise FileNotFoundError(f"no lessons in {Path(folder).resolve()}: run this in the folder of the course")
    unknown = sorted(set(only or ()) - set(lessons))
    if unknown:
        raise ValueError(f"no lesson {', '.join(unknown)}; there are {', '.join(lessons)}")
    return [path for number, path in lessons.items() if only is None or number in only]


def run_course(folder="notebooks", *, only=None, out="build/course"):
    """Run the lessons in order, each in a fresh kernel, and keep the executed copies.

    A copy appears in ``out`` whole or not at all, without progress bars. When a cell fails, the copy up to that
    cell is kept too, unless ``out`` is ``folder`` itself: then the lesson stays as it was.

    Args:
        folder: where the notebooks are; their kernels work in it.
        only: the numbers of the lessons to run; all of them when None.
        out: the folder of the executed copies.

    Returns:
        Table of lesson, seconds, peak memory MB, headline. The memory is the anonymous resident memory of the
        kernel, in units of 10⁶ bytes.

    Raises:
        LessonFailed: naming the lesson, the cell, its source and its error. Later lessons are not run.
    """
    lessons, figures = find_lessons(folder, only), Path(folder) / "figures"
    if figures.is_dir() and Path(out).resolve() != Path(folder).resolve():  # the copies show them too
        shutil.copytree(figures, Path(out) / "figures", dirs_exist_ok=True)
    return Table(run_lesson(path, Path(out) / path.name) for path in lessons)


def run_lesson(path, copy):
    """Run one notebook and write it with its outputs to ``copy``; return its row of ``run_course``."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from tqdm import tqdm

    path, copy = Path(path), Path(copy)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec = KERNEL
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in cells:  # what an earlier run left must not pass for this one's
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("execution", None)

    bar = tqdm(total=len(cells), desc=path.stem, unit="cell", mininterval=1)
    memory = PeakMemory()
    client = NotebookClient(
        notebook,
        km=_kernel_manager(),
        timeout=None,
        record_timing=False,
        store_widget_state=False,  # of a widget a stored notebook keeps the sentence that stands in its place
        resources={"metadata": {"path": str(path.parent)}},
        on_notebook_start=lambda notebook: memory.watch(client.km.provisioner.pid),
        on_cell_executed=lambda **_: bar.update(),
    )
    started = time.perf_counter()
    try:
        with bar, memory:
            asyncio.run(_execute(client))
    except (CellExecutionError, DeadKernelError) as error:
        number = client.code_cells_executed
        what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else _KERNEL_ENDED
        message = f"{path.stem}, cell [{number}]:\n\n{_indent(cells[number - 1].source)}\n\n{what}"
        if copy.resolve() != path.resolve():
            _write(notebook, copy)
            message += f"\n\nThe notebook up to this cell: {copy}"
        raise LessonFailed(message) from error
    _write(notebook, copy)
    seconds = time.perf_counter() - started
    return {
        "lesson": path.stem,
        "seconds": round(seconds),
        "peak memory MB": round(memory.peak / 1e6),
        "headline": _headline(cells),
    }


async def _execute(client):
    def refuse(*_):
        raise NotImplementedError

    # nbclient's own answer to Ctrl-C trips over its cleaning up; without it, asyncio cancels the run in good order.
    asyncio.get_running_loop().add_signal_handler = refuse
    await client.async_execute(
        cleanup_kc=True,  # the kernel ends with the lesson
        stderr=subprocess.DEVNULL,
        # A bar shows only what is not yet cached: outputs would differ. Waiting threads sleep: others may be at work.
        env={"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"TQDM_DISABLE": "1"},
    )


def _indent(text):
    return "\n".join("    " + line for line in text.splitlines())


def _headline(cells):
    for cell in cells:
        if "headline" in cell.metadata.get("tags", ()):
            printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
            return (printed.strip().splitlines() or [""])[-1]
    return ""


def _write(notebook, path):
    import nbformat

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _VIEW not in output.get("data", ())]
    with cache.atomic(path) as part:
        nbformat.write(notebook, part)


def _kernel_manager():
    """Return a manager whose kernels are this very Python, whatever else is registered as ``python3``."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    return AsyncKernelManager(kernel_name=KERNEL["name"], kernel_spec_manager=ThisPython())


class PeakMemory(threading.Thread):
    """Sample the anonymous memory of a process ten times a second and keep the largest value.

    Use it as a context manager; after the block ``peak`` is in bytes.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self._pid, self._stop_asked = 0, None, threading.Event()

    def watch(self, pid):
        """Start sampling the process ``pid``, now: a short lesson may be over in a tenth of a second."""
        self._pid, self.peak = pid, anonymous_memory(pid)
        self.start()

    def run(self):
        while not self._stop_asked.wait(0.1):
            self.peak = max(self.peak, anonymous_memory(self._pid))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop_asked.set()
        if self._pid is not None:
            self.join()


def anonymous_memory(pid):
    """Return the bytes that process ``pid`` holds for itself, without the files it maps; 0 when it has ended.

    That is RssAnon where the system has ``/proc``. Elsewhere it is the unique set size of the process and its
    children, for there a virtual environment's Python may be only a launcher.
    """
    try:
        if os.path.exists("/proc/self/status"):
            status = Path(f"/proc/{pid}/status").read_text()
            return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
        process = psutil.Process(pid)
        return sum(map(_unique_memory, [process, *process.children(recursive=True)]))
    except (OSError, psutil.Error):
        return 0


def _unique_memory(process):
    try:
        return process.memory_full_info().uss
    except psutil.Error:  # a child that ended meanwhile
        return 0
