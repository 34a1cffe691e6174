"""The command line as a program calls it: exit codes, JSON, and messages that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from serving.fleet.records import (
    Amounts,
    ChargeRecord,
    IntervalRecord,
    MeterReading,
    RequestRecord,
    SourceRecord,
    Tokens,
    TotalRecord,
)
from serving.ledger.store import Ledger

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "deployments" / "fleets" / "laptop.yaml"


@pytest.fixture
def flotilla(tmp_path: Path):
    """Runs `flotilla …` with a state directory of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", "COLUMNS": "100", "FLOTILLA_STATE_DIR": str(tmp_path / "state"), **environment}
        return subprocess.run([sys.executable, "-m", "serving", *arguments], cwd=ROOT, env=env, text=True,
                              capture_output=True, timeout=180)

    return run


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of one replica at 3.6 USD per hour, which is 1,000,000 nano-USD per second, with two requests."""
    found = Ledger.open(tmp_path / "state" / "ledger.db")
    second = 1_000_000_000
    replica = SourceRecord("r1", "replica", "qwen", "core", "127.0.0.1:1", 3_600_000_000, 0.0, 10.0, True, True,
                           10 * second, 4 * second, 3 * second, 3 * second, 4_000_000, 3_000_000, 0, 0,
                           "step-shapley-prior")
    interval = IntervalRecord("r1", 0.0, 3_600_000_000, 10 * second, 4 * second, 3 * second, 3 * second, 4_000_000,
                              3_000_000, 3_000_000, 0)
    charges = tuple(
        ChargeRecord("r1", f"flo-{i}", "demo", outcome, amounts, Tokens(10, 2, 5), "step-shapley-prior", 9.0)
        for i, (outcome, amounts) in enumerate([("finished", Amounts(2_000_000)), ("aborted", Amounts(0, 1_000_000))])
    )
    total = TotalRecord("r1", "demo", Amounts(2_000_000, 1_000_000), 2, 1, Tokens(20, 4, 10))
    found.write_reading(MeterReading(1, replica, (interval,), charges, (total,)))
    found.write_requests(
        RequestRecord(f"flo-{i}", "", "demo", "key", "qwen", "completions", code, outcome, 5.0, 1.0, True)
        for i, (code, outcome) in enumerate([(200, "finished"), (499, "aborted")])
    )
    return found


def _with_prices(text: str) -> str:
    """A fleet file's text that finds its price book from anywhere."""
    return text.replace("../prices", str(FLEET.parent.parent / "prices"))


def test_check_says_ok_and_names_what_is_wrong(flotilla, tmp_path: Path) -> None:
    assert "fleet laptop, 3 models" in flotilla("check", str(FLEET)).stdout
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(_with_prices(FLEET.read_text().replace("max_num_seqs", "max_nun_seqs", 1)))
    result = flotilla("check", str(wrong))
    line = next(i for i, text in enumerate(wrong.read_text().splitlines(), 1) if "max_nun_seqs" in text)
    assert result.returncode == 2
    assert f"wrong.yaml:{line}:" in result.stderr
    assert "max_nun_seqs" in result.stderr and "did you mean 'max_num_seqs'?" in result.stderr


def test_check_knows_the_families_of_small_checkpoints(flotilla, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(_with_prices(FLEET.read_text().replace("small:llama", "small:lama")))
    result = flotilla("check", str(wrong))
    assert result.returncode == 2
    assert "'lama' is not known; did you mean 'llama'?" in result.stderr


def test_schema_is_a_json_schema_that_refuses_unknown_keys(flotilla) -> None:
    schema = json.loads(flotilla("schema").stdout)
    assert schema["title"] == "Fleet" and schema["additionalProperties"] is False
    assert "ttft_ms" in schema["$defs"]["Slo"]["properties"]


def test_env_masks_secrets_and_refuses_unknown_settings(flotilla) -> None:
    shown = json.loads(flotilla("env", "--json", FLOTILLA_API_KEY="flt_secret").stdout)
    assert shown["FLOTILLA_API_KEY"] == "********"
    assert "flt_secret" not in json.dumps(shown)
    result = flotilla("env", FLOTILLA_STATEDIR="x")
    assert result.returncode == 2 and "FLOTILLA_STATEDIR" in result.stderr and "FLOTILLA_STATE_DIR" in result.stderr


def test_keys_are_shown_once_listed_without_text_and_revoked(flotilla, tmp_path: Path) -> None:
    made = json.loads(flotilla("keys", "create", "--tenant", "demo", "--name", "mine", "--json").stdout)
    listed = json.loads(flotilla("keys", "list", "--json").stdout)
    assert [k["key_id"] for k in listed] == [made["key_id"]]
    assert made["key"].startswith(listed[0]["prefix"]) and made["key"] not in json.dumps(listed)
    assert flotilla("keys", "revoke", "mine").returncode == 0
    assert json.loads(flotilla("keys", "list", "--json").stdout)[0]["revoked_at"] is not None
    again = flotilla("keys", "revoke", "mine")
    assert again.returncode == 2 and "flotilla keys list" in again.stderr


def test_keys_belong_to_tenants_of_the_fleet(flotilla) -> None:
    result = flotilla("keys", "create", "--tenant", "dmo")
    assert result.returncode == 2 and "did you mean 'demo'?" in result.stderr


def test_usage_counts_what_the_engine_knows_of_aborted_requests(flotilla, ledger: Ledger) -> None:
    (row,) = json.loads(flotilla("usage", "--json").stdout)
    assert (row["requests"], row["aborted"], row["completion_tokens"]) == (2, 1, 10)
    assert row["cost_usd"] == pytest.approx(0.003)
    assert json.loads(flotilla("usage", "--since", "1h", "--json").stdout) == []
    assert flotilla("usage", "--since", "yesterday").returncode == 2


def test_cost_splits_the_bill(flotilla, ledger: Ledger) -> None:
    told = json.loads(flotilla("cost", "--json").stdout)
    model = told["models"]["qwen"]
    assert model["nanousd"] == {"direct": 2_000_000, "waste": 1_000_000, "idle": 3_000_000, "cold_start": 4_000_000,
                                "overhead": 0}
    assert model["bill_nanousd"] == told["bill_nanousd"] == 10_000_000
    assert model["cost_per_request_usd"] == {"direct": 0.001, "direct_and_waste": 0.0015, "fully_loaded": 0.005}
    assert "adds up" in flotilla("cost").stdout


def test_reconcile_exits_with_1_when_a_nano_dollar_is_missing(flotilla, ledger: Ledger) -> None:
    good = flotilla("cost", "reconcile", "--json")
    assert good.returncode == 0 and json.loads(good.stdout)["residual_nanousd"] == 0
    with ledger.transaction() as db:
        db.execute(text("UPDATE charges SET direct = direct - 1 WHERE request_id = 'flo-0'"))
    bad = flotilla("cost", "reconcile", "--json")
    told = json.loads(bad.stdout)
    assert bad.returncode == 1 and told["residual_nanousd"] >= 1 and told["wrong_sources"] == ["r1"]
    assert "r1 does not add up" in flotilla("cost", "reconcile").stdout


def test_without_a_fleet_commands_say_so_with_3(flotilla) -> None:
    for command in (["status"], ["down"], ["loadtest", "laptop-mix"]):
        result = flotilla(*command)
        assert result.returncode == 3, command
        assert "fleet" in result.stderr


@pytest.mark.parametrize(("pair", "says"), [
    ("qwen", "write NAME=SOURCE"),
    ("qwne=Qwen/Qwen3-0.6B", "did you mean 'qwen'?"),
])
def test_up_refuses_a_source_for_no_model(flotilla, pair: str, says: str) -> None:
    result = flotilla("up", "--model", pair)
    assert result.returncode == 2 and says in result.stderr


def test_an_unknown_scenario_names_the_ones_there_are(flotilla) -> None:
    result = flotilla("loadtest", "no-such-mix")
    assert result.returncode == 2 and "laptop-mix" in result.stderr


def test_help_names_every_command_and_the_exit_codes(flotilla) -> None:
    shown = flotilla("--help").stdout
    for command in "up down status check schema env prices models keys usage cost loadtest report".split():
        assert f" {command} " in shown
    assert "130 interrupted" in " ".join(shown.split())
