"""A rehearsal of a lecture in a room without a network: installed from the wheelhouse, run with sockets blocked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHEELHOUSE = ROOT / "wheelhouse"
LESSONS = os.environ.get("LESSONS") or "00"

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not (WHEELHOUSE / "complete").exists(), reason="no wheelhouse here: make wheelhouse"),
    pytest.mark.skipif(os.name == "nt", reason="paths of a Linux environment"),
]

BLOCKED = """
import socket

_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo


def local(host):
    return host in (None, "", "localhost", "127.0.0.1", "::1", b"localhost")


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not local(address[0]):
        raise OSError(f"this room has no network: {address}")
    return _connect(self, address)


def getaddrinfo(host, *args, **kwargs):
    if not local(host):
        raise socket.gaierror(f"this room has no network: {host}")
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect, getaddrinfo
"""


def run(*command, **kwargs):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **kwargs)
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A fresh environment that was installed by the line that the Makefile gives, and cannot reach a network."""
    environment = tmp_path_factory.mktemp("room") / ".venv"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-index", "--find-links", WHEELHOUSE, "tlbook[course]")
    (packages,) = environment.glob("lib/python3.*/site-packages")
    (packages / "no_network.py").write_text(BLOCKED)
    (packages / "no_network.pth").write_text("import no_network\n")  # read by every Python that starts, kernels too
    return python


def test_the_room_has_no_network(room):
    code = "import urllib.request as u\ntry: u.urlopen('http://example.org', timeout=5)\nexcept OSError as e: print(e)"
    assert "this room has no network" in run(room, "-c", code)


def test_nothing_that_the_course_needs_is_missing_in_the_room(room, tmp_path):
    run(room.with_name("tlbook"), "doctor", cwd=tmp_path, env=environment_of(tmp_path))


def test_the_lessons_run_in_the_room(room, tmp_path):
    out = run(
        *(
            room.with_name("tlbook"),
            "course",
            "--only",
            LESSONS,
            "--out",
            tmp_path / "executed",
        ),  # not the one beside it
        cwd=ROOT,
        env=environment_of(tmp_path),
    )
    for lesson in LESSONS.split(","):
        assert re.search(rf"^{lesson}_\w+ +\d+", out, re.MULTILINE), out
    print(out)


def environment_of(folder):
    """An empty cache, and none of the paths of the Python that runs the test."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TLBOOK_MIRROR")}
    return kept | {"TLBOOK_CACHE": str(folder / "cache"), "PYTHONNOUSERSITE": "1"}
