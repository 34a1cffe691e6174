"""Load-test reports open from the console by a ticket, once, and fenced in."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from console_rig import Rig

from serving.console.reports import Reports
from serving.errors import NoSuchRow

http = httpx.Client(trust_env=False, verify=False, timeout=10)


def write(folder: Path, name: str, said: str = "") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "report.html").write_text(f"<h1>{name}</h1>")
    if said:
        (folder / name / "report.json").write_text(said)


@pytest.fixture
def root(rig: Rig) -> Path:
    write(rig.folder / "reports", "run-1", json.dumps({"run": {"scenario": "mix"}, "verdict": {"result": "pass"}}))
    return rig.folder / "reports"


def test_reports_are_listed_with_their_verdict_and_open_once(rig: Rig, root: Path) -> None:
    who = {"authorization": f"Bearer {rig.key}"}
    (found,) = http.get(f"{rig.url}reports", headers=who).json()["data"]
    assert (found["name"], found["scenario"], found["verdict"]) == ("run-1", "mix", "pass")
    path = http.post(f"{rig.url}reports/run-1", headers=who).json()["path"]
    assert rig.key not in path
    answer = http.get(rig.url + path)
    assert answer.text == "<h1>run-1</h1>" and answer.headers["content-type"].startswith("text/html")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"], "nothing in it may run"
    assert http.get(rig.url + path).status_code == 404, "once"
    assert http.post(f"{rig.url}reports/run-1", headers={"authorization": f"Bearer {rig.plain_key}"}).status_code == 403


@pytest.mark.parametrize("name", ["..", "%2e%2e", "run-2", "..%2Frun-1"])
def test_only_what_was_listed_opens(rig: Rig, root: Path, name: str) -> None:
    who = {"authorization": f"Bearer {rig.key}"}
    http.get(f"{rig.url}reports", headers=who)
    assert http.post(f"{rig.url}reports/{name}", headers=who).status_code in (404, 405)


@pytest.mark.parametrize("said", ["", "not JSON", "[]", '{"run": 5}'])
def test_a_report_without_good_json_is_there_all_the_same(tmp_path: Path, said: str) -> None:
    write(tmp_path, "run-1", said)
    (found,) = Reports(tmp_path).newest()
    assert (found.name, found.scenario, found.verdict) == ("run-1", "", "")


def test_a_ticket_ends(tmp_path: Path) -> None:
    now = [0.0]
    found = Reports(tmp_path, lambda: now[0])
    write(tmp_path, "run-1")
    found.newest()
    ticket = found.ticket("run-1")
    now[0] = 61.0
    with pytest.raises(NoSuchRow, match="is over"):
        found.page(ticket)
    assert Reports(tmp_path / "none").newest() == []
