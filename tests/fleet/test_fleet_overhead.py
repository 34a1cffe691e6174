"""Overhead: all of a source's time, at its price then, to the nano-dollar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.money import NS_PER_HOUR, PriceLine, bill
from serving.fleet.overhead import OverheadMeter
from serving.fleet.records import IntervalRecord, MeterReading

S = 1_000_000_000
NOON = 1_767_268_800.0  # a full hour
PRICES = st.integers(0, 10**13)
LINES = st.lists(st.tuples(st.integers(0, 40_000_000), PRICES), min_size=1, max_size=4, unique_by=lambda c: c[0]).map(
    lambda found: PriceLine(tuple((NOON + ms / 1_000, price) for ms, price in sorted(found))))


class Kept:
    """A ledger: the newest of each row, as upserts leave it."""

    def __init__(self, meter: OverheadMeter) -> None:
        self.meter, self.intervals = meter, dict[float, IntervalRecord]()
        self.last: MeterReading | None = None

    def write(self, reading: MeterReading) -> None:
        assert self.last is None or reading.number > self.last.number
        self.last = reading
        self.intervals |= {i.starts_at: i for i in reading.intervals}

    @property
    def bill(self) -> int:
        """Every interval's time billed anew."""
        return sum(i.price_nanousd_per_hour * i.elapsed_ns for i in self.intervals.values()) // NS_PER_HOUR

    def check(self) -> None:
        assert self.last is not None
        source, rows = self.last.source, self.intervals.values()
        assert source.overhead_nanousd == sum(i.overhead_nanousd for i in rows) == self.bill
        assert source.elapsed_ns == sum(i.elapsed_ns for i in rows)
        for row in rows:
            assert (row.cold_ns, row.idle_ns, row.busy_ns) == (0, 0, 0)
            assert (row.cold_nanousd, row.idle_nanousd, row.busy_nanousd) == (0, 0, 0)
            assert row.overhead_nanousd >= 0 and row.source_id == source.source_id


def meter(prices: PriceLine, role: str = "head", started_at: float = NOON) -> OverheadMeter:
    return OverheadMeter("head-1", role, prices, 0, started_at)  # type: ignore[arg-type]


@given(LINES, st.floats(-4_000, 4_000), st.lists(st.tuples(st.integers(0, 9_000 * S), st.booleans()), min_size=1,
                                                 max_size=12))
def test_it_adds_up_whatever_is_written_and_whenever(
        prices: PriceLine, starts: float, pauses: list[tuple[int, bool]]) -> None:
    made, now = meter(prices, started_at=NOON + starts), 0
    kept = Kept(made)
    for pause, lost in [*pauses, (0, False)]:
        now += pause
        reading = made.reading(now, NOON + now / S)
        if lost:
            made.unread(reading)
        else:
            kept.write(reading)
            kept.check()
    assert kept.last is not None and kept.last.source.elapsed_ns == now


@given(PRICES, st.lists(st.integers(0, 5_000 * S), max_size=9))
def test_at_one_price_it_is_the_bill_of_the_time(price: int, pauses: list[int]) -> None:
    made, now = meter(PriceLine.fixed(price)), 0
    for pause in pauses:
        now += pause
        made.reading(now, NOON)
    assert made.reading(now, NOON).source.overhead_nanousd == bill(price, now)


def test_intervals_are_cut_at_full_hours_and_at_price_changes() -> None:
    made = meter(PriceLine(((0.0, 1_000), (NOON + 5_400, 7_000))), started_at=NOON + 1_800)
    kept = Kept(made)
    kept.write(made.reading(2 * 3_600 * S, NOON + 9_000))
    kept.check()
    assert [(i.starts_at - NOON, i.elapsed_ns // S, i.price_nanousd_per_hour, i.overhead_nanousd)
            for i in kept.intervals.values()] == [
        (1_800, 1_800, 1_000, 500), (3_600, 1_800, 1_000, 500), (5_400, 1_800, 7_000, 3_500),
        (7_200, 1_800, 7_000, 3_500)]
    assert kept.last is not None and kept.last.source.price_nanousd_per_hour == 7_000


def test_what_was_written_is_not_told_again() -> None:
    made = meter(PriceLine.fixed(1_000))
    assert len(made.reading(3 * 3_600 * S, NOON).intervals) == 4
    assert len(made.reading(3 * 3_600 * S + 9, NOON).intervals) == 1  # the one under way


def test_a_reading_says_whose_it_is() -> None:
    made = OverheadMeter("gateway-1", "gateway", PriceLine.fixed(5), 7, NOON)
    first = made.reading(8, NOON + 1, unmetered=3)
    assert (first.number, first.charges, first.totals) == (1, (), ())
    source = first.source
    assert (source.source_id, source.role, source.model, source.unmetered) == ("gateway-1", "gateway", "", 3)
    assert (source.started_at, source.seen_at, source.ready, source.ended) == (NOON, NOON + 1, True, False)
    last = made.reading(9, NOON + 2, ended=True).source
    assert (last.ready, last.ended) == (False, True)


def test_time_never_runs_backwards() -> None:
    made = meter(PriceLine.fixed(NS_PER_HOUR))
    assert made.reading(50, NOON).source.overhead_nanousd == 50
    assert made.reading(40, NOON).source.overhead_nanousd == 50


def test_a_replica_is_no_overhead() -> None:
    with pytest.raises(ValueError, match="ReplicaMeter"):
        meter(PriceLine.fixed(1), "replica")
