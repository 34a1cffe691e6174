"""Time into money for one thing that costs by the hour: intervals cut at full hours and at price changes.

The cost of a piece of time is the difference of two bills of the whole time since the start, so that the pieces add up
to the bill with nothing lost to rounding, however they are cut:

    sum of pieces = (sum over intervals of price * nanoseconds) // one hour
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.fleet.money import NS_PER_HOUR, PriceLine
from serving.fleet.records import IntervalRecord

State = Literal["cold", "idle", "busy", "overhead"]
_HOUR_S = 3_600.0
_NS = 1_000_000_000


@dataclass
class Interval:
    """One hour, or the part of it at one price. Grows while it is the last one."""

    starts_at: float
    price_nanousd_per_hour: int
    elapsed_ns: int = 0
    cold_ns: int = 0
    idle_ns: int = 0
    busy_ns: int = 0
    cold_nanousd: int = 0
    idle_nanousd: int = 0
    busy_nanousd: int = 0
    overhead_nanousd: int = 0

    def add(self, state: State, ns: int, nanousd: int) -> None:
        """Book a piece of time."""
        self.elapsed_ns += ns
        if state == "busy":
            self.busy_ns += ns
            self.busy_nanousd += nanousd
        elif state == "idle":
            self.idle_ns += ns
            self.idle_nanousd += nanousd
        elif state == "cold":
            self.cold_ns += ns
            self.cold_nanousd += nanousd
        else:
            self.overhead_nanousd += nanousd

    def record(self, source_id: str) -> IntervalRecord:
        """As a row of the ledger."""
        return IntervalRecord(source_id, self.starts_at, self.price_nanousd_per_hour, self.elapsed_ns, self.cold_ns,
                              self.idle_ns, self.busy_ns, self.cold_nanousd, self.idle_nanousd, self.busy_nanousd,
                              self.overhead_nanousd)


class Account:
    """The time of one source, booked up to `seen_ns`. Times are nanoseconds of one monotonic clock, passed in.

    `started_at`: Unix seconds at `started_ns`; hours and prices are found by it.
    """

    def __init__(self, prices: PriceLine, started_ns: int, started_at: float) -> None:
        self.prices, self.started_ns, self.started_at = prices, started_ns, started_at
        self.seen_ns = started_ns
        self._owed = 0  # price * nanoseconds so far
        self._open = Interval(started_at, prices.at(started_at))
        self._ends_ns = self._end(started_at)
        self._changed = [self._open]
        self.total = Interval(started_at, self._open.price_nanousd_per_hour)

    def advance(self, to_ns: int, state: State) -> tuple[int, int]:
        """Book the time up to `to_ns`; returns its (nanoseconds, nano-USD). Time never runs backwards."""
        if to_ns <= self.seen_ns:
            return 0, 0
        begun_ns, cost = self.seen_ns, 0
        while to_ns >= self._ends_ns:
            cost += self._book(self._ends_ns, state)
            self._turn()
        cost += self._book(to_ns, state)
        return to_ns - begun_ns, cost

    def reprice(self, at_s: float, line: PriceLine) -> None:
        """From `at_s` (Unix seconds) on other prices hold; what is booked already keeps its own."""
        now_s = self._unix(self.seen_ns)
        self.prices = self.prices.then(max(at_s, now_s), line)
        price = self.prices.at(now_s)
        if price != self._open.price_nanousd_per_hour and self._open.elapsed_ns:
            self._turn()
        else:
            self._open.price_nanousd_per_hour = price
        self._ends_ns = self._end(now_s)

    def changes(self) -> Sequence[Interval]:
        """Intervals that have grown since the last call, oldest first; the one under way is always among them."""
        found, self._changed = self._changed, [self._open]
        return found

    def again(self, intervals: Sequence[IntervalRecord]) -> None:
        """Rows that could not be written: their intervals count as changed."""
        known = {i.starts_at for i in self._changed}
        lost = [Interval(r.starts_at, r.price_nanousd_per_hour, r.elapsed_ns, r.cold_ns, r.idle_ns, r.busy_ns,
                         r.cold_nanousd, r.idle_nanousd, r.busy_nanousd, r.overhead_nanousd)
                for r in intervals if r.starts_at not in known]  # the one under way is known: only past ones are here
        self._changed = lost + self._changed

    @property
    def price_nanousd_per_hour(self) -> int:
        """The price now."""
        return self._open.price_nanousd_per_hour

    def _book(self, to_ns: int, state: State) -> int:
        ns = to_ns - self.seen_ns
        if not ns:
            return 0
        before, self._owed = self._owed, self._owed + self._open.price_nanousd_per_hour * ns
        self.seen_ns, cost = to_ns, self._owed // NS_PER_HOUR - before // NS_PER_HOUR
        self._open.add(state, ns, cost)
        self.total.add(state, ns, cost)
        return cost

    def _turn(self) -> None:
        """The next interval begins where the books are."""
        now_s = self._unix(self.seen_ns)
        self._open = Interval(now_s, self.prices.at(now_s))
        self._changed.append(self._open)
        self._ends_ns = self._end(now_s)

    def _unix(self, at_ns: int) -> float:
        return self.started_at + (at_ns - self.started_ns) / _NS

    def _end(self, now_s: float) -> int:
        hour_s = (now_s // _HOUR_S + 1) * _HOUR_S
        end_s = min(hour_s, self.prices.next_change(now_s))
        end_ns = self.started_ns + round((end_s - self.started_at) * _NS)
        return max(end_ns, self.seen_ns + 1)  # seconds as floats may round back to where we are
