"""Lesson 01 once more, with eight times the training from scratch: the lesson's own cells, one number changed.

    python benchmarks/lesson_01.py

Does a small network only need more steps to catch up with pretrained features? The answer, with its seconds, is what
the lesson quotes.
"""

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import tlbook as tl

HERE = Path(__file__).parent
STEPS = "STEPS = 200 ", "STEPS = 1600 "


def printed(cell):
    return [line for o in cell.outputs if o.get("name") == "stdout" for line in o.text.splitlines()]


if __name__ == "__main__":
    notebook = nbformat.read(HERE.parent / "notebooks" / "01_background.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(STEPS[0] in cell.source for cell in code) == 1
    end = next(i for i, cell in enumerate(code) if "headline" in cell.metadata.get("tags", ()))
    for cell in code[:end]:
        cell.source, cell.outputs = cell.source.replace(*STEPS), []
    notebook.cells = code[:end]
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(HERE.parent / "notebooks")}}).execute()
    lines = [
        line for cell in notebook.cells for line in printed(cell) if " panels: pretrained" in line or " fits " in line
    ]
    print("\n".join(lines))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {
        "command": "python benchmarks/lesson_01.py",
        "commit": commit,
        "date": date.today().isoformat(),
        "hardware": f"{tl.device.describe()}, {os.cpu_count()} cores, {platform.machine()}",
        "changed": STEPS[1].strip(),
        "printed": lines,
    }
    target = HERE / "results" / "lesson_01.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
