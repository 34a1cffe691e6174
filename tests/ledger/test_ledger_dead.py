"""Requests of what died under them: failed, their work waste, and the books still add up."""

from __future__ import annotations

from ledger_samples import reading, rows

from serving.ledger import schema, sums
from serving.ledger.dead import Closer
from serving.ledger.store import Ledger


def outcomes(ledger: Ledger) -> dict[str, str]:
    with ledger.snapshot() as db:
        return {row.request_id: row.outcome for row in db.execute(schema.charges.select())}


def test_a_killed_replicas_requests_have_failed(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 100, "flo-2": 50}, outcome="running"))
    ledger.write_reading(reading("r2", {"flo-3": 70}, outcome="running", seen_at=1_000.0))
    closer = Closer(ledger, lambda: 1_001.0)
    assert [closer.look(), closer.look()] == [[], []], "it may yet be heard"
    assert closer.look() == ["r1"]
    assert outcomes(ledger) == {"flo-1": "failed", "flo-2": "failed", "flo-3": "running"}
    found = sums.totals(ledger, 1_001.0)
    (total,) = found.tenants
    assert (total.amounts.direct, total.amounts.waste, total.requests, total.unfinished) == (0, 150, 2, 2)
    assert found.running == {"qwen": 70}
    assert sums.reconcile(ledger).residual_nanousd == 0
    assert closer.look() == []


def test_totals_that_are_there_grow(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 100}))
    ledger.write_reading(reading("r1", {"flo-1": 100, "flo-2": 50}, outcome="running", number=2))
    before = rows(ledger, "totals")
    closer = Closer(ledger, lambda: 1_000.0)
    for _ in range(3):
        closer.look()
    assert len(rows(ledger, "totals")) == len(before) == 1
    (total,) = sums.totals(ledger, 1_000.0).tenants
    assert (total.requests, total.unfinished) == (1 + 2, 2)


def test_one_that_says_that_it_ended_is_closed_at_once(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 100}, outcome="running", ended=True))
    assert Closer(ledger, lambda: 21.0).look() == ["r1"]


def test_one_that_was_only_cut_off_tells_the_truth_again(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 100}, outcome="running"))
    closer = Closer(ledger, lambda: 1_000.0)
    for _ in range(3):
        closer.look()
    assert outcomes(ledger) == {"flo-1": "failed"}
    ledger.write_reading(reading("r1", {"flo-1": 120}, number=2))
    assert outcomes(ledger) == {"flo-1": "finished"}
    (total,) = sums.totals(ledger, 1_000.0).tenants
    assert (total.amounts.direct, total.amounts.waste, total.requests, total.unfinished) == (120, 0, 1, 0)
    assert sums.reconcile(ledger).residual_nanousd == 0


def test_one_that_is_heard_again_in_between_is_not_dead(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 100}, outcome="running"))
    closer = Closer(ledger, lambda: 1_000.0)
    closer.look()
    closer.look()
    ledger.write_reading(reading("r1", {"flo-1": 110}, outcome="running", number=2))
    assert closer.look() == [] and outcomes(ledger) == {"flo-1": "running"}
