"""The bill, cut: however it is cut, the rows add up to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import PRICE, alter, overhead, reading

from serving.errors import ConfigError
from serving.fleet.money import NS_PER_HOUR, bill
from serving.fleet.records import Amounts, EngineOutcome, Tokens
from serving.ledger import sums
from serving.ledger.store import Ledger

DAY = 86_400.0
LAST_SECOND = 1_767_225_599.5  # 2025-12-31T23:59:59.5Z
WAYS = [way for n in range(4) for way in combinations(sums.DIMENSIONS, n)] + [sums.DIMENSIONS]
TENTH = bill(PRICE, NS_PER_HOUR // 10)


def fill(ledger: Ledger) -> None:
    """Two models, three tenants, two days; r1 belongs to `shop` while it idles."""
    ledger.write_reading(reading("r1", {"flo-1": Amounts(100, 5, 30, 0), "flo-2": Amounts(50)}, at=LAST_SECOND,
                                 compared={"api": 7}, idle_tenant="shop", started_at=LAST_SECOND - 60))
    ledger.write_reading(reading("r2", {"flo-3": 11}, tenant="search", outcome="aborted", at=LAST_SECOND + 1,
                                 started_at=LAST_SECOND + 1, variant="h100 x2"))
    ledger.write_reading(reading("r3", {"flo-3": 4, "flo-4": 3}, tenant="search", outcome="running", model="llama",
                                 at=LAST_SECOND + 1, started_at=LAST_SECOND - 60))
    ledger.write_reading(overhead(started_at=LAST_SECOND - 60))


def test_nothing_costs_nothing(ledger: Ledger) -> None:
    assert sums.costs(ledger, ["model", "tenant"]) == []
    assert [row.total_nanousd for row in sums.costs(ledger, [])] in ([], [0])


@pytest.mark.parametrize("by", WAYS, ids="+".join)
def test_however_it_is_cut_the_rows_are_the_bill(ledger: Ledger, by: tuple) -> None:
    fill(ledger)
    books = sums.reconcile(ledger)
    found = sums.costs(ledger, by)
    assert books.residual_nanousd == 0
    assert sum(row.total_nanousd for row in found) == books.bill_nanousd
    assert sum(sum(row.allocated.values()) for row in found) == books.allocated_nanousd == 30
    assert [tuple(row.keys) for row in found] == [tuple(by)] * len(found)
    assert len({tuple(row.keys.values()) for row in found}) == len(found)
    assert sum((row.tokens for row in found), Tokens()) == Tokens(40, 10, 15)
    assert sum(row.compared.get("api", 0) for row in found) == 14


def test_by_model_and_variant(ledger: Ledger) -> None:
    fill(ledger)
    found = {tuple(row.keys.values()): row for row in sums.costs(ledger, ["model", "variant"])}
    assert set(found) == {("", ""), ("llama", "core"), ("qwen", "core"), ("qwen", "h100 x2")}
    qwen = found["qwen", "core"]
    assert qwen.nanousd == {"direct": 150, "waste": 5, "idle": TENTH - 155, "cold_start": 0, "overhead": 0}
    assert (qwen.requests, qwen.unfinished, qwen.tokens, qwen.compared) == (2, 0, Tokens(16, 4, 6), {"api": 14})
    assert found["qwen", "h100 x2"].nanousd["waste"] == 11
    assert (found["qwen", "h100 x2"].requests, found["qwen", "h100 x2"].unfinished) == (1, 1)
    assert (found["llama", "core"].nanousd["direct"], found["llama", "core"].requests) == (7, 0)
    assert found["", ""].nanousd["overhead"] == PRICE // 4


def test_by_tenant_idle_is_what_was_allocated_and_what_is_owned(ledger: Ledger) -> None:
    fill(ledger)
    found = {row.keys["tenant"]: row for row in sums.costs(ledger, ["tenant"])}
    assert set(found) == {"", "demo", "search", "shop"}
    assert (found["demo"].nanousd["idle"], found["demo"].allocated["idle"]) == (30, 30)
    assert (found["shop"].nanousd["idle"], found["shop"].allocated["idle"]) == (TENTH - 155 - 30, 0)
    assert found["search"].nanousd == {"direct": 7, "waste": 11, "idle": 0, "cold_start": 0, "overhead": 0}
    assert found[""].nanousd["idle"] == 2 * TENTH - 11 - 7
    assert found[""].nanousd["overhead"] == PRICE // 4


def test_cold_starts_are_allocated_and_owned_as_idle_time_is(ledger: Ledger) -> None:
    made = reading("r1", {"flo-1": Amounts(1, 0, 0, 40)}, idle_tenant="shop")
    cold = {"cold_nanousd": 100, "idle_nanousd": made.source.idle_nanousd - 100}
    ledger.write_reading(replace(made, source=replace(made.source, **cold),
                                 intervals=(replace(made.intervals[0], **cold),)))
    found = {row.keys["tenant"]: row for row in sums.costs(ledger, ["tenant"])}
    assert (found["demo"].nanousd["cold_start"], found["demo"].allocated["cold_start"]) == (40, 40)
    assert found["shop"].nanousd["cold_start"] == 60
    assert sums.reconcile(ledger).residual_nanousd == 0


def test_a_day_is_that_of_utc(ledger: Ledger) -> None:
    fill(ledger)
    found = {row.keys["day"]: row for row in sums.costs(ledger, ["day"])}
    assert set(found) == {"2025-12-31", "2026-01-01"}
    assert found["2025-12-31"].nanousd["direct"] == 150
    assert found["2026-01-01"].nanousd == {"direct": 7, "waste": 11, "idle": TENTH - 11, "cold_start": 0, "overhead": 0}


def test_by_bucket_each_row_is_in_one(ledger: Ledger) -> None:
    fill(ledger)
    found = {row.keys["bucket"]: row for row in sums.costs(ledger, ["bucket"])}
    assert {name: row.total_nanousd for name, row in found.items()} == {
        "direct": 157, "waste": 16, "idle": 3 * TENTH - 155 - 11 - 7, "overhead": PRICE // 4}
    assert found["idle"].allocated == {"idle": 30, "cold_start": 0}
    assert found["direct"].requests == 3


def test_a_request_on_two_replicas_is_one_request(ledger: Ledger) -> None:
    for source in ("r1", "r2"):
        ledger.write_reading(reading(source, {"flo-1": 5}))
    (row,) = sums.costs(ledger, ["model"])
    assert row.requests == 1


def test_a_row_for_many_requests_is_not_counted_as_one(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 5, "unmetered:r1:demo": 7}))
    (row,) = sums.costs(ledger, ["model"])
    assert (row.requests, row.nanousd["direct"]) == (1, 12)


def test_a_part_of_the_time(ledger: Ledger) -> None:
    fill(ledger)
    early = sums.costs(ledger, [], until=LAST_SECOND + 0.5)
    late = sums.costs(ledger, [], since=LAST_SECOND + 0.5)
    assert early[0].total_nanousd + late[0].total_nanousd == sums.reconcile(ledger).bill_nanousd
    assert (early[0].nanousd["direct"], late[0].nanousd["direct"]) == (150, 7)
    assert (early[0].compared, late[0].compared) == ({"api": 14}, {})


def test_a_charge_whose_source_is_missing_still_costs(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 5}))
    alter(ledger, "DELETE FROM sources")
    (row,) = [r for r in sums.costs(ledger, ["model", "variant"]) if r.nanousd["direct"]]
    assert row.keys == {"model": "", "variant": ""}


@pytest.mark.parametrize(("by", "says"), [(["modell"], "cannot be cut by 'modell'; there are: model, tenant, day"),
                                          (["day", "day"], "each of these once: day, day")])
def test_what_the_bill_cannot_be_cut_by(ledger: Ledger, by: list, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sums.costs(ledger, by)


CHARGES = st.dictionaries(
    st.sampled_from(["flo-1", "flo-2", "flo-3", "flo-4"]),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=3)
SOURCES = st.lists(st.tuples(
    CHARGES, st.sampled_from(["qwen", "llama"]), st.sampled_from(["core", "h100 x2"]), st.sampled_from(["", "demo"]),
    st.sampled_from(["demo", "shop"]), st.sampled_from(["running", "finished", "aborted"]),
    st.floats(0, 3 * DAY), st.floats(0, 3 * DAY)), max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=SOURCES, by=st.sampled_from(WAYS), cut=st.floats(0, 3 * DAY))
def test_any_books_cut_in_any_way_are_the_bill(ledger: Ledger, made: list, by: tuple, cut: float) -> None:
    for table in ("sources", "intervals", "charges", "totals"):
        alter(ledger, f"DELETE FROM {table}")
    for n, (charges, model, variant, owner, tenant, outcome, started_at, at) in enumerate(made):
        kind: EngineOutcome = outcome
        ledger.write_reading(reading(
            f"r{n}", {name: Amounts(*amounts) for name, amounts in charges.items()}, 10**13, tenant, kind, at=at,
            model=model, variant=variant, idle_tenant=owner, started_at=started_at))
    books = sums.reconcile(ledger)
    assert books.residual_nanousd == 0
    assert sum(row.total_nanousd for row in sums.costs(ledger, by)) == books.bill_nanousd
    parts = [*sums.costs(ledger, by, until=cut), *sums.costs(ledger, by, since=cut)]
    assert sum(row.total_nanousd for row in parts) == books.bill_nanousd
