"""The package: importing it is quick, and every public name is there."""

import subprocess
import sys

import pytest

import tlbook as tl


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time(); import tlbook; "
        "heavy = [m for m in ('torch', 'timm', 'numpy', 'sklearn') if m in sys.modules]; "
        "print(heavy, time.process_time() - start < 0.5)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[0] == "[] True"


@pytest.mark.parametrize("name", tl.__all__)
def test_every_public_name_is_there_and_explained(name):
    assert getattr(tl, name).__doc__
    assert name in dir(tl)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'linear_prob'"):
        tl.linear_prob  # noqa: B018
