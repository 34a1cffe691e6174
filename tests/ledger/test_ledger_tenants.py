"""Tenants, what keys are good for, and the audit log, on both databases."""

from __future__ import annotations

import ast
import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest
from ledger_samples import PEPPER, alter, reading, request, rows

from serving.errors import ConfigError, InvalidKey, LedgerError
from serving.fleet.limits import Limit, LimitsSpec, bounds
from serving.fleet.records import Amounts, Tokens
from serving.fleet.roster import Roster
from serving.fleet.specs import TenantSpec
from serving.ledger import asking, audit, budgets, keys, tenants
from serving.ledger.asking import rows as asked_rows
from serving.ledger.keys import Grant
from serving.ledger.live import LedgerKeyring
from serving.ledger.store import Ledger
from serving.ledger.usage import usage

LIMITS = LimitsSpec.model_validate({"requests_per_minute": 60, "budget_per_day": {"hard_usd": 0.000001}})
FULL = Grant(2_000.0, ("qwen", "chat"), ("usage", "admin"), "batch", LIMITS)


def test_what_a_key_is_good_for_is_kept(ledger: Ledger) -> None:
    _, made = keys.create(ledger, "demo", "one", PEPPER, 1.0, FULL, "cli:me")
    (found,) = keys.all_keys(ledger)
    assert found == made
    assert (found.expires_at, found.models, found.scopes, found.priority) == (
        2_000.0, ("qwen", "chat"), ("usage", "admin"), "batch")
    assert found.limits == LIMITS and found.limits.budget_per_day.hard_usd == Decimal("0.000001")
    who = found.principal()
    assert (who.models, who.scopes, who.priority) == (frozenset({"qwen", "chat"}), frozenset({"usage", "admin"}),
                                                      "batch")


async def test_a_key_expires(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = keys.create(ledger, "demo", "one", PEPPER, 1.0, Grant(expires_at=2_000.0))
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=3600)
    monkeypatch.setattr("time.time", lambda: 1_999.0)
    assert (await keyring.principal(text)).tenant == "demo"
    monkeypatch.setattr("time.time", lambda: 2_000.0)
    with pytest.raises(InvalidKey, match="has expired"):
        await keyring.principal(text)


@pytest.mark.parametrize("overlap", [0.0, 100.0])
async def test_rotation_passes_on_all_that_the_old_key_was_good_for(ledger: Ledger, overlap: float) -> None:
    old_text, old = keys.create(ledger, "demo", "one", PEPPER, 1.0, FULL)
    text, new = keys.rotate(ledger, "one", PEPPER, 50.0, overlap, "cli:me")
    assert text != old_text and new.rotated_from == old.key_id
    assert new.principal().models == old.principal().models and new.limits == old.limits
    was = next(k for k in keys.all_keys(ledger) if k.key_id == old.key_id)
    assert (was.revoked_at, was.expires_at) == ((None, 150.0) if overlap else (50.0, 2_000.0))


def test_rotation_never_makes_a_key_last_longer(ledger: Ledger) -> None:
    _, old = keys.create(ledger, "demo", "one", PEPPER, 1.0, Grant(expires_at=60.0))
    keys.rotate(ledger, "one", PEPPER, 50.0, 3_600.0)
    assert next(k for k in keys.all_keys(ledger) if k.key_id == old.key_id).expires_at == 60.0


async def test_when_a_key_was_last_used_is_noted(ledger: Ledger) -> None:
    text, made = keys.create(ledger, "demo", "one", PEPPER, 1.0)
    keyring = LedgerKeyring(ledger, PEPPER)
    await keyring.principal(text)
    await keyring.close()
    (found,) = keys.all_keys(ledger)
    assert found.last_used_at is not None and found.last_used_at > 1e9
    keys.note_used(ledger, {made.key_id: 5.0})
    assert keys.all_keys(ledger) == [found], "an older moment changes nothing"


async def test_two_gateways_obey_a_revocation_within_five_seconds(ledger: Ledger) -> None:
    text, _ = keys.create(ledger, "demo", "one", PEPPER, 1.0)
    gateways = [LedgerKeyring(ledger, PEPPER) for _ in range(2)]
    for keyring in gateways:
        await keyring.principal(text)
    keys.revoke(ledger, "one", 5.0)

    async def refused(keyring: LedgerKeyring) -> None:
        while True:
            try:
                await keyring.principal(text)
            except InvalidKey:
                return
            await asyncio.sleep(0.02)

    async with asyncio.timeout(5):
        await asyncio.gather(*map(refused, gateways))


def spec(**changes: object) -> TenantSpec:
    return TenantSpec.model_validate(changes)


def test_tenants_come_from_the_fleet_file(ledger: Ledger) -> None:
    assert tenants.all_tenants(ledger) == {}
    found = {"shop": spec(models=("qwen",), weight=2.0, limits={"requests_per_minute": 5}), "search": spec()}
    tenants.seed(ledger, found, 1.0)
    assert tenants.all_tenants(ledger) == found
    tenants.seed(ledger, found, 2.0)
    assert len(audit.entries(ledger)) == 2, "to start again changes nothing"


def test_what_was_changed_here_stays_until_the_file_changes(ledger: Ledger) -> None:
    tenants.seed(ledger, {"shop": spec()}, 1.0)
    tenants.put(ledger, "shop", spec(weight=3.0), 2.0, "key_1")
    tenants.put(ledger, "made-here", spec(), 2.0, "key_1")
    tenants.seed(ledger, {"shop": spec()}, 3.0)
    assert tenants.all_tenants(ledger) == {"shop": spec(weight=3.0), "made-here": spec()}
    tenants.seed(ledger, {"shop": spec(weight=5.0)}, 4.0)
    assert tenants.all_tenants(ledger)["shop"] == spec(weight=5.0)
    tenants.seed(ledger, {"search": spec()}, 5.0)
    assert set(tenants.all_tenants(ledger)) == {"search", "made-here"}, "what the file no longer has goes"


def test_a_removed_tenant_stays_away_while_the_file_says_the_same(ledger: Ledger) -> None:
    tenants.seed(ledger, {"shop": spec()}, 1.0)
    tenants.remove(ledger, "shop", 2.0, "key_1")
    tenants.seed(ledger, {"shop": spec()}, 3.0)
    assert tenants.all_tenants(ledger) == {}
    with pytest.raises(ConfigError, match="there is no tenant 'shop'"):
        tenants.remove(ledger, "shop", 4.0, "key_1")


async def test_gateways_follow_the_tenants(ledger: Ledger) -> None:
    roster = Roster({"file": spec()})
    text, _ = keys.create(ledger, "demo", "one", PEPPER, 1.0)
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=0.0, roster=roster)
    first = await keyring.principal(text)
    assert dict(roster) == {"file": spec()}, "a ledger without tenants says nothing about them"
    tenants.put(ledger, "shop", spec(weight=3.0), 2.0, "key_1")
    assert await keyring.principal(text) is first, "nothing has changed for this key"
    assert dict(roster) == {"shop": spec(weight=3.0)} and roster.weights.get("shop", 1.0) == 3.0


def test_the_audit_log_says_who_did_what_and_no_secret(ledger: Ledger) -> None:
    text, made = keys.create(ledger, "demo", "one", PEPPER, 1.0, FULL, "cli:me")
    rotated, _ = keys.rotate(ledger, "one", PEPPER, 2.0, 0.0, "key_9")
    keys.revoke(ledger, "one", 3.0, "oidc:ada")
    tenants.put(ledger, "shop", spec(weight=2.0), 4.0, "cli:me")
    found = audit.entries(ledger)
    assert [(e.at, e.actor, e.action) for e in found] == [
        (4.0, "cli:me", "tenant.set"), (3.0, "oidc:ada", "key.revoke"), (2.0, "key_9", "key.rotate"),
        (1.0, "cli:me", "key.create")]
    assert found[3].subject == f"key:{made.key_id}" and found[3].details["limits"]["requests_per_minute"] == 60
    assert audit.entries(ledger, subject="tenant:shop") == found[:1]
    assert audit.entries(ledger, limit=2) == found[:2]
    assert audit.entries(ledger, before=found[1].number) == found[2:]
    everything = json.dumps([vars(e) for e in found])
    assert text not in everything and rotated not in everything and made.digest not in everything


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'someone else'", "DELETE FROM audit"])
def test_nothing_of_the_audit_log_can_be_changed(ledger: Ledger, statement: str) -> None:
    keys.create(ledger, "demo", "one", PEPPER, 1.0)
    before = rows(ledger, "audit")
    with pytest.raises(LedgerError, match="only grows"):
        alter(ledger, statement)
    assert rows(ledger, "audit") == before


def test_an_act_that_fails_is_not_in_the_log(ledger: Ledger) -> None:
    with pytest.raises(ConfigError):
        keys.revoke(ledger, "none", 1.0)
    assert audit.entries(ledger) == []


NAME = "'; DROP TABLE keys; --"


def test_names_are_values_and_never_sql(ledger: Ledger) -> None:
    keys.create(ledger, NAME, NAME, PEPPER, 1.0, None, NAME)
    tenants.put(ledger, NAME, spec(description=NAME), 1.0, NAME)
    assert keys.revoke(ledger, NAME, 2.0, NAME).name == NAME
    assert audit.entries(ledger, subject=f"tenant:{NAME}")[0].actor == NAME
    assert usage(ledger, of={"tenant": NAME, "key": NAME, "model": NAME}) == []
    assert budgets.spent(ledger, {"tenant": NAME}, 0.0, 1e9) == 0
    assert budgets.charged(ledger, [NAME]) == {}


DAY = 86_400.0


def filled(ledger: Ledger) -> None:
    """Three tenants' requests over two days."""
    ledger.write_requests([
        request(1, tenant="shop", key_id="k1", started_at=10.0), request(2, tenant="shop", key_id="k2", started_at=DAY),
        request(3, tenant="search", key_id="k3", started_at=DAY + 5, model="llama", outcome="aborted", tokens=None)])
    ledger.write_reading(reading(charges={"flo-1": Amounts(100, 0, 20, 3), "flo-2": 50, "flo-9": 7}))
    ledger.write_reading(reading("r2", {"flo-3": 9}, tenant="search", outcome="aborted"))
    ledger.write_reading(reading("r3", {"flo-4": 5}, outcome="running"))


def test_usage_by_everything_adds_up_to_the_ledger(ledger: Ledger) -> None:
    filled(ledger)
    by_model = usage(ledger)
    everything = ("tenant", "key", "model", "adapter", "preset", "day")
    for by in (*((name,) for name in everything), everything, ()):
        found = usage(ledger, by=by)
        for name in ("requests", "prompt_tokens", "completion_tokens", "aborted", "nanousd"):
            assert sum(getattr(r, name) for r in found) == sum(getattr(r, name) for r in by_model), (by, name)
    assert [(r.day, r.requests, r.nanousd) for r in usage(ledger, by=("day",))] == [
        ("1970-01-01", 1, 123), ("1970-01-02", 2, 59)]
    assert [(r.key, r.nanousd) for r in usage(ledger, by=("key",), of={"tenant": "shop"})] == [("k1", 123), ("k2", 50)]
    (aborted,) = usage(ledger, by=("tenant",), of={"model": "llama"})
    assert (aborted.tenant, aborted.prompt_tokens, aborted.nanousd) == ("search", 8, 9), "the engine's count"


def test_usage_tells_adapters_and_presets_apart(ledger: Ledger) -> None:
    filled(ledger)
    ledger.write_requests([request(5, tenant="shop", adapter="qwen:tone", preset="seller@2"),
                           request(6, tenant="shop", adapter="qwen:tone"), request(7, adapter="qwen:short")])
    ledger.write_reading(reading("r5", {"flo-5": 40, "flo-6": 2, "flo-7": 30}))
    assert [(r.adapter, r.requests, r.prompt_tokens, r.nanousd) for r in usage(ledger, by=("adapter",))] == [
        ("", 3, 28, 182), ("qwen:short", 1, 10, 30), ("qwen:tone", 2, 20, 42)]
    assert [(r.preset, r.nanousd) for r in usage(ledger, by=("preset",), of={"adapter": "qwen:tone"})] == [
        ("", 2), ("seller@2", 40)]
    assert asked_rows(ledger, {"by": "adapter"}, 0.0, (), ("by",), {"tenant": "demo"})[0]["adapter"] == "qwen:short"


def test_usage_as_callers_ask_for_it(ledger: Ledger) -> None:
    filled(ledger)
    found = asked_rows(ledger, {"by": "day", "since": "1970-01-02"}, 0.0, ("model",), ("by", "since"),
                       {"tenant": "shop"})
    assert found == [{"day": "1970-01-02", "requests": 1, "errors": 0, "aborted": 0, "prompt_tokens": 10,
                      "cached_tokens": 4, "completion_tokens": 5, "cost_usd": 5e-8, "cost_nanousd": 50}]


def test_no_query_reaches_beyond_its_tenant(ledger: Ledger) -> None:
    filled(ledger)
    found = asked_rows(ledger, {"by": "tenant", "tenant": "search"}, 0.0, (), ("by", "tenant"), {"tenant": "shop"})
    assert [row["tenant"] for row in found] == ["shop"]


def limit(period: str, **of: str) -> Limit:
    return Limit("x", "x", "usd", 1, "money", period, None, tuple(of.items()))  # type: ignore[arg-type]


async def test_what_a_budget_has_spent_is_what_its_periods_ended_requests_cost(ledger: Ledger) -> None:
    filled(ledger)
    truth = budgets.LedgerTruth(ledger)
    assert await truth.spent(limit("day", tenant="shop"), 20.0) == 123
    assert await truth.spent(limit("day", tenant="shop"), DAY + 20.0) == 50
    assert await truth.spent(limit("month", tenant="shop"), 20.0) == 173
    assert await truth.spent(limit("month", key="k2"), 20.0) == 50
    assert await truth.spent(limit("month", model="llama"), 20.0) == 9
    assert await truth.spent(limit("month", tenant="shop", model="llama"), 20.0) == 0
    assert bounds("month", 20.0) == (0.0, 31 * DAY)
    by = budgets.spent_by(ledger, *bounds("month", 20.0))
    assert sum(nano for (tenant, _), nano in by.items() if tenant == "shop") == 173
    assert sum(nano for (_, model), nano in by.items() if model == "llama") == 9


async def test_what_the_ledger_knows_of_single_requests(ledger: Ledger) -> None:
    filled(ledger)
    found = await budgets.LedgerTruth(ledger).charged(["flo-1", "flo-4", "nothing"])
    assert {name: (c.used.tokens, c.used.nanousd, c.running) for name, c in found.items()} == {
        "flo-1": (Tokens(8, 2, 3), 123, False), "flo-4": (Tokens(8, 2, 3), 5, True)}


async def test_a_guessed_key_is_refused_in_the_same_words_whatever_it_begins_with(ledger: Ledger) -> None:
    text, key = keys.create(ledger, "shop", "app", PEPPER, 1.0)
    ring = LedgerKeyring(ledger, PEPPER, miss_age_s=0.0)
    assert (await ring.principal(text)).key_id == key.key_id
    said = set()
    for guess in ("flt_" + "0" * 48, key.prefix, key.prefix + "0" * (len(text) - len(key.prefix)), text[:-1],
                  text + "0", text[:-1] + ("0" if text[-1] != "0" else "1"), text.upper()):
        with pytest.raises(InvalidKey) as refused:
            await ring.principal(guess)
        said.add(str(refused.value))
    assert len(said) == 1 and key.prefix not in said.pop()


def test_no_statement_of_the_ledger_is_put_together_from_values() -> None:
    """A text of SQL has no hole but for constants of its module, which are in capitals."""
    for file in Path(asking.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", getattr(node.func, "attr", "")) not in (
                    "text", "execute", "exec_driver_sql"):
                continue
            for argument in node.args:
                assert not isinstance(argument, ast.BinOp), f"{file}:{node.lineno}"
                holes = argument.values if isinstance(argument, ast.JoinedStr) else []
                values = [hole.value for hole in holes if isinstance(hole, ast.FormattedValue)]
                assert all(isinstance(v, ast.Name) and v.id.isupper() for v in values), f"{file}:{node.lineno}"
