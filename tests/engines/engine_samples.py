"""Books driven by hand: steps of one nano-dollar a nanosecond, readings kept in a list."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from serving.engines.books import Books, ReplicaFacts
from serving.engines.steps import Ended, Step
from serving.fleet.records import ChargeRecord, MeterReading

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


@dataclass
class Replica:
    """Books and what they wrote. The clock of `step` goes on from step to step."""

    now_ns: int = field(default_factory=time.monotonic_ns)
    written: list[MeterReading] = field(default_factory=list)

    def __post_init__(self) -> None:
        facts = ReplicaFacts("replica-1", "qwen", "core", PRICE)
        self.books = Books(facts, self.now_ns, 1.0, self.written.append)

    def ready(self) -> Replica:
        self.books.ready("127.0.0.1:1")
        self.now_ns = time.monotonic_ns()
        return self

    def step(self, names: list[str], ended: list[Ended] = [], lasts_ns: int = 1_000) -> None:  # noqa: B006
        """One step that reads eight tokens for each of the engine requests in `names`."""
        start = max(self.now_ns, self.books._meter.seen_ns)  # a reading may have booked idle time up to now
        self.now_ns = start + lasts_ns
        self.books.take(Step(start, self.now_ns, [(name, 8, 0) for name in names], list(ended)))


class Ledger:
    """What a ledger keeps of readings: the newest of each row."""

    def __init__(self) -> None:
        self.replica = None
        self.charges: dict[str, ChargeRecord] = {}
        self.totals: dict[tuple[str, str], object] = {}

    def write(self, reading: MeterReading) -> None:
        self.replica = reading.replica
        self.charges |= {c.request_id: c for c in reading.charges}
        self.totals |= {(t.tenant, t.bucket): t for t in reading.totals}

    @property
    def residual(self) -> int:
        from serving.fleet.money import bill

        replica = self.replica
        booked = replica.idle_nanousd + replica.cold_nanousd + sum(c.nanousd for c in self.charges.values())
        return bill(replica.price_nanousd_per_hour, replica.elapsed_ns) - booked
