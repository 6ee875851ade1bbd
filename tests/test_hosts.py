"""Hosts of notebooks: what `pip install tlbook[lessons]` touches on Colab, what Binder and Codespaces would build.

None of the three has been tried: these are what can be known without them.
"""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml, which Python can do from 3.11 on")

ROOT = Path(__file__).parents[1]
HOST = {  # as a host of notebooks may have them: older than what this course is tested with
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.0.2",
    "ipykernel": "6.17.1",
    "ipython": "7.34.0",
    "ipywidgets": "7.7.1",
    "jupyter-client": "7.4.9",
    "notebook": "6.5.7",
    "pillow": "11.3.0",
    "matplotlib": "3.10.0",
    "scikit-learn": "1.6.1",
    "scipy": "1.16.3",
}
JUPYTER = {"jupyterlab", "ipykernel", "notebook", "jupyter-server", "jupyter-client", "nbclient", "nbconvert"}


def declared(*extras):
    """The requirements in pyproject.toml: those of the package and of some of its extras, which may name others."""
    project, wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"], set()
    waiting = [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == "tlbook":
            waiting += [r for e in requirement.extras for r in project["optional-dependencies"][e]]
        else:
            wanted.add(str(requirement))
    return {Requirement(line) for line in wanted}


def needed(*extras):
    """{package: [requirements on it]}, all the way down, as the packages that are installed here declare them."""
    found, waiting = {}, [(r, "tlbook") for r in declared(*extras)]
    while waiting:
        requirement, by = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (requirement, by) in found.setdefault(name, []):
            continue
        found[name].append((requirement, by))
        if name in HOST:  # it stays as it is, so what a newer one would need does not matter
            continue
        try:
            below = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform, or left out here
        for r in map(Requirement, below):
            if any(not r.marker or r.marker.evaluate({"extra": e}) for e in requirement.extras or {""}):
                waiting.append((r, name))
    return found


def test_a_lesson_needs_nothing_of_jupyter_beyond_widgets():
    assert not JUPYTER & needed("lessons").keys()
    assert {"jupyterlab", "ipykernel", "nbclient"} <= needed("course").keys()


def test_what_a_host_of_notebooks_has_is_new_enough_to_stay():
    for name, requirements in needed("lessons").items():
        for requirement, by in requirements:
            if name in HOST:
                assert requirement.specifier.contains(HOST[name]), (
                    f"{by} needs {requirement}, the host has {HOST[name]}"
                )


def test_the_course_is_the_lessons_and_what_opens_them():
    assert declared("lessons") - {r for r in declared("lessons") if r.name == "ipywidgets"} <= declared("course")


@pytest.mark.prove
def test_pip_would_change_nothing_that_the_host_has(tmp_path):
    """What pip itself says, against an environment that holds the host's packages by name and version only."""
    environment = tmp_path / "host"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    for name, version in HOST.items():
        info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text("")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--dry-run"]
    run = subprocess.run(
        [*command, "--quiet", "--retries", "0", "--report", report, f"{ROOT}[lessons]"], capture_output=True, text=True
    )
    if run.returncode and "No matching distribution" in run.stderr + run.stdout:
        pytest.skip("no package index within reach")
    assert not run.returncode, run.stderr
    would = {canonicalize_name(i["metadata"]["name"]) for i in json.loads(report.read_text())["install"]}
    assert "timm" in would and not would & (HOST.keys() | JUPYTER)


@pytest.mark.prove
def test_binders_builder_accepts_the_folder_and_runs_every_file_in_it(tmp_path):
    """repo2docker, in an environment of its own, says what it would build without building it."""
    environment = tmp_path / "repo2docker"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--retries", "0", "jupyter-repo2docker"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("no package index within reach")
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "binder", copy / "binder")
    builder = [environment / "bin" / "jupyter-repo2docker", "--no-build", "--debug", copy]
    said = subprocess.run(builder, capture_output=True, text=True, check=True)
    steps = said.stdout + said.stderr
    for step in ("binder/environment.yml", "RUN ./binder/postBuild", "${REPO_DIR}/binder/start"):
        assert step in steps, step


def test_binder_installs_what_lessons_need_and_fails_if_it_does_not_load(tmp_path):
    script = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script and '".[lessons]"' in script
    fake = tmp_path / "python"
    fake.write_text('#!/bin/bash\n[[ "$1" != -c ]]\n')  # installs, and then finds that something does not load
    fake.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert subprocess.run(["bash", ROOT / "binder" / "postBuild"], env=path, cwd=tmp_path).returncode


def test_codespaces_runs_the_course():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert settings["postCreateCommand"] == "make course"
    assert re.fullmatch(r"[\w./-]+:3\.\d+", settings["image"])
