"""Sums: good books leave no residual, and a wrong row is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_samples import PRICE, alter, overhead, reading, request

from serving.fleet.money import NS_PER_HOUR, bill
from serving.fleet.records import Amounts, MeterReading, Tokens
from serving.ledger import sums
from serving.ledger.store import Ledger


def test_an_empty_ledger_adds_up(ledger: Ledger) -> None:
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.bill_nanousd, found.sources) == (0, 0, 0)
    assert sums.usage(ledger) == []
    assert sums.totals(ledger, 0.0).models() == {}


def test_good_books_leave_nothing(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1"))
    ledger.write_reading(reading("r2", {"flo-3": Amounts(7, 2, 300, 0)}, ns=NS_PER_HOUR + 1))
    ledger.write_reading(overhead())
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.wrong_sources) == (0, ())
    assert found.bill_nanousd == bill(PRICE, NS_PER_HOUR // 10) + bill(PRICE, NS_PER_HOUR + 1) + PRICE // 4
    assert found.bill_nanousd == (found.requests_nanousd + found.idle_nanousd + found.cold_start_nanousd
                                  + found.overhead_nanousd)
    assert (found.sources, found.charged_requests, found.requests_nanousd) == (3, 3, 150_000_009)
    assert (found.allocated_nanousd, found.overhead_nanousd) == (300, PRICE // 4)


def test_a_price_change_in_the_middle_is_billed_at_both_prices(ledger: Ledger) -> None:
    """One floor over the whole source: each interval alone would lose a part of a nano-dollar."""
    found = reading("r1", {}, ns=2 * 10**12 + 1)
    first = replace(found.intervals[0], elapsed_ns=10**12, idle_ns=10**12, idle_nanousd=833_333_333)
    price = 7_000_000_000
    whole = (PRICE * 10**12 + price * (10**12 + 1)) // NS_PER_HOUR
    second = replace(first, starts_at=1010.0, price_nanousd_per_hour=price, elapsed_ns=10**12 + 1, idle_ns=10**12 + 1,
                     idle_nanousd=whole - first.idle_nanousd)
    source = replace(found.source, idle_nanousd=whole, price_nanousd_per_hour=price)
    ledger.write_reading(MeterReading(1, source, (first, second)))
    books = sums.reconcile(ledger)
    assert (books.residual_nanousd, books.bill_nanousd) == (0, whole)


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE charges SET direct = direct + 1 WHERE request_id = 'flo-1'",
        "UPDATE charges SET waste = waste - 1 WHERE request_id = 'flo-1'",
        "UPDATE charges SET direct = direct - 1, waste = waste + 1 WHERE request_id = 'flo-1'",
        "DELETE FROM charges WHERE request_id = 'flo-1'",
        "UPDATE charges SET idle = 200000000 WHERE request_id = 'flo-1'",
        "UPDATE charges SET cold_start = 1 WHERE request_id = 'flo-1'",
        "UPDATE totals SET direct = direct + 1 WHERE source_id = 'r1'",
        "DELETE FROM totals WHERE source_id = 'r1'",
        "UPDATE sources SET idle_nanousd = idle_nanousd - 1 WHERE source_id = 'r1'",
        "UPDATE sources SET cold_nanousd = 1 WHERE source_id = 'r1'",
        "UPDATE sources SET overhead_nanousd = 1 WHERE source_id = 'r1'",
        "UPDATE sources SET elapsed_ns = elapsed_ns + 1 WHERE source_id = 'r1'",
        "UPDATE sources SET busy_ns = 5 WHERE source_id = 'r1'",
        "UPDATE intervals SET price_nanousd_per_hour = price_nanousd_per_hour * 2 WHERE source_id = 'r1'",
        "UPDATE intervals SET elapsed_ns = elapsed_ns * 2 WHERE source_id = 'r1'",
        "UPDATE intervals SET idle_nanousd = idle_nanousd + 1 WHERE source_id = 'r1'",
        "UPDATE intervals SET busy_nanousd = busy_nanousd + 1 WHERE source_id = 'r1'",
        "UPDATE intervals SET cold_nanousd = cold_nanousd + 1 WHERE source_id = 'r1'",
        "DELETE FROM intervals WHERE source_id = 'r1'",
        "DELETE FROM sources WHERE source_id = 'r1'",
        "UPDATE charges SET source_id = 'r1' WHERE request_id = 'flo-3'; ",
    ],
)
def test_a_row_that_was_tampered_with_names_its_source(ledger: Ledger, tamper: str) -> None:
    ledger.write_reading(reading("r1"))
    ledger.write_reading(reading("r2", {"flo-3": 7}))
    alter(ledger, tamper)
    found = sums.reconcile(ledger)
    assert found.residual_nanousd > 0
    assert found.wrong_sources == (("r1", "r2") if "flo-3" in tamper else ("r1",))


def test_two_wrongs_do_not_make_a_right(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 10}, outcome="running"))
    ledger.write_reading(reading("r2", {"flo-2": 10}, outcome="running"))
    alter(ledger, "UPDATE charges SET direct = 13 WHERE source_id = 'r1'")
    alter(ledger, "UPDATE charges SET direct = 7 WHERE source_id = 'r2'")
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.wrong_sources) == (6, ("r1", "r2"))


@pytest.mark.parametrize("table", ["charges", "totals", "intervals"])
def test_a_row_of_no_source_is_a_residual(ledger: Ledger, table: str) -> None:
    ledger.write_reading(reading("r1"))
    ledger.write_reading(reading("ghost"))
    for other in {"sources", "charges", "totals", "intervals"} - {table}:
        alter(ledger, f"DELETE FROM {other} WHERE source_id = 'ghost'")
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd > 0, found.wrong_sources, found.sources) == (table != "totals", ("ghost",)[
        :table != "totals"], 1)


def test_one_row_for_many_requests_that_have_none_of_their_own_is_no_error(ledger: Ledger) -> None:
    found = reading("r1", {"flo-1": 10, "unmetered:r1:demo": 30})
    total = replace(found.totals[0], requests=4)
    ledger.write_reading(replace(found, totals=(total,)))
    assert sums.reconcile(ledger).residual_nanousd == 0


def test_totals_by_model_are_the_bill(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": Amounts(100, 20, 3, 0), "flo-2": 50}, compared={"api": 9}))
    ledger.write_reading(reading("r2", {"flo-8": Amounts(9, 1, 5, 0)}, outcome="running"))
    ledger.write_reading(reading("r3", {"flo-9": 4}, model="llama", tenant="shop", outcome="aborted"))
    ledger.write_reading(overhead())
    found = sums.totals(ledger, 21.0)
    models = found.models()
    assert set(models) == {"", "qwen", "llama"}
    qwen = models["qwen"]
    assert (qwen.nanousd["direct"], qwen.nanousd["waste"], qwen.running_nanousd, qwen.requests) == (150, 20, 10, 2)
    assert qwen.bill_nanousd == 2 * bill(PRICE, NS_PER_HOUR // 10)
    assert (qwen.tokens, qwen.compared, qwen.allocated_nanousd) == (Tokens(16, 4, 6), {"api": 18}, 3 + 5)
    assert (models["llama"].unfinished, models["llama"].nanousd["waste"]) == (1, 4)
    assert (models[""].nanousd["overhead"], models[""].bill_nanousd) == (PRICE // 4, PRICE // 4)
    assert sum(m.bill_nanousd for m in models.values()) == sums.reconcile(ledger).bill_nanousd
    assert [(t.model, t.tenant, t.requests) for t in found.tenants] == [("llama", "shop", 1), ("qwen", "demo", 2)]
    assert [s.source_id for s in found.replicas] == ["r1", "r2", "r3"]


def test_totals_of_one_tenant_on_two_replicas_are_one(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 5}, compared={"a": 1, "b": 2}))
    ledger.write_reading(reading("r2", {"flo-2": 6}, compared={"a": 10}))
    (found,) = sums.totals(ledger, 0.0).tenants
    assert (found.amounts, found.requests, found.compared) == (Amounts(11), 2, {"a": 11, "b": 2})


def test_who_is_alive(ledger: Ledger) -> None:
    ledger.write_reading(reading("fresh", seen_at=100.0))
    ledger.write_reading(reading("stale", seen_at=100.0 - sums.ALIVE_S))
    ledger.write_reading(reading("ended", seen_at=100.0, ended=True))
    alive = {s.source_id: s.alive for s in sums.totals(ledger, 100.0).sources}
    assert alive == {"fresh": True, "stale": False, "ended": False}


def test_a_source_without_requests_is_in_the_sums(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {}))
    assert sums.totals(ledger, 20.0).models()["qwen"].bill_nanousd == bill(PRICE, NS_PER_HOUR // 10)
    assert sums.reconcile(ledger).residual_nanousd == 0


def test_sums_are_whole_numbers_however_large(ledger: Ledger) -> None:
    """A database's own sum of them may be a decimal, or a float."""
    large = 2**52 + 1
    ledger.write_reading(reading("r1", {"flo-1": large, "flo-2": large}))
    ledger.write_requests([request(1), request(2)])
    found = sums.reconcile(ledger)
    assert (found.requests_nanousd, type(found.requests_nanousd)) == (2 * large, int)
    (row,) = sums.usage(ledger)
    assert (row.nanousd, type(row.nanousd)) == (2 * large, int)


# -- usage


def test_usage_by_tenant_and_model(ledger: Ledger) -> None:
    ledger.write_requests([
        request(1), request(2, tokens=Tokens(20, 0, 7)), request(3, tenant="search"), request(4, model="llama"),
        request(5, code=400, outcome="rejected", tokens=None), request(6, code=502, outcome="failed", tokens=None),
    ])
    ledger.write_reading(reading(charges={"flo-1": Amounts(100, 0, 11, 2), "flo-2": 50, "flo-3": 7}))
    found = {(row.tenant, row.model): row for row in sums.usage(ledger)}
    assert set(found) == {("demo", "qwen"), ("demo", "llama"), ("search", "qwen")}
    demo = found["demo", "qwen"]
    assert (demo.requests, demo.errors, demo.aborted, demo.nanousd) == (4, 2, 0, 163)
    assert demo.amounts == Amounts(150, 0, 11, 2)
    assert (demo.prompt_tokens, demo.cached_tokens, demo.completion_tokens) == (30, 4, 12)
    assert found["search", "qwen"].nanousd == 7
    assert found["demo", "llama"].nanousd == 0


def test_an_aborted_request_has_the_engines_tokens_and_its_cost(ledger: Ledger) -> None:
    ledger.write_requests([request(1, code=499, outcome="aborted", tokens=None)])
    ledger.write_reading(reading("r1", {"flo-1": 100}, outcome="aborted"))
    ledger.write_reading(reading("r2", {"flo-1": 11}, outcome="aborted"))  # it was on two replicas
    (row,) = sums.usage(ledger)
    assert (row.requests, row.aborted, row.errors, row.amounts) == (1, 1, 0, Amounts(waste=111))
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (16, 4, 6)


def test_usage_of_a_time(ledger: Ledger) -> None:
    ledger.write_requests([request(n) for n in range(4)])  # they begin at 100, 101, 102, 103
    assert [row.requests for row in sums.usage(ledger, since=101.0, until=103.0)] == [2]
    assert sums.usage(ledger, since=500.0) == []


def test_the_shape_of_a_models_requests(ledger: Ledger) -> None:
    ledger.write_requests([
        request(1), request(2, tokens=Tokens(21, 0, 8), duration_s=3.5), request(3, tokens=None),
        request(4, outcome="aborted"), request(5, model="llama"), request(-50, tokens=Tokens(9999, 0, 0)),
    ])
    found = sums.shapes(ledger, "qwen", since=100.0)
    assert found is not None
    assert (found.requests, found.prompt, found.cached, found.completion) == (2, 15.5, 2.0, 6.5)
    assert (found.first_at, found.last_at, found.span_s) == (101.0, 105.5, 4.5)
    assert sums.shapes(ledger, "nothing") is None
