"""What an export is made of: a request's row and an interval's, as the ledger gives them, and lines of money."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from serving.fleet.records import Amounts, IntervalRecord, Tokens

Kind = Literal["request", "idle", "cold_start", "overhead"]


class RequestLike(Protocol):
    """One request with what it was charged with. Times: Unix seconds and seconds; None and "" where not known."""

    @property
    def request_id(self) -> str: ...
    @property
    def caller_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def code(self) -> int | None: ...
    @property
    def outcome(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def duration_s(self) -> float | None: ...
    @property
    def ttft_s(self) -> float | None: ...
    @property
    def stream(self) -> bool | None: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def amounts(self) -> Amounts: ...
    @property
    def method(self) -> str: ...
    @property
    def compared(self) -> Mapping[str, int]: ...
    @property
    def source_ids(self) -> tuple[str, ...]: ...
    @property
    def adapter(self) -> str: ...
    @property
    def preset(self) -> str: ...


class IntervalLike(Protocol):
    """An hour of a source and what of its idle time and cold start no request was charged with, nano-USD."""

    @property
    def record(self) -> IntervalRecord: ...
    @property
    def role(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def idle_tenant(self) -> str: ...
    @property
    def left_idle(self) -> int: ...
    @property
    def left_cold_start(self) -> int: ...


@dataclass(frozen=True)
class Charge:
    """One line of the bill: a request, or time that is no request's. Lines of everything add up to the bill.

    `source_ids`: the replicas that a request ran on, the last first; else the one source. `role`: replica, gateway,
    head or storage. `price_nanousd_per_hour`: what an hour of the source cost; 0 where that is not known.
    """

    kind: Kind
    role: str
    model: str
    variant: str
    tenant: str
    started_at: float
    ended_at: float
    amounts: Amounts
    overhead: int
    source_ids: tuple[str, ...]
    price_nanousd_per_hour: int
    request: RequestLike | None = None

    @property
    def nanousd(self) -> int:
        """All of it."""
        return self.amounts.loaded + self.overhead


@dataclass
class Rate:
    """What a variant of a model has cost for each hour, on average over its intervals. Nano-USD and nanoseconds."""

    owed: int = 0
    elapsed_ns: int = 0

    @property
    def nanousd_per_hour(self) -> int:
        """The mean price of an hour."""
        return self.owed // self.elapsed_ns if self.elapsed_ns else 0


def rates(intervals: Iterable[IntervalLike]) -> dict[tuple[str, str], Rate]:
    """The mean price of each (model, variant)."""
    found: dict[tuple[str, str], Rate] = {}
    for interval in intervals:
        rate = found.setdefault((interval.model, interval.variant), Rate())
        rate.owed += interval.record.price_nanousd_per_hour * interval.record.elapsed_ns
        rate.elapsed_ns += interval.record.elapsed_ns
    return found


@dataclass
class Time:
    """What the fleet's time has cost. `models`: each model's replicas, over all variants."""

    models: dict[str, Rate]
    replicas_nanousd: int = 0
    overhead_nanousd: int = 0

    @property
    def overhead_factor(self) -> float:
        """k: the bill over the replicas' bill."""
        return 1 + self.overhead_nanousd / self.replicas_nanousd if self.replicas_nanousd else 1.0


def time_of(intervals: Iterable[IntervalLike], since: float = 0.0, until: float = math.inf) -> Time:
    """Add up intervals: each model's hours and price, and what the fleet cost beside them.

    Of an interval that lies only partly within [since, until), Unix seconds, that part counts, as if it had cost the
    same all the time.
    """
    found = Time({})
    for interval in intervals:
        r = interval.record
        length = r.elapsed_ns / 1e9
        inside = min(until, r.starts_at + length) - max(since, r.starts_at)
        if inside <= 0:
            continue
        share = min(1.0, inside / length)
        found.overhead_nanousd += round(share * r.overhead_nanousd)
        found.replicas_nanousd += round(share * (r.cold_nanousd + r.idle_nanousd + r.busy_nanousd))
        if interval.role == "replica":
            elapsed_ns = round(share * r.elapsed_ns)
            rate = found.models.setdefault(interval.model, Rate())
            rate.owed += r.price_nanousd_per_hour * elapsed_ns
            rate.elapsed_ns += elapsed_ns
    return found


def charges(requests: Iterable[RequestLike], intervals: Iterable[IntervalLike],
            mean: Mapping[tuple[str, str], Rate]) -> Iterator[Charge]:
    """Every request, then what intervals hold beyond requests: idle time, cold starts, overhead. `mean`: prices."""
    for row in requests:
        rate = mean.get((row.model, row.variant))
        yield Charge("request", "replica", row.model, row.variant, row.tenant, row.started_at,
                     row.started_at + (row.duration_s or 0.0), row.amounts, 0, row.source_ids,
                     rate.nanousd_per_hour if rate else 0, row)
    for interval in intervals:
        record = interval.record
        for kind, amounts, overhead in (("idle", Amounts(idle=interval.left_idle), 0),
                                        ("cold_start", Amounts(cold_start=interval.left_cold_start), 0),
                                        ("overhead", Amounts(), record.overhead_nanousd)):
            if amounts.loaded or overhead:
                tenant = interval.idle_tenant if kind != "overhead" else ""
                yield Charge(kind, interval.role, interval.model, interval.variant, tenant,  # type: ignore[arg-type]
                             record.starts_at, record.starts_at + record.elapsed_ns / 1e9, amounts, overhead,
                             (record.source_id,), record.price_nanousd_per_hour)
