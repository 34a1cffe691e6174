"""Tenants on a live fleet with two gateways: limits that hold to the request, budgets that end streams, a gateway that
dies with a stream, the admin API, and what must stand nowhere."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import psutil
import pytest
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, eventually

from serving.fleet.quotas import LEASE_S

pytestmark = pytest.mark.integration
ADMIN = "/admin/v1"


def limit(fleet: LiveFleet, tenant: str, *limits: str) -> None:
    """Give a tenant limits while the fleet runs."""
    fleet.say("tenants", "set", tenant, *(part for one in limits for part in ("--limit", one)), str(fleet.file))


def admin(fleet: LiveFleet, key: str | None, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Ask the admin API."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{fleet.admin_port}{ADMIN}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def charged(fleet: LiveFleet, tenant: str) -> int:
    """Nano-USD that the ledger has for a tenant's requests."""
    return int(fleet.rows("SELECT COALESCE(SUM(direct + waste + idle + cold_start), 0) FROM charges WHERE tenant = ?",
                          tenant)[0][0])


def test_two_gateways_let_exactly_the_limit_through(fleet: LiveFleet) -> None:
    caller = Caller(fleet.port, fleet.new_key("counted"))
    limit(fleet, "counted", "requests_per_minute=17")
    body = chat("qwen", max_tokens=2)
    eventually(lambda: "x-ratelimit-limit-requests" in caller.call(CHAT, body).headers, "the limit is known", 10, 0.3)
    answers = caller.many(CHAT, [body] * 40, 12)
    codes = Counter(a.status for a in answers)
    assert set(codes) == {200, 429}
    seen = [a.status for a in caller.many(CHAT, [body] * 6, 6)]
    assert seen == [429] * 6
    written = fleet.rows("SELECT COUNT(*) FROM requests WHERE tenant = 'counted' AND outcome = 'finished'")[0][0]
    assert codes[200] <= 17
    refused = next(a for a in answers if a.status == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 62
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert written >= 17 or eventually(lambda: fleet.rows(
        "SELECT COUNT(*) FROM requests WHERE tenant = 'counted' AND outcome = 'finished'")[0][0] >= 17, "rows")


def test_a_stream_ends_at_its_budget_and_the_ledger_never_shows_more(fleet: LiveFleet) -> None:
    caller, short = Caller(fleet.port, fleet.new_key("thrifty")), chat("llama", max_tokens=2)

    def budget(hard_usd: float) -> None:
        """Set it, and wait until both gateways tell it."""
        limit(fleet, "thrifty", "budget_per_day.soft_usd=0.000000001", f"budget_per_day.hard_usd={hard_usd:.9f}")
        told = f"of {hard_usd:.6g} USD"
        eventually(lambda: all(told in a.headers.get("x-flotilla-budget", "") for a in
                               caller.many(CHAT, [short] * 6, 6)), "both gateways know the budget", 15, 0.3)

    budget(10.0)
    assert {a.status for a in caller.many(CHAT, [short] * 120)} == {200}  # estimates learn what requests cost here
    fleet.settled()
    hard = charged(fleet, "thrifty") + 150_000
    budget(hard / 1e9)
    stream = caller.open(CHAT, chat("llama", "On and on.", 1_800, stream=True))
    assert stream.status == 200
    *parts, last = [data for _, data in stream.events()]
    assert len(parts) > 20
    assert json.loads(last)["error"]["code"] == "budget_exhausted"
    refused = eventually(lambda: found if (found := caller.call(CHAT, chat("llama", max_tokens=1_500))).status == 402
                         else None, "nothing is left for another", 20, 0.2)
    assert "begins anew" in refused.json["error"]["message"] or "ends here" in refused.json["error"]["message"]
    fleet.settled()
    assert charged(fleet, "thrifty") <= hard


def test_a_gateway_that_dies_with_a_stream_takes_no_seat_and_no_money_with_it(fleet: LiveFleet) -> None:
    caller = Caller(fleet.port, fleet.new_key("cut"))
    limit(fleet, "cut", "concurrent_requests=1", "budget_per_day.hard_usd=1000")
    body = chat("llama", "On and on.", 1800, stream=True)

    def held() -> Any:
        """A stream under way that fills the limit, once the limit is known to both gateways."""
        stream = caller.open(CHAT, body)
        if stream.status == 200 and {a.status for a in caller.many(CHAT, [chat("llama")] * 6, 6)} == {429}:
            return stream
        stream.close()
        return None

    stream = eventually(held, "the limit is known", 15, 0.3)
    local = stream._connection.sock.getsockname()[1] if stream._connection.sock else None
    owner = next(p for p in fleet.footprint().processes for c in _connections(p)
                 if c.raddr and c.raddr.port == local and c.laddr.port == fleet.port)
    os.kill(owner.pid, signal.SIGKILL)
    killed = time.monotonic()
    codes: list[int] = []

    def again() -> bool:
        try:
            codes.append(caller.call(CHAT, chat("llama", max_tokens=2)).status)
        except OSError:
            codes.append(0)  # the listening socket of the dead one
        return codes[-1] == 200

    eventually(again, "the seat is free again", LEASE_S + 20, 0.5)
    assert set(codes[:-1]) <= {0, 429, 502}, "held until then"
    assert time.monotonic() - killed <= LEASE_S + 10
    stream.close()


def _connections(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections("tcp")
    except psutil.Error:
        return []


def test_the_admin_api_makes_and_ends_keys_and_writes_down_who_did(fleet: LiveFleet) -> None:
    boss = fleet.new_key("boss", "boss", "--scopes", "admin")
    status, made = admin(fleet, boss, "POST", "/keys", {"tenant": "boss", "name": "worker"})
    assert status == 201
    worker = Caller(fleet.port, made["key"])
    eventually(lambda: {a.status for a in worker.many("/v1/models", [None] * 12)} == {200}, "good at both", 5)
    assert admin(fleet, made["key"], "GET", "/keys")[0] == 403, "no admin"
    assert admin(fleet, None, "GET", "/keys")[0] == 401
    assert Caller(fleet.port, boss).call(f"{ADMIN}/keys").status == 404, "not on the public address"
    assert Caller(fleet.port, boss).call(CHAT, chat("qwen")).status == 403, "an admin's key need not call models"
    assert admin(fleet, boss, "DELETE", f"/keys/{made['key_id']}")[0] in (200, 204)
    eventually(lambda: {a.status for a in worker.many("/v1/models", [None] * 12)} == {401}, "refused by both", 5)
    acts = [entry["action"] for entry in admin(fleet, boss, "GET", f"/audit?subject=key:{made['key_id']}")[1]["data"]]
    assert acts == ["key.revoke", "key.create"]
    assert made["key"] not in json.dumps(admin(fleet, boss, "GET", "/audit")[1])


def test_a_tenant_reads_its_own_usage_and_it_is_the_ledgers(fleet: LiveFleet) -> None:
    caller = Caller(fleet.port, fleet.new_key("boss", "reader"))
    assert caller.call(CHAT, chat("qwen", max_tokens=4)).status == 200
    eventually(lambda: fleet.row_count("boss") >= 1 and charged(fleet, "boss") > 0, "its row, and what it cost")
    fleet.settled()
    rows = caller.call("/v1/usage?by=model,day").json["data"]
    assert sum(row["cost_nanousd"] for row in rows) == charged(fleet, "boss")


def test_what_people_write_and_what_is_secret_stands_nowhere(fleet: LiveFleet) -> None:
    key = fleet.new_key("boss", "quiet")
    caller, said = Caller(fleet.port, key), "Zanzibar-4711-quokka"
    answer = caller.call(CHAT, chat("qwen", said, 8)).json["choices"][0]["message"]["content"] or ""
    assert caller.call(CHAT, chat("qwen", said) | {"max_tokens": "many"}).status == 400
    fleet.settled()
    secrets = [(fleet.state_dir / name).read_bytes().strip() for name in ("key_pepper", "replica_secret")]
    for process in fleet.footprint().processes:
        try:
            line = " ".join(process.cmdline()).encode()
        except psutil.Error:
            continue
        assert not [s for s in (*secrets, key.encode()) if s in line], "in a process list"
    from serving import launch

    folders = (fleet.state_dir, launch.work_dir(fleet.state.run))
    for file in (f for folder in folders for f in folder.rglob("*") if f.is_file() and "checkpoints" not in f.parts):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        assert said.encode() not in content, f"the prompt is in {file}"
        assert key[12:].encode() not in content, f"the key is in {file}"
        if file.suffix in (".log", ".err", ".out"):
            assert not [s for s in secrets if s in content], f"a secret is in {file}"
            assert len(answer) < 8 or answer.encode() not in content, f"the answer is in {file}"
    shown = fleet.say("env")
    assert not [s for s in secrets if s.decode("latin-1") in shown]
