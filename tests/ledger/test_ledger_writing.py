"""Writing: what comes twice, late or out of order leaves the ledger as if it had come once and in order."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import FIT, SEGMENT, alter, column, reading, request, rows

from serving.fleet.records import Amounts, MeterReading
from serving.ledger import schema, sums
from serving.ledger.store import Ledger

METERED = ("sources", "intervals", "charges", "totals")


def state(ledger: Ledger) -> list[list[tuple]]:
    return [rows(ledger, table) for table in METERED]


def clear(ledger: Ledger) -> None:
    for table in METERED:
        alter(ledger, f"DELETE FROM {table}")


def test_writing_a_request_again_changes_nothing(ledger: Ledger) -> None:
    ledger.write_requests([request(1), request(2, tokens=None, ttft_s=None)])
    before = rows(ledger, "requests")
    ledger.write_requests([request(1), request(1, code=500), request(2)])
    assert rows(ledger, "requests") == before
    assert len(before) == 2


def test_nothing_may_be_written(ledger: Ledger) -> None:
    ledger.write_requests([])
    assert rows(ledger, "requests") == []


def test_a_reading_replaces_an_older_one_row_by_row(ledger: Ledger) -> None:
    ledger.write_reading(reading(charges={"flo-1": 5, "flo-2": 6}))
    ledger.write_reading(reading(charges={"flo-1": 7}, seen_at=30.0, number=2))
    assert column(ledger, "charges", "direct") == [6, 7]
    assert column(ledger, "sources", "seen_at") == [30.0]
    assert column(ledger, "totals", "direct") == [7]


def test_an_older_reading_replaces_nothing_and_adds_what_is_missing(ledger: Ledger) -> None:
    ledger.write_reading(reading(charges={"flo-1": 7}, seen_at=30.0, number=2))
    ledger.write_reading(reading(charges={"flo-1": 5, "flo-2": 6}))
    assert column(ledger, "charges", "direct") == [6, 7]
    assert column(ledger, "sources", "seen_at") == [30.0]
    assert column(ledger, "charges", "number") == [1, 2]


def test_one_request_on_two_replicas_has_two_charges(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 5}))
    ledger.write_reading(reading("r2", {"flo-1": 6}))
    assert column(ledger, "charges", "direct") == [5, 6]


def test_what_was_written_is_what_is_read(ledger: Ledger) -> None:
    """Every field of every record comes back, also those beyond 32 bits."""
    large = 2**62
    row = request(1, caller_id="mine", duration_s=0.1, ttft_s=1 / 3)
    found = reading("r1", {"flo-1": Amounts(large, 1, 2, 3)}, compared={"api/a": large, "api/b": 0},
                    idle_tenant="demo", unmetered=4, folded_steps=5, endpoint="h:1", idle_nanousd=large)
    charge = replace(found.charges[0], preemptions=6, recomputed=7, rejected=8, segments=(SEGMENT, SEGMENT),
                     updated_at=1e9 + 1 / 3)
    found = replace(found, charges=(charge,))
    ledger.write_requests([row])
    ledger.write_reading(found)
    detail = sums.request(ledger, "flo-1")
    assert detail is not None
    assert (detail.request, detail.charges, detail.sources) == (row, (charge,), (found.source,))
    assert detail.intervals == found.intervals
    assert detail.sources[0].fit == FIT
    (total,) = sums.totals(ledger, 0.0).tenants
    assert (total.amounts, total.compared, total.tokens) == (charge.amounts, charge.compared, charge.tokens)


def test_a_source_without_a_fit_has_none(ledger: Ledger) -> None:
    ledger.write_reading(reading(fit=None))
    assert sums.totals(ledger, 0.0).sources[0].record.fit is None


@pytest.mark.parametrize("wild", ["a\0b", "\ud800", "\udfff x", "ü", "😀", "'; DROP TABLE requests; --"])
def test_whatever_callers_write_can_be_kept(ledger: Ledger, wild: str) -> None:
    """A row that no database takes would hold up all that come after it."""
    ledger.write_requests([request(1, caller_id=wild, model=wild)])
    (kept,) = column(ledger, "requests", "caller_id")
    assert kept == wild or "\0" in wild or "\ud800" <= max(wild) <= "\udfff"


def test_two_writers_of_the_same_rows_do_not_wait_for_each_other_for_ever(ledger: Ledger) -> None:
    """Rows are locked in one order, whatever order they come in: as when two processes drain copies of one spool."""
    failed: list[Exception] = []
    together = threading.Barrier(2, timeout=60)

    def write(step: int) -> None:
        try:
            for n in range(5):
                batch = [request(m, request_id=f"{n}-{m}") for m in range(300)][::step]
                together.wait()
                ledger.write_requests(batch)
        except Exception as error:
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=write, args=(step,)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(rows(ledger, "requests")) == 1500


@st.composite
def histories(draw: st.DrawFn) -> list[MeterReading]:
    """Readings as meters write them: numbers rise, sums grow, each holds only some of the rows."""
    made = []
    for source in draw(st.sets(st.sampled_from("abc"), min_size=1)):
        for number in range(1, draw(st.integers(1, 5)) + 1):
            charges = {f"{source}-{n}": number * 10 + n for n in draw(st.sets(st.integers(0, 3)))}
            one = reading(source, charges, number * 10**12, seen_at=float(number), number=number)
            intervals = tuple(replace(one.intervals[0], starts_at=float(at)) for at in
                              draw(st.sets(st.integers(0, number))))
            made.append(replace(one, intervals=intervals))
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), seed=st.integers(0, 2**32), again=st.integers(0, 8))
def test_readings_in_any_order_any_number_of_times_end_in_the_same_ledger(
    ledger: Ledger, history: list[MeterReading], seed: int, again: int
) -> None:
    clear(ledger)
    for one in history:
        ledger.write_reading(one)
    expected = state(ledger)
    clear(ledger)
    order = random.Random(seed)
    mixed = history + order.choices(history, k=again)
    order.shuffle(mixed)
    for one in mixed:
        ledger.write_reading(one)
    assert state(ledger) == expected
    newest = {one.source.source_id: one.number for one in history}
    assert {row[0]: row[1] for row in expected[0]} == newest


def test_every_column_of_a_record_has_its_place() -> None:
    """A field that is added to a record is not silently left out of the ledger."""
    from dataclasses import fields

    from serving.fleet.records import ChargeRecord, IntervalRecord, RequestRecord, SourceRecord, TotalRecord

    amounts, tokens = {f.name for f in fields(Amounts)}, {"prompt_tokens", "cached_tokens", "completion_tokens"}
    for record, table, of_reading in ((SourceRecord, schema.sources, True), (IntervalRecord, schema.intervals, True),
                                      (ChargeRecord, schema.charges, True), (TotalRecord, schema.totals, True),
                                      (RequestRecord, schema.requests, False)):
        wanted = {f.name for f in fields(record)} | ({"number"} if of_reading else set())
        for name, parts in (("amounts", amounts), ("tokens", tokens)):
            if name in wanted:
                wanted = wanted - {name} | parts
        assert {c.name for c in table.columns} == wanted
