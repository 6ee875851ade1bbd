import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tlbook
from tlbook.cli import app
from tlbook.course import doctor


def run(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("command", ["course", "doctor"])
def test_every_command_explains_itself_with_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0 and f"Example: tlbook {command}" in result.output


def test_course_prints_a_table_with_the_headline(tmp_path, make_lesson, monkeypatch):
    make_lesson(tmp_path / "notebooks" / "00_a.ipynb")
    monkeypatch.chdir(tmp_path)
    result = run("course", "--only", "00")
    header, _, row = result.stdout.strip().splitlines()
    assert result.exit_code == 0
    assert header.split("  ")[0] == "lesson" and "peak memory MB" in header
    assert row.startswith("00_a") and row.endswith("AUC .87")
    assert (tmp_path / "build" / "course" / "00_a.ipynb").exists()


def test_course_never_writes_over_the_lessons(tmp_path, make_lesson, monkeypatch):
    make_lesson(tmp_path / "notebooks" / "00_a.ipynb")
    monkeypatch.chdir(tmp_path)
    result = run("course", "--out", "notebooks")
    assert result.exit_code == 1 and "overwrite the lessons" in result.stderr


def test_a_mistake_is_one_line_and_an_exit_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("course")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no lessons in ") and result.stderr.count("\n") == 1


def test_debug_shows_where_an_error_came_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(run("--debug", "course").exception, FileNotFoundError)


def test_doctor_prints_a_table_or_json():
    assert "torchvision" in run("doctor").stdout
    result = run("doctor", "--json")
    assert result.exit_code == 0
    assert {"what": "tlbook", "here": tlbook.__version__, "remedy": ""} in json.loads(result.stdout)


def test_doctor_exits_with_1_when_something_is_missing(monkeypatch):
    monkeypatch.setitem(doctor.BUNDLED, "solar cells", "no-such-package")
    result = run("doctor")
    assert result.exit_code == 1 and "pip install no-such-package" in result.stdout


def test_python_m_tlbook_is_the_same_program_and_starts_without_torch():
    code = "import sys, tlbook.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    version = subprocess.run([sys.executable, "-m", "tlbook", "--version"], capture_output=True, text=True)
    assert version.stdout == f"tlbook {tlbook.__version__}\n"
