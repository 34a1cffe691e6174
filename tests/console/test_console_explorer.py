"""Requests in the console: the newest, one explained with who was beside it, and what it has cost so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import ledger_of_requests
import pytest
from console_rig import Rig
from ledger_samples import reading, request

from serving.fleet.records import Amounts

http = httpx.Client(trust_env=False, verify=False, timeout=10)
Ask = Callable[..., Any]


@pytest.fixture
def ask(rig: Rig) -> Ask:
    """Asks the console as its page does."""
    ledger_of_requests.fill(rig.ledger, time.time())

    def asked(path: str, status: int = 200, key: str = rig.key) -> Any:
        answer = http.get(rig.url + path, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status, answer.text
        return answer.json()

    return asked


def test_the_newest_come_first_and_can_be_narrowed(ask: Ask) -> None:
    found = ask("requests")["data"]
    assert [r["request_id"] for r in found] == ["flo-6", "flo-5", "flo-4", "flo-3", "flo-2", "flo-1"]
    assert found[-1]["nanousd"] == ledger_of_requests.AMOUNTS.loaded
    assert [r["request_id"] for r in ask("requests?outcome=failed")["data"]] == ["flo-5"]
    assert [r["request_id"] for r in ask("requests?tenant=search&count=2")["data"]] == ["flo-3", "flo-1"]
    assert ask("requests?model=llama")["data"] == []


def test_one_is_explained_as_the_command_line_does(ask: Ask) -> None:
    told = ask("requests/flo-1")
    assert told["nanousd"]["loaded"] == ledger_of_requests.AMOUNTS.loaded and told["noise"] is True
    (replica,) = told["replicas"]
    assert [(line["phase"], line["steps"], line["sharing"]) for line in replica["lines"]] == [
        ("prefill", 1, 3.0), ("decode", 60, 3.0), ("decode", 20, 2.0)]
    assert {c["name"]: c["role"] for c in told["compared"]} == {
        "hosted/qwen": "same_model_hosted", "cheap-api": "cheapest_proprietary", "big-api": "frontier"}
    assert told["why"].startswith("This request cost $0.000344")


def test_who_was_beside_it_is_named_and_no_one_else(ask: Ask, rig: Rig) -> None:
    """The others on its replica overlap it; one that ended before and one on another replica do not count."""
    now = time.time()
    rig.ledger.write_requests([request(7, started_at=now - 19, duration_s=0.5), request(8, started_at=now - 400,
                                                                                     duration_s=1.0)])
    rig.ledger.write_reading(reading("r2", {"flo-7": Amounts(5)}, at=now))
    rig.ledger.write_reading(reading("r3", {"flo-8": Amounts(5)}, at=now))
    assert [b["request_id"] for b in ask("requests/flo-1")["beside"]] == ["flo-2", "flo-3", "flo-4"]


def test_what_is_not_there_is_said(ask: Ask) -> None:
    assert "no request 'flo-99'" in ask("requests/flo-99", 404)["error"]["message"]
    assert ask("requests/flo-99/cost") == {"nanousd": None, "running": True}, "the ledger may not know it yet"


def test_what_a_request_has_cost_so_far(ask: Ask, rig: Rig) -> None:
    rig.ledger.write_reading(reading("r9", {"flo-now": Amounts(40, 0, 2)}, outcome="running"))
    assert ask("requests/flo-now/cost") == {"nanousd": 42, "running": True}
    assert ask("requests/flo-1/cost")["running"] is False


@pytest.mark.parametrize("path", ["requests", "requests/flo-1", "requests/flo-1/cost", "reports"])
def test_only_an_admin_may(ask: Ask, rig: Rig, path: str) -> None:
    ask(path, 403, rig.plain_key)
    ask(path, 401, "flt_none")
