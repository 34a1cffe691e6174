"""What counters and overviews are made of: every source as last seen, and sums of ended requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select

from serving.fleet.records import BUCKETS, Amounts, SourceRecord, Tokens
from serving.ledger import reading, schema
from serving.ledger.reading import total
from serving.ledger.store import Ledger

ALIVE_S = 10.0  # a source that wrote within this time counts as running


@dataclass(frozen=True)
class ModelSums:
    """What one model's replicas have cost and done. Money in nano-USD, time in nanoseconds.

    `nanousd`: by bucket; idle and cold start are all of the replicas', whoever is charged with them. `requests`,
    `tokens`, `compared` and `unfinished` (aborted or failed, part of `requests`) count ended requests;
    `allocated_nanousd`: idle and cold start that requests were charged with, part of those buckets. The model of what
    serves none (gateways, head node, storage) is "".
    """

    model: str
    nanousd: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    running_nanousd: int = 0
    requests: int = 0
    tokens: Tokens = Tokens()
    cold_ns: int = 0
    idle_ns: int = 0
    busy_ns: int = 0
    compared: dict[str, int] = field(default_factory=dict)
    allocated_nanousd: int = 0
    unfinished: int = 0

    @property
    def bill_nanousd(self) -> int:
        """All of it: what the sources' time has cost."""
        return sum(self.nanousd.values()) + self.running_nanousd


@dataclass(frozen=True)
class TenantTotal:
    """Ended requests of one tenant on one model. Money in nano-USD."""

    model: str
    tenant: str
    amounts: Amounts
    requests: int
    unfinished: int
    tokens: Tokens
    compared: dict[str, int]


@dataclass(frozen=True)
class SourceState:
    """One source as last seen. `alive`: it has written of late and has not said that it ended."""

    record: SourceRecord
    alive: bool

    @property
    def source_id(self) -> str:
        """Its name."""
        return self.record.source_id

    @property
    def model(self) -> str:
        """The model that it serves; empty for what serves none."""
        return self.record.model


@dataclass(frozen=True)
class Totals:
    """Everything that counters and reports are made of, at one moment.

    `running`: work of requests under way, nano-USD by model. `running_allocated`: idle and cold start that those have
    been charged with already.
    """

    sources: tuple[SourceState, ...]
    tenants: tuple[TenantTotal, ...]
    running: dict[str, int]
    running_allocated: dict[str, int]

    @property
    def replicas(self) -> tuple[SourceState, ...]:
        """The sources that are replicas of models."""
        return tuple(s for s in self.sources if s.record.role == "replica")

    def models(self) -> dict[str, ModelSums]:
        """The same by model. Their bills add up to the bill."""
        names = {s.model for s in self.sources} | {t.model for t in self.tenants}
        return {name: self._model(name) for name in sorted(names)}

    def _model(self, name: str) -> ModelSums:
        sources = [s.record for s in self.sources if s.model == name]
        ended = [t for t in self.tenants if t.model == name]
        nanousd = dict.fromkeys(BUCKETS, 0)
        nanousd["idle"] = sum(s.idle_nanousd for s in sources)
        nanousd["cold_start"] = sum(s.cold_nanousd for s in sources)
        nanousd["overhead"] = sum(s.overhead_nanousd for s in sources)
        nanousd["direct"] = sum(t.amounts.direct for t in ended)
        nanousd["waste"] = sum(t.amounts.waste for t in ended)
        compared: dict[str, int] = {}
        for tenant in ended:
            reading.add(compared, tenant.compared)
        return ModelSums(
            name, nanousd, self.running.get(name, 0), sum(t.requests for t in ended),
            sum((t.tokens for t in ended), Tokens()), sum(s.cold_ns for s in sources), sum(s.idle_ns for s in sources),
            sum(s.busy_ns for s in sources), compared,
            sum(t.amounts.idle + t.amounts.cold_start for t in ended) + self.running_allocated.get(name, 0),
            sum(t.unfinished for t in ended),
        )


def totals(ledger: Ledger, now: float) -> Totals:
    """Read the totals. `now`: Unix seconds, to tell which sources are alive."""
    s, t, c = schema.sources.c, schema.totals.c, schema.charges.c
    with ledger.snapshot() as db:
        sources = [reading.source(row) for row in
                   db.execute(select(schema.sources).order_by(s.started_at, s.source_id)).mappings()]
        ended = db.execute(select(schema.totals, s.model)
                           .join(schema.sources, s.source_id == t.source_id)).mappings().all()
        running = db.execute(
            select(s.model, total(c.direct + c.waste), total(c.idle + c.cold_start))
            .join(schema.sources, s.source_id == c.source_id).where(schema.RUNNING).group_by(s.model)).all()
    tenants: dict[tuple[str, str], TenantTotal] = {}
    for row in ended:
        key = (row["model"], row["tenant"])
        old = tenants.get(key) or TenantTotal(*key, Amounts(), 0, 0, Tokens(), {})
        reading.add(old.compared, reading.compared_of(row))
        tenants[key] = TenantTotal(
            *key, old.amounts + reading.amounts_of(row), old.requests + row["requests"],
            old.unfinished + row["unfinished"], old.tokens + reading.tokens_of(row), old.compared)
    return Totals(
        tuple(SourceState(r, not r.ended and now - r.seen_at < ALIVE_S) for r in sources),
        tuple(tenants[key] for key in sorted(tenants)),
        {model: work for model, work, _ in running}, {model: allocated for model, _, allocated in running},
    )
