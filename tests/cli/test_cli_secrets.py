"""What is secret in the environment stands in nothing that a command prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli.main import app

SECRETS = {
    "FLOTILLA_KEY_PEPPER": "pepper-hunter2", "FLOTILLA_REPLICA_SECRET": "replica-hunter2",
    "FLOTILLA_API_KEY": "flt_hunter2hunter2", "FLOTILLA_QUOTA_URL": "redis://u:quota-hunter2@127.0.0.1:1/0",
    "FLOTILLA_DATABASE_URL": "postgresql://u:db-hunter2@127.0.0.1:1/none",
}
COMMANDS = (["env"], ["--help"], ["keys", "--help"], ["keys", "list"], ["keys", "create", "--tenant", "x"], ["usage"],
            ["tenants", "list"], ["audit"], ["up", "nowhere.yaml"], ["status"], ["cost"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_a_secret(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLOTILLA_STATE_DIR", str(tmp_path))
    done = CliRunner().invoke(app, command)
    assert done.output or done.exception
    assert "hunter2" not in done.output
    assert "hunter2" not in str(done.exception or "")
