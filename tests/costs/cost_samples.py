"""A replica on paper: engine steps go in, rows for a ledger come out, by the code that a live replica runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serving.fleet.attribution import ReplicaMeter, Work
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import PriceLine
from serving.fleet.prices import Comparison
from serving.fleet.records import (
    Amounts,
    ChargeRecord,
    EngineOutcome,
    IntervalRecord,
    MeterReading,
    RequestRecord,
    SourceRecord,
    Tokens,
    TotalRecord,
)
from serving.fleet.stepmodel import StepModel

START = 1_764_000_000.0  # Unix seconds: 2025-11-24 16:00 UTC, a full hour
NS = 1_000_000_000
TRUE = StepModel(0.012, 4e-5, 3e-9, 6e-8)  # what a step of the pretended machine takes, seconds


@dataclass
class Replica:
    """One replica's books. Times in seconds since `started_at`."""

    name: str = "r1"
    model: str = "qwen"
    variant: str = "h100"
    prices: PriceLine = PriceLine.fixed(2_950_000_000)
    policy: LoadingPolicy = LoadingPolicy()
    fixed: StepModel | None = None
    started_at: float = START
    idle_tenant: str = ""
    compared: Sequence[Comparison] = ()
    now: float = 0.0
    requests: dict[str, RequestRecord] = field(default_factory=dict)
    outcomes: dict[str, EngineOutcome] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)
    tenants: dict[str, str] = field(default_factory=dict)
    ended_at: dict[str, float] = field(default_factory=dict)
    preempted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.meter = ReplicaMeter(self.prices, 0, self.started_at, self.policy, self.fixed)

    def ready(self, at: float) -> None:
        """Cold start ends."""
        self.now = max(self.now, at)
        self.meter.ready(round(at * NS))

    def idle(self, until: float) -> None:
        """No one asks for anything until then."""
        self.now = max(self.now, until)
        self.meter.quiet(round(until * NS))

    def step(self, works: Sequence[Work], took: float | None = None) -> None:
        """A step that begins now; as long as the pretended machine takes unless told."""
        if took is None:
            took = sum(TRUE.part(w.tokens, w.context, len(works)) for w in works)
        begin, self.now = self.now, self.now + took
        self.meter.step(round(begin * NS), round(self.now * NS), works)

    def serve(self, ids: Sequence[str], prompt: int, completion: int, tenant: str = "demo", cached: int = 0) -> None:
        """Requests that come together, are answered together, and go."""
        for name in ids:
            self.tenants[name] = tenant
        self.step([Work(name, prompt - cached, cached, "prefill") for name in ids])
        for done in range(1, completion):
            self.step([Work(name, 1, prompt + done - 1) for name in ids])
        for name in ids:
            self.end(name, "finished", Tokens(prompt, cached, completion))

    def end(self, name: str, outcome: EngineOutcome, tokens: Tokens, tenant: str | None = None,
            caller_id: str = "") -> None:
        """A request is over; the gateway has written it down as well."""
        self.meter.ended(name)
        self.outcomes[name], self.tokens[name], self.ended_at[name] = outcome, tokens, self.started_at + self.now
        self.tenants.setdefault(name, tenant or "demo")
        took = self.meter.charges[name].trail.segments()
        seconds = sum(s.step_ns for s in took) / NS
        self.requests[name] = RequestRecord(
            name, caller_id, self.tenants[name], "key_1", self.model, "chat_completions",
            200 if outcome == "finished" else 499, "finished" if outcome == "finished" else "aborted",
            self.started_at + self.now - seconds, seconds, True, 0.1, tokens if outcome == "finished" else None)

    def charges(self) -> tuple[ChargeRecord, ...]:
        """Rows of all requests."""
        found = []
        for name, charge in self.meter.charges.items():
            outcome, tokens = self.outcomes.get(name, "running"), self.tokens.get(name, Tokens())
            found.append(ChargeRecord(
                self.name, name, self.tenants.get(name, "demo"), outcome, charge.amounts(outcome), tokens,
                charge.method, self.ended_at.get(name, self.started_at + self.now), self.preempted.get(name, 0),
                charge.recomputed, charge.rejected, {c.name: c.nanousd(tokens) for c in self.compared},
                charge.trail.segments()))
        return tuple(found)

    def reading(self, number: int = 1) -> MeterReading:
        """Everything so far."""
        total, meter, charges = self.meter.account.total, self.meter, self.charges()
        source = SourceRecord(
            self.name, "replica", self.model, self.variant, "127.0.0.1:1", meter.account.price_nanousd_per_hour,
            self.started_at, self.started_at + self.now, meter.ready_ns is not None, False, total.elapsed_ns,
            total.cold_ns, total.idle_ns, total.busy_ns, total.cold_nanousd, total.idle_nanousd, 0, 0, meter.method,
            self.idle_tenant, None if self.fixed else meter.fitter.fit())
        totals: dict[str, TotalRecord] = {}
        for charge in charges:
            if charge.outcome != "running":
                old = totals.get(charge.tenant) or TotalRecord(self.name, charge.tenant, Amounts(), 0, 0, Tokens())
                compared = {n: old.compared.get(n, 0) + v for n, v in charge.compared.items()}
                totals[charge.tenant] = TotalRecord(
                    self.name, charge.tenant, old.amounts + charge.amounts, old.requests + 1,
                    old.unfinished + (charge.outcome != "finished"), old.tokens + charge.tokens, compared)
        intervals = tuple(i.record(self.name) for i in meter.account.changes())
        return MeterReading(number, source, intervals, charges, tuple(totals.values()))


def overhead(role: str = "gateway", hours: float = 1.0, nanousd_per_hour: int = 100_000_000) -> MeterReading:
    """A gateway's (or head node's, or storage's) time: all of it overhead."""
    ns = round(hours * 3600 * NS)
    cost = nanousd_per_hour * ns // (3600 * NS)
    source = SourceRecord(role, role, "", "", "", nanousd_per_hour, START, START + hours * 3600, True,  # type: ignore
                          False, ns, 0, 0, 0, 0, 0, cost, 0, "window")
    return MeterReading(1, source, (IntervalRecord(role, START, nanousd_per_hour, ns, 0, 0, 0, 0, 0, 0, cost),))


def bill(readings: Sequence[MeterReading]) -> int:
    """What all of it has cost, by the meters' own sums, nano-USD."""
    return sum(i.cold_nanousd + i.idle_nanousd + i.busy_nanousd + i.overhead_nanousd
               for r in readings for i in r.intervals)


def by_name(charges: Sequence[ChargeRecord]) -> Mapping[str, ChargeRecord]:
    """Charges by their request."""
    return {c.request_id: c for c in charges}
