"""Adapters and presets that requests named: kept, shown, and the bill cut by them."""

from __future__ import annotations

from ledger_samples import reading, request

from serving.fleet.records import Amounts
from serving.ledger import sums
from serving.ledger.store import Ledger


def fill(ledger: Ledger) -> None:
    """Five requests, of which one has no row of a gateway (yet)."""
    ledger.write_requests([
        request(1, adapter="qwen:pirate"), request(2, adapter="qwen:poet", preset="shop@1"),
        request(3, preset="shop@2"), request(4, adapter="qwen:pirate", tenant="search")])
    charges = {f"flo-{n}": Amounts(10 ** n, idle=n) for n in range(1, 6)}
    ledger.write_reading(reading("r1", charges, compared={"api": 7}))


def test_requests_remember_what_they_named(ledger: Ledger) -> None:
    fill(ledger)
    assert [(row.adapter, row.preset) for row in sums.rows(ledger)] == [
        ("qwen:pirate", ""), ("qwen:poet", "shop@1"), ("", "shop@2"), ("qwen:pirate", ""), ("", "")]
    detail = sums.request(ledger, "flo-2")
    assert detail and detail.request and (detail.request.adapter, detail.request.preset) == ("qwen:poet", "shop@1")


def test_the_bill_by_adapter_and_by_preset(ledger: Ledger) -> None:
    fill(ledger)
    by = {row.keys["adapter"]: row for row in sums.costs(ledger, ["adapter"])}
    assert {name: row.nanousd["direct"] for name, row in by.items()} == {
        "qwen:pirate": 10 + 10_000, "qwen:poet": 100, "": 1_000 + 100_000}
    assert {name: row.allocated["idle"] for name, row in by.items()} == {"qwen:pirate": 5, "qwen:poet": 2, "": 8}
    assert {name: (row.requests, row.compared) for name, row in by.items()} == {
        "qwen:pirate": (2, {"api": 14}), "qwen:poet": (1, {"api": 7}), "": (2, {"api": 14})}
    presets = {row.keys["preset"]: row.nanousd["direct"] for row in sums.costs(ledger, ["preset"])}
    assert presets == {"shop@1": 100, "shop@2": 1_000, "": 110_010}
    both = {tuple(row.keys.values()): row.requests for row in sums.costs(ledger, ["tenant", "adapter"])}
    assert both["demo", "qwen:pirate"] == 2, "the tenant is the engine's, as elsewhere"


def test_rows_add_up_to_the_bill(ledger: Ledger) -> None:
    fill(ledger)
    bill = sums.reconcile(ledger)
    for by in (["adapter"], ["preset"], ["adapter", "preset"], ["model", "adapter", "bucket"], ["day", "preset"]):
        assert sum(row.total_nanousd for row in sums.costs(ledger, by)) == bill.bill_nanousd  # type: ignore[arg-type]
    assert bill.residual_nanousd == 0
