"""What may import what, checked in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import loadtests

PACKAGE = Path(loadtests.__file__).resolve().parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")
)


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("module", ["loadtests.report", "loadtests.run", "loadtests.arrivals"])
def test_report_and_command_line_stay_free_of_gevent(module):
    assert not imported_by(module) & {"gevent", "locust", "geventhttpclient", "serving"}


def test_no_module_names_the_serving_side():
    assert len(MODULES) > 20
    for path in PACKAGE.rglob("*.py"):
        assert "import serving" not in path.read_text() and "from serving" not in path.read_text(), path
