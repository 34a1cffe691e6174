"""Sums: good books leave no residual, and a wrong row is found."""

from __future__ import annotations

import pytest
from ledger_samples import PRICE, reading, request

from serving.fleet.money import NS_PER_HOUR, bill
from serving.fleet.records import MeterReading, Tokens
from serving.ledger import sums
from serving.ledger.store import Ledger


def test_an_empty_ledger_adds_up(ledger: Ledger) -> None:
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.bill_nanousd, found.replicas) == (0, 0, 0)
    assert sums.usage(ledger) == []
    assert sums.totals(ledger, 0.0).models() == {}


def test_good_books_leave_nothing(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1"))
    ledger.write_reading(reading("r2", {"flo-3": 7}, ns=NS_PER_HOUR + 1, cold_nanousd=0))
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.wrong_replicas) == (0, ())
    assert found.bill_nanousd == bill(PRICE, NS_PER_HOUR // 10) + bill(PRICE, NS_PER_HOUR + 1)
    assert found.bill_nanousd == found.requests_nanousd + found.idle_nanousd + found.cold_start_nanousd
    assert (found.replicas, found.charged_requests, found.requests_nanousd) == (2, 3, 150_000_007)


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE charges SET nanousd = nanousd + 1 WHERE request_id = 'flo-1'",
        "DELETE FROM charges WHERE request_id = 'flo-1'",
        "UPDATE replicas SET idle_nanousd = idle_nanousd - 1 WHERE replica_id = 'r1'",
        "UPDATE replicas SET cold_nanousd = 1 WHERE replica_id = 'r1'",
        "UPDATE replicas SET price_nanousd_per_hour = price_nanousd_per_hour * 2 WHERE replica_id = 'r1'",
        "UPDATE replicas SET elapsed_ns = elapsed_ns * 2 WHERE replica_id = 'r1'",
        "INSERT INTO charges VALUES ('r1', 'flo-9', 'demo', 'finished', 5, 1, 0, 1, 1.0)",
    ],
)
def test_a_row_that_was_tampered_with_names_its_replica(ledger: Ledger, tamper: str) -> None:
    ledger.write_reading(reading("r1"))
    ledger.write_reading(reading("r2", {"flo-3": 7}))
    with ledger.transaction() as db:
        db.execute(tamper)
    found = sums.reconcile(ledger)
    assert found.residual_nanousd > 0
    assert found.wrong_replicas == ("r1",)


def test_two_wrongs_do_not_make_a_right(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 10}))
    ledger.write_reading(reading("r2", {"flo-2": 10}))
    with ledger.transaction() as db:
        db.execute("UPDATE charges SET nanousd = 13 WHERE replica_id = 'r1'")
        db.execute("UPDATE charges SET nanousd = 7 WHERE replica_id = 'r2'")
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.wrong_replicas) == (6, ("r1", "r2"))


def test_a_charge_of_no_replica_is_a_residual(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1"))
    with ledger.transaction() as db:
        db.execute("INSERT INTO charges VALUES ('ghost', 'flo-9', 'demo', 'finished', 5, 1, 0, 1, 1.0)")
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.wrong_replicas) == (5, ())


def test_usage_by_tenant_and_model(ledger: Ledger) -> None:
    ledger.write_requests(
        [
            request(1),
            request(2, tokens=Tokens(20, 0, 7)),
            request(3, tenant="search"),
            request(4, model="llama"),
            request(5, code=400, outcome="rejected", tokens=None),
            request(6, code=502, outcome="failed", tokens=None),
        ]
    )
    ledger.write_reading(reading(charges={"flo-1": 100, "flo-2": 50, "flo-3": 7}))
    rows = {(row.tenant, row.model): row for row in sums.usage(ledger)}
    assert set(rows) == {("demo", "qwen"), ("demo", "llama"), ("search", "qwen")}
    demo = rows["demo", "qwen"]
    assert (demo.requests, demo.errors, demo.aborted, demo.nanousd) == (4, 2, 0, 150)
    assert (demo.prompt_tokens, demo.cached_tokens, demo.completion_tokens) == (30, 4, 12)
    assert rows["search", "qwen"].nanousd == 7
    assert rows["demo", "llama"].nanousd == 0


def test_an_aborted_request_has_the_engines_tokens_and_its_cost(ledger: Ledger) -> None:
    ledger.write_requests([request(1, code=499, outcome="aborted", tokens=None)])
    ledger.write_reading(reading("r1", {"flo-1": 100}, outcome="aborted"))
    ledger.write_reading(reading("r2", {"flo-1": 11}, outcome="aborted"))  # it was on two replicas
    (row,) = sums.usage(ledger)
    assert (row.requests, row.aborted, row.errors, row.nanousd) == (1, 1, 0, 111)
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (16, 4, 6)


def test_usage_of_a_time(ledger: Ledger) -> None:
    ledger.write_requests([request(n) for n in range(4)])  # they begin at 100, 101, 102, 103
    assert [row.requests for row in sums.usage(ledger, since=101.0, until=103.0)] == [2]
    assert sums.usage(ledger, since=500.0) == []


def test_totals_by_model_are_the_bill(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1"))
    ledger.write_reading(reading("r2", {"flo-8": 9}, outcome="running"))
    ledger.write_reading(reading("r3", {"flo-9": 4}, model="llama"))
    found = sums.totals(ledger, 21.0)
    models = found.models()
    assert set(models) == {"qwen", "llama"}
    qwen = models["qwen"]
    assert (qwen.nanousd["direct"], qwen.running_nanousd, qwen.requests) == (150_000_000, 9, 2)
    assert qwen.bill_nanousd == 2 * bill(PRICE, NS_PER_HOUR // 10)
    assert qwen.tokens == Tokens(8, 2, 3)
    assert sum(m.bill_nanousd for m in models.values()) == sums.reconcile(ledger).bill_nanousd


def test_who_is_alive(ledger: Ledger) -> None:
    ledger.write_reading(reading("fresh", seen_at=100.0))
    ledger.write_reading(reading("stale", seen_at=100.0 - sums.ALIVE_S))
    ledger.write_reading(reading("ended", seen_at=100.0, ended=True))
    alive = {r.replica_id: r.alive for r in sums.totals(ledger, 100.0).replicas}
    assert alive == {"fresh": True, "stale": False, "ended": False}


def test_a_replica_without_requests_is_in_the_sums(ledger: Ledger) -> None:
    full = reading("r1", {})
    ledger.write_reading(MeterReading(full.replica))
    assert sums.totals(ledger, 20.0).models()["qwen"].bill_nanousd == bill(PRICE, NS_PER_HOUR // 10)
    assert sums.reconcile(ledger).residual_nanousd == 0
