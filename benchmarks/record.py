"""What a recorded result says of how it was made, and the fits that a long run keeps, so that it can go on later."""

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

import tlbook as tl


def about(command):
    """{command, commit, date, hardware} of a result that is made now; the commit says "dirty" where files differ."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    hardware = ", ".join([*tl.device.describe().values(), cpu, platform.machine()])
    return {"command": command, "commit": commit, "date": date.today().isoformat(), "hardware": hardware}


def kept(path, make):
    """The JSON value of ``make()``, from the file at ``path`` if an earlier run has left it there."""
    if not path.exists():
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(value))
        path.with_suffix(".part").replace(path)
    return json.loads(path.read_text())
