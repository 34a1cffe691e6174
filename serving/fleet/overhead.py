"""The time of what serves every request and no single one: a gateway, the head node, storage.

All of it is overhead, from start to end. The money is that of `account`: intervals cut at full hours and at price
changes, which add up to the bill of the whole time with nothing lost to rounding.
"""

from __future__ import annotations

from serving.fleet.account import Account
from serving.fleet.money import PriceLine
from serving.fleet.records import MeterReading, SourceRecord, SourceRole


class OverheadMeter:
    """The meter of one such source. Times are nanoseconds of one monotonic clock, passed in.

    `started_at`: Unix seconds at `started_ns`; hours and prices are found by it.
    """

    def __init__(self, source_id: str, role: SourceRole, prices: PriceLine, started_ns: int,
                 started_at: float) -> None:
        """`source_id`: of this process alone; one that starts anew is another source. Raises: ValueError for the role
        `replica`, whose time has other uses."""
        if role == "replica":
            raise ValueError("a replica's time is not overhead; ReplicaMeter keeps its books")
        self.source_id, self.role = source_id, role
        self._account = Account(prices, started_ns, started_at)
        self._number = 0

    def reading(self, now_ns: int, now_s: float, ended: bool = False, unmetered: int = 0) -> MeterReading:
        """Book the time until now and tell what has changed since the last reading. `now_s`: Unix seconds.

        `ended`: this is the last one. `unmetered`: requests so far that no row could be kept of.
        """
        account = self._account
        account.advance(now_ns, "overhead")
        self._number += 1
        total, changed = account.total, account.changes()
        source = SourceRecord(
            self.source_id, self.role, model="", variant="", endpoint="",
            price_nanousd_per_hour=account.price_nanousd_per_hour, started_at=account.started_at, seen_at=now_s,
            ready=not ended, ended=ended, elapsed_ns=total.elapsed_ns, cold_ns=0, idle_ns=0, busy_ns=0, cold_nanousd=0,
            idle_nanousd=0, overhead_nanousd=total.overhead_nanousd, folded_steps=0, method="window",
            unmetered=unmetered,
        )
        return MeterReading(self._number, source, tuple(i.record(self.source_id) for i in changed))

    def unread(self, reading: MeterReading) -> None:
        """A reading could not be written: what it told is part of the next one again."""
        self._account.again(reading.intervals)
