"""Settings: loud about what is unknown, silent about what is secret."""

from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[2]


def test_without_environment_the_defaults_count() -> None:
    assert Settings.read({"HOME": "/x"}) == Settings()


def test_the_environment_is_read() -> None:
    found = Settings.read(
        {"FLOTILLA_STATE_DIR": "/x/y", "FLOTILLA_API_KEY": "flt_1", "FLOTILLA_BASE_URL": ""}
    )
    assert found.state_dir == Path("/x/y")
    assert found.api_key == "flt_1"
    assert found.base_url == ""
    assert found.ledger_path == Path("/x/y/ledger.db")
    assert found.spool_dir == Path("/x/y/spool")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown setting FLOTILLA_STATEDIR; known: .*FLOTILLA_STATE_DIR"):
        Settings.read({"FLOTILLA_STATEDIR": "x"})


def test_the_mark_of_a_run_is_no_setting() -> None:
    assert Settings.read({"FLOTILLA_RUN": "abc"}) == Settings()


def test_every_setting_is_explained_and_shown() -> None:
    names = {f.name for f in fields(Settings)}
    assert set(Settings.MEANING) == names
    assert set(Settings.SECRET) <= names
    assert set(Settings().shown()) == {PREFIX + n.upper() for n in names}


def test_secrets_are_masked_and_the_rest_is_not() -> None:
    values = {PREFIX + f.name.upper(): f"value-of-{f.name}" for f in fields(Settings)}
    shown = Settings.read(values).shown()
    for field in fields(Settings):
        text = shown[PREFIX + field.name.upper()]
        assert (text == "********") == (field.name in Settings.SECRET)
    assert Settings().shown()["FLOTILLA_API_KEY"] == ""  # that there is none may be seen


def test_the_ledger_is_a_file_of_the_state_directory_or_where_the_url_says() -> None:
    assert Settings(state_dir=Path("/x/y")).database == "/x/y/ledger.db"
    url = "postgresql://flotilla:p4ssw0rd@db:5432/ledger"
    found = Settings.read({"FLOTILLA_STATE_DIR": "/x/y", "FLOTILLA_DATABASE_URL": url})
    assert found.database == url
    assert "p4ssw0rd" not in str(found.shown())


def test_whatever_is_called_secret_is_masked() -> None:
    for field in fields(Settings):
        if any(word in field.name for word in ("key", "secret", "pepper", "token", "password")):
            assert field.name in Settings.SECRET


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    pepper, secret = settings.pepper(), settings.gateway_secret()
    assert (settings.pepper(), settings.gateway_secret()) == (pepper, secret)
    assert len(pepper) >= 32
    assert pepper.decode() != secret
    assert sorted(p.name for p in settings.state_dir.iterdir()) == ["key_pepper", "replica_secret"]
    for file in settings.state_dir.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_given_secrets_are_used_and_nothing_is_written(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", key_pepper="p", replica_secret="s")
    assert (settings.pepper(), settings.gateway_secret()) == (b"p", "s")
    assert not settings.state_dir.exists()


def test_processes_that_start_at_once_end_with_the_same_secret(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.settings import Settings; print('ready', flush=True);"
        "sys.stdin.readline(); print(Settings(state_dir=Path(sys.argv[1])).gateway_secret())"
    )
    made = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in made:
        assert process.stdout.readline() == "ready\n"
    for process in made:
        process.stdin.write("\n")
        process.stdin.flush()
    assert len({process.communicate(timeout=20)[0] for process in made}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["replica_secret"]


def test_a_nodes_labels_are_json() -> None:
    assert Settings.read({}).labels() is None
    found = Settings.read({"FLOTILLA_NODE_LABELS": '{"topology.kubernetes.io/region": "us-east-1"}'})
    assert found.labels() == {"topology.kubernetes.io/region": "us-east-1"}
    for wrong in ("{", "[]", '{"a": 1}'):
        with pytest.raises(ConfigError, match="FLOTILLA_NODE_LABELS"):
            Settings.read({"FLOTILLA_NODE_LABELS": wrong}).labels()
