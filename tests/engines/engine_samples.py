"""Books driven by hand: steps of one nano-dollar a nanosecond, readings kept in a list."""

from __future__ import annotations

import time
from typing import Any

from serving.engines.books import Books, ReplicaFacts
from serving.engines.steps import Ended, Step
from serving.fleet.money import NS_PER_HOUR, PriceLine
from serving.fleet.records import ChargeRecord, IntervalRecord, MeterReading

PRICE = 3_600 * 10**9  # a nano-dollar for each nanosecond
ONE = "flo-" + "1" * 32
TWO = "flo-" + "2" * 32


def engine_id(request_id: str, part: str = "") -> str:
    """A request's name inside the engine, as vLLM dresses it up."""
    return f"{part}chatcmpl-{request_id}-ab12"


def over(
    name: str, outcome: str = "finished", prompt: int = 8, cached: int = 0, completion: int = 2
) -> Ended:
    """The end of an engine request."""
    return Ended(name, outcome, prompt, cached, completion)


class Replica:
    """Books and what they wrote. The clock of `step` goes on from step to step."""

    def __init__(self, **facts: Any) -> None:
        """`facts`: what its books are to know beside its price."""
        self.now_ns, self.written = time.monotonic_ns(), []
        known = ReplicaFacts("replica-1", "qwen", "core", PriceLine.fixed(PRICE), **facts)
        self.books = Books(known, self.now_ns, 1.0, self.written.append)

    def ready(self) -> Replica:
        self.books.ready("127.0.0.1:1")
        self.now_ns = time.monotonic_ns()
        return self

    def step(self, names: list[str], ended: list[Ended] = [], lasts_ns: int = 1_000) -> None:  # noqa: B006
        """One step that reads eight tokens for each of the engine requests in `names`."""
        start = max(self.now_ns, self.books._meter.seen_ns)  # a reading may have booked idle time up to now
        self.now_ns = start + lasts_ns
        self.books.take(Step(start, self.now_ns, [(name, 8, 0, 0) for name in names], list(ended)))


class Ledger:
    """What a ledger keeps of readings: the newest of each row."""

    def __init__(self) -> None:
        self.source = None
        self.charges: dict[str, ChargeRecord] = {}
        self.totals: dict[str, object] = {}
        self.intervals: dict[float, IntervalRecord] = {}

    def write(self, reading: MeterReading) -> None:
        self.source = reading.source
        self.charges |= {c.request_id: c for c in reading.charges}
        self.totals |= {t.tenant: t for t in reading.totals}
        self.intervals |= {i.starts_at: i for i in reading.intervals}

    @property
    def residual(self) -> int:
        rows = self.intervals.values()
        bill = sum(row.price_nanousd_per_hour * row.elapsed_ns for row in rows) // NS_PER_HOUR
        booked = sum(row.idle_nanousd + row.cold_nanousd for row in rows)
        assert sum(row.elapsed_ns for row in rows) == self.source.elapsed_ns
        return bill - booked - sum(c.amounts.work for c in self.charges.values())
