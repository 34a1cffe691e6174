"""A ledger in memory that can be away, and rows to put into it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from serving.errors import LedgerError
from serving.fleet.records import (
    Amounts,
    ChargeRecord,
    IntervalRecord,
    MeterReading,
    RequestRecord,
    SourceRecord,
    Tokens,
    TotalRecord,
)


class FakeLedger:
    """Keeps rows as the real one does: each meter row with its reading's number, which only a higher one replaces."""

    def __init__(self) -> None:
        self.away = False
        self.forgets_to_answer = False  # it writes, and then the connection breaks
        self.hangs: threading.Event | None = None  # writes wait for it
        self.refuses: Callable[[Any], bool] = lambda row: False
        self.requests: dict[str, RequestRecord] = {}
        self.rows: dict[tuple[Any, ...], tuple[int, Any]] = {}
        self.tries, self.written = 0, 0

    def write_requests(self, records: Iterable[RequestRecord]) -> None:
        """As Ledger."""
        records = list(records)
        self._begin(records)
        for record in records:
            self.requests.setdefault(record.request_id, record)
        self._end()

    def write_reading(self, reading: MeterReading) -> None:
        """As Ledger."""
        self._begin([reading])
        for key, row in rows_of(reading).items():
            if reading.number > self.rows.get(key, (-1, None))[0]:
                self.rows[key] = (reading.number, row)
        self._end()

    def _begin(self, entries: list[Any]) -> None:
        self.tries += 1
        if self.hangs:
            self.hangs.wait()
        if self.away:
            raise LedgerError("the database is away")
        if bad := [e for e in entries if self.refuses(e)]:
            raise LedgerError(f"no such value: {bad[0]}")

    def _end(self) -> None:
        self.written += 1
        if self.forgets_to_answer:
            raise LedgerError("the connection broke")

    def state(self) -> dict[tuple[Any, ...], Any]:
        """The meter rows without the numbers."""
        return {key: row for key, (_, row) in self.rows.items()}


def rows_of(reading: MeterReading) -> dict[tuple[Any, ...], Any]:
    """A reading's rows by their keys."""
    source = reading.source.source_id
    found: dict[tuple[Any, ...], Any] = {(source,): reading.source}
    found |= {(source, "interval", row.starts_at): row for row in reading.intervals}
    found |= {(source, "charge", row.request_id): row for row in reading.charges}
    return found | {(source, "total", row.tenant): row for row in reading.totals}


def request(number: int, **changes: Any) -> RequestRecord:
    """A request that went well."""
    facts: dict[str, Any] = dict(
        request_id=f"flo-{number}", caller_id="", tenant="demo", key_id="key_1", model="qwen",
        endpoint="chat_completions", code=200, outcome="finished", started_at=100.0 + number, duration_s=0.5,
        stream=True, ttft_s=0.1, tokens=Tokens(10, 4, 5),
    )
    return RequestRecord(**facts | changes)


def reading(number: int, charges: Iterable[int] = (1, 2), source: str = "r1") -> MeterReading:
    """A meter's reading number `number`, with rows for these requests that tell the number."""
    row = SourceRecord(
        source_id=source, role="replica", model="qwen", variant="core", endpoint="127.0.0.1:1",
        price_nanousd_per_hour=3_000_000_000, started_at=10.0, seen_at=10.0 + number, ready=True, ended=False,
        elapsed_ns=number, cold_ns=0, idle_ns=number, busy_ns=0, cold_nanousd=0, idle_nanousd=number,
        overhead_nanousd=0, folded_steps=0, method="window",
    )
    interval = IntervalRecord(source, float(number // 10), 3_000_000_000, number, 0, number, 0, 0, number, 0, 0)
    return MeterReading(
        number, row, (interval,),
        tuple(ChargeRecord(source, f"flo-{n}", "demo", "running", Amounts(number), Tokens(8, 2, number), "window",
                           20.0 + number, compared={"api": number}) for n in charges),
        (TotalRecord(source, "demo", Amounts(number), number, 0, Tokens(8, 2, number)),),
    )


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until something that another thread does has happened."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
