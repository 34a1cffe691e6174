"""`flotilla tenants`: what was set is shown in the words that set it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli.main import app

LAPTOP = Path(__file__).resolve().parents[2] / "deployments" / "fleets" / "laptop.yaml"


def test_limits_are_shown_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_STATE_DIR", str(tmp_path))
    limits = ("requests_per_minute=60", "budget_per_day.soft_usd=1.5", "budget_per_day.hard_usd=5")
    more = [part for limit in limits for part in ("--limit", limit)]
    done = CliRunner().invoke(app, ["tenants", "set", "shop", *more, str(LAPTOP)])
    assert done.exit_code == 0, done.output
    said = "".join(done.output.split())
    assert all(limit in said for limit in limits)
