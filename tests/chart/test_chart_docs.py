"""The chart's README, schema and ci values follow values.yaml and the fleets."""

from __future__ import annotations

import subprocess
import sys

from chart_rig import ROOT


def test_nothing_generated_is_out_of_date() -> None:
    done = subprocess.run([sys.executable, "deployments/chart_docs.py", "--check"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
