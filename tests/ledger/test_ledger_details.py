"""Single requests and intervals: found by either id, read in batches, and adding up to the bill."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from ledger_samples import FIT, SEGMENT, overhead, reading, request

from serving.fleet.records import Amounts, Tokens
from serving.ledger import details, sums
from serving.ledger.store import Ledger


def test_a_request_is_found_by_flotillas_id_and_by_the_callers(ledger: Ledger) -> None:
    ledger.write_requests([request(1, caller_id="mine"), request(2)])
    ledger.write_reading(reading("r1", {"flo-1": 5, "flo-2": 6}, at=101.5))
    for name in ("flo-1", "mine"):
        found = sums.request(ledger, name)
        assert found is not None and found.request is not None
        assert (found.request_id, found.request.caller_id) == ("flo-1", "mine")
        assert [(c.source_id, c.amounts, c.segments) for c in found.charges] == [("r1", Amounts(5), (SEGMENT,))]
        assert [(s.fit, s.variant, s.method) for s in found.sources] == [(FIT, "core", "step-shapley-fit")]
    assert sums.request(ledger, "nothing") is None
    assert sums.request(ledger, "") is None, "an empty caller's id is none"


def test_of_several_with_one_callers_id_the_newest_is_meant(ledger: Ledger) -> None:
    ledger.write_requests([request(n, caller_id="same") for n in (2, 3, 1)])
    found = sums.request(ledger, "same")
    assert found is not None
    assert (found.request_id, found.others) == ("flo-3", ("flo-2", "flo-1"))


def test_a_request_that_the_gateway_has_not_written_down(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 5}, outcome="running"))
    found = sums.request(ledger, "flo-1")
    assert found is not None
    assert (found.request, [c.outcome for c in found.charges]) == (None, ["running"])


def test_a_request_that_reached_no_replica(ledger: Ledger) -> None:
    ledger.write_requests([request(1, code=503, outcome="failed", tokens=None)])
    found = sums.request(ledger, "flo-1")
    assert found is not None
    assert (found.charges, found.sources, found.intervals) == ((), (), ())


def test_a_request_on_two_replicas_tells_of_both(ledger: Ledger) -> None:
    ledger.write_requests([request(1)])
    for n, source in enumerate(("r1", "r2")):
        ledger.write_reading(reading(source, {"flo-1": 5 + n}, at=101.0 + n, started_at=10.0 + n))
    found = sums.request(ledger, "flo-1")
    assert found is not None
    assert [c.source_id for c in found.charges] == [s.source_id for s in found.sources] == ["r1", "r2"]


def test_the_price_then_is_that_of_the_intervals_in_which_it_ran(ledger: Ledger) -> None:
    made = reading("r1", {"flo-100": 5}, at=250.0)  # it begins at 200
    hours = [replace(made.intervals[0], starts_at=at, price_nanousd_per_hour=n)
             for n, at in enumerate((10.0, 150.0, 240.0, 300.0))]
    ledger.write_requests([request(100)])
    ledger.write_reading(replace(made, intervals=tuple(hours)))
    found = sums.request(ledger, "flo-100")
    assert found is not None
    assert [i.price_nanousd_per_hour for i in found.intervals] == [1, 2]


def test_a_row_has_everything_of_its_request(ledger: Ledger) -> None:
    ledger.write_requests([request(1, caller_id="mine")])
    ledger.write_reading(reading("r1", {"flo-1": Amounts(5, 1, 2, 3)}, at=101.0, compared={"api": 4, "other": 1}))
    ledger.write_reading(reading("r2", {"flo-1": 10}, at=102.0, variant="h100 x2", method="window",
                                 compared={"api": 6}))
    (row,) = sums.rows(ledger)
    assert (row.request_id, row.caller_id, row.tenant, row.key_id) == ("flo-1", "mine", "demo", "key_1")
    assert (row.model, row.endpoint, row.code, row.outcome) == ("qwen", "chat_completions", 200, "finished")
    assert (row.started_at, row.duration_s, row.ttft_s, row.stream) == (101.0, 0.5, 0.1, True)
    assert (row.tokens, row.amounts) == (Tokens(10, 4, 5), Amounts(15, 1, 2, 3))
    assert (row.variant, row.method, row.source_ids) == ("h100 x2", "window", ("r2", "r1"))
    assert row.compared == {"api": 10, "other": 1}


def test_rows_without_an_answer_have_the_engines_tokens(ledger: Ledger) -> None:
    ledger.write_requests([request(1, tokens=None, outcome="aborted"), request(2, tokens=None, outcome="failed")])
    ledger.write_reading(reading("r1", {"flo-1": 5}, outcome="aborted"))
    assert [(row.tokens, row.amounts, row.variant) for row in sums.rows(ledger)] == [
        (Tokens(8, 2, 3), Amounts(waste=5), "core"), (Tokens(), Amounts(), "")]


def test_work_that_came_by_no_gateway_has_a_row_after_all_others(ledger: Ledger) -> None:
    ledger.write_requests([request(1)])
    ledger.write_reading(reading("r1", {"flo-1": 5, "engine-1": 6, "engine-0": 7}, tenant="-", at=50.0))
    found = list(sums.rows(ledger))
    assert [(row.request_id, row.tenant, row.amounts.direct) for row in found] == [
        ("flo-1", "demo", 5), ("engine-0", "-", 7), ("engine-1", "-", 6)]
    assert (found[1].code, found[1].duration_s, found[1].started_at, found[1].model) == (None, None, 50.0, "qwen")


def test_rows_of_a_time(ledger: Ledger) -> None:
    ledger.write_requests([request(n) for n in range(4)])  # they begin at 100, 101, 102, 103
    ledger.write_reading(reading("r1", {"engine-0": 7}, at=103.0))
    assert [row.request_id for row in sums.rows(ledger, 101.0, 103.0)] == ["flo-1", "flo-2"]
    assert [row.request_id for row in sums.rows(ledger, 103.0)] == ["flo-3", "engine-0"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7])
def test_rows_come_in_order_and_once_however_many(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Also where several began at the same moment."""
    monkeypatch.setattr(details, "_BATCH", 3)
    ledger.write_requests([request(n, started_at=100.0 + n // 4) for n in range(count)])
    ledger.write_reading(reading("r1", {f"engine-{n}": 1 for n in range(count)}))
    assert [row.request_id for row in sums.rows(ledger)] == [
        *(f"flo-{n}" for n in range(count)), *(f"engine-{n}" for n in range(count))]


def test_rows_see_one_moment(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(details, "_BATCH", 2)
    ledger.write_requests([request(n) for n in range(4)])
    found = sums.rows(ledger)
    assert next(found).request_id == "flo-0"
    ledger.write_requests([request(9)])
    assert [row.request_id for row in found] == ["flo-1", "flo-2", "flo-3"]


def test_memory_stays_flat_over_many_rows(sqlite_ledger: Ledger) -> None:
    def peak(count: int) -> int:
        sqlite_ledger.write_requests([request(n) for n in range(count)])
        sqlite_ledger.write_reading(reading("r1", {f"flo-{n}": 1 for n in range(count)}, number=count))
        tracemalloc.start()
        assert sum(1 for _ in sums.rows(sqlite_ledger)) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)  # what is compiled once
    small, large = peak(1_000), peak(8_000)
    assert large < 2 * small, "eight times the rows"


def test_rows_and_what_the_intervals_have_left_are_the_bill(ledger: Ledger) -> None:
    ledger.write_requests([request(1), request(2)])
    ledger.write_reading(reading("r1", {"flo-1": Amounts(100, 5, 30, 0), "flo-2": Amounts(50), "engine-1": 3}))
    ledger.write_reading(reading("r2", {"flo-1": 9}, outcome="running", idle_tenant="shop"))
    ledger.write_reading(overhead())
    charged = sum(row.amounts.loaded for row in sums.rows(ledger))
    left = sum(row.left_idle + row.left_cold_start + row.record.overhead_nanousd for row in sums.intervals(ledger))
    books = sums.reconcile(ledger)
    assert (charged + left, books.residual_nanousd) == (books.bill_nanousd, 0)


def test_intervals_tell_what_their_source_is_and_what_is_left_of_them(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details, "_BATCH", 2)
    made = reading("r1", {"flo-1": Amounts(1, 0, 150, 20)}, idle_tenant="shop")
    hours = tuple(replace(made.intervals[0], starts_at=3600.0 * n, idle_nanousd=100, cold_nanousd=10 * n)
                  for n in range(4))
    ledger.write_reading(replace(made, intervals=hours))
    ledger.write_reading(overhead())
    found = list(sums.intervals(ledger))
    assert [(row.record.source_id, row.left_idle, row.left_cold_start) for row in found] == [
        ("gw", 0, 0), ("r1", 0, 0), ("r1", 50, 0), ("r1", 100, 10), ("r1", 100, 30)]
    assert [row.record for row in found[1:]] == list(hours)
    assert (found[0].role, found[1].role, found[1].model, found[1].variant, found[1].idle_tenant) == (
        "gateway", "replica", "qwen", "core", "shop")
    assert [row.record.starts_at for row in sums.intervals(ledger, 3600.0, 10800.0)] == [3600.0, 7200.0]
