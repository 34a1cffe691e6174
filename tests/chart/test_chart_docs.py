"""The chart's README, schema and ci values follow values.yaml and the fleets; alerts and panels name real metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import yaml
from chart_rig import CHART, ROOT

from serving.telemetry.metrics import BY_NAME


def test_nothing_generated_is_out_of_date() -> None:
    done = subprocess.run([sys.executable, "deployments/chart_docs.py", "--check"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_are_about_metrics_that_exist() -> None:
    rules = yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())["groups"][0]["rules"]
    for rule in rules:
        named = re.findall(r"flotilla_\w+", rule["expr"])
        assert named and all(re.sub("_(bucket|sum|count)$", "", name) in BY_NAME for name in named), rule["alert"]


def test_panels_are_about_metrics_that_exist() -> None:
    board = json.loads((CHART / "dashboards" / "flotilla.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            named = re.findall(r"flotilla_\w+", target["expr"])
            assert named or "vllm:" in target["expr"], panel["title"]
            assert all(re.sub("_(bucket|sum|count)$", "", name) in BY_NAME for name in named), panel["title"]
