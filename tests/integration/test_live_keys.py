"""Keys: made and revoked on the command line, obeyed by every gateway process."""

from __future__ import annotations

import time

import pytest
from live_calls import Caller
from live_fleet import LiveFleet, eventually

pytestmark = pytest.mark.integration
MODELS = "/v1/models"


def test_a_new_key_works_at_once_on_both_gateways_and_a_revoked_one_nowhere(fleet: LiveFleet) -> None:
    stale = Caller(fleet.port, "flt_" + "0" * 48)
    assert {a.status for a in stale.many(MODELS, [None] * 12)} == {401}, "both gateways have read the keys before"
    caller = Caller(fleet.port, fleet.new_key("keyed", "short-lived"))
    assert {a.status for a in caller.many(MODELS, [None] * 24)} == {200}, "known to both gateways"
    fleet.say("keys", "revoke", "short-lived")
    revoked = time.monotonic()
    # refused by all of many calls, so by both gateways
    eventually(lambda: {a.status for a in caller.many(MODELS, [None] * 24)} == {401}, "refused on both gateways",
               5 - (time.monotonic() - revoked))
    assert "revoked" in caller.call(MODELS).json["error"]["message"]


def test_the_ledger_cannot_give_a_key_away(fleet: LiveFleet) -> None:
    key = fleet.new_key("keyed", "secret")
    assert Caller(fleet.port, key).call(MODELS).status == 200
    files = [f for f in fleet.state_dir.rglob("*") if f.is_file() and "checkpoints" not in f.parts]
    assert any(f.name == "ledger.db" for f in files)
    secret = key[12:].encode()  # lists show what stands before
    assert [f for f in files if secret in f.read_bytes()] == []
    assert key not in fleet.say("keys", "list", "--json")
    for name in ("key_pepper", "replica_secret"):
        assert (fleet.state_dir / name).stat().st_mode & 0o077 == 0, f"{name} is its owner's alone"
