"""The thread that writes overhead down: from its start to its end, whatever the ledger does meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from serving import overheads
from serving.errors import LedgerError
from serving.fleet.money import NS_PER_HOUR, PriceLine
from serving.fleet.overhead import OverheadMeter
from serving.fleet.records import IntervalRecord, MeterReading

PRICE = 3 * NS_PER_HOUR  # three nano-dollars a nanosecond


class Book:
    """A ledger that may be away, and tells when it has been asked so often."""

    def __init__(self) -> None:
        self.taken: list[MeterReading] = []
        self.away, self.asked = False, 0
        self._changed = threading.Condition()

    def write(self, reading: MeterReading) -> None:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
            if self.away:
                raise LedgerError("the database is away")
            self.taken.append(reading)

    def until(self, so: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(so, 10)

    def intervals(self) -> dict[float, IntervalRecord]:
        return {i.starts_at: i for reading in self.taken for i in reading.intervals}


def meter(prices: PriceLine | None = None) -> OverheadMeter:
    return OverheadMeter("head-1", "head", prices or PriceLine.fixed(PRICE), time.monotonic_ns(), time.time())


def test_it_writes_on_until_it_is_closed_and_says_that_it_ended() -> None:
    book, began = Book(), time.monotonic_ns()
    made = meter()
    keeper = overheads.OverheadKeeper([made], book.write, 0.01).start()
    book.until(lambda: book.asked >= 3)
    keeper.close()
    whole = time.monotonic_ns() - began
    *before, last = book.taken
    assert [r.number for r in book.taken] == list(range(1, len(book.taken) + 1))
    assert last.source.ended and not any(r.source.ended for r in before)
    assert 20_000_000 < last.source.elapsed_ns <= whole
    assert last.source.overhead_nanousd == 3 * last.source.elapsed_ns
    asked = book.asked
    time.sleep(0.03)
    assert book.asked == asked, "it goes on after its end"


def test_nothing_is_lost_while_the_ledger_is_away() -> None:
    book, now = Book(), time.time()
    changes = tuple((now + 0.02 * n, PRICE + n) for n in range(1, 5))  # each one begins an interval
    book.away = True
    keeper = overheads.OverheadKeeper([meter(PriceLine(((0.0, PRICE), *changes)))], book.write, 0.005).start()
    book.until(lambda: time.time() > now + 0.12)
    assert book.taken == []
    book.away = False
    book.until(lambda: bool(book.taken))
    keeper.close()
    last, rows = book.taken[-1].source, book.intervals().values()
    assert len(rows) >= 5
    assert sum(i.elapsed_ns for i in rows) == last.elapsed_ns
    assert sum(i.overhead_nanousd for i in rows) == last.overhead_nanousd


def test_each_reading_tells_what_was_not_metered() -> None:
    book = Book()
    keeper = overheads.OverheadKeeper([meter()], book.write, 60, lambda: 7).start()
    keeper.close()
    assert [r.source.unmetered for r in book.taken] == [7, 7]


def test_closing_before_the_start_is_nothing() -> None:
    book = Book()
    overheads.OverheadKeeper([meter()], book.write).close()
    assert book.taken == []


@pytest.mark.parametrize(
    ("prices", "wanted"), [({"head": 5, "storage": 7}, ["head", "storage"]), ({"storage": 5}, ["storage"]), ({}, [])]
)
def test_meters_are_made_for_what_has_a_price(prices: dict[str, int], wanted: list[str]) -> None:
    overhead = SimpleNamespace(nanousd_per_hour=lambda role: prices.get(role, 0))
    fleet = SimpleNamespace(costs=SimpleNamespace(overhead=overhead))
    one, two = (overheads.meters(fleet, ("head", "storage")) for _ in range(2))  # type: ignore[arg-type]
    assert [m.role for m in one] == wanted
    assert not {m.source_id for m in one} & {m.source_id for m in two}, "each process is a source of its own"
    assert [m.reading(0, 0).source.price_nanousd_per_hour for m in one] == [prices[role] for role in wanted]


def test_a_gateway_that_costs_nothing_still_tells_what_it_could_not_meter() -> None:
    overhead = SimpleNamespace(nanousd_per_hour=lambda role: 0)
    fleet = SimpleNamespace(costs=SimpleNamespace(overhead=overhead))
    (made,) = overheads.meters(fleet, ("gateway", "head"))  # type: ignore[arg-type]
    source = made.reading(made._account.started_ns + 5, 0.0, unmetered=2).source
    assert (source.role, source.elapsed_ns, source.overhead_nanousd, source.unmetered) == ("gateway", 5, 0, 2)
