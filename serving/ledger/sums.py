"""Sums over the ledger: the bill and where it went, usage by tenant and model, and whether it all adds up."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.fleet.money import bill
from serving.fleet.records import BUCKETS, Tokens
from serving.ledger.store import Ledger

ALIVE_S = 10.0  # a replica that wrote within this time counts as running


@dataclass(frozen=True)
class Reconciliation:
    """The books against the bill, over everything the ledger holds. All amounts nano-USD."""

    residual_nanousd: int
    bill_nanousd: int
    requests_nanousd: int
    idle_nanousd: int
    cold_start_nanousd: int
    replicas: int
    charged_requests: int
    wrong_replicas: tuple[str, ...] = ()


def reconcile(ledger: Ledger) -> Reconciliation:
    """Bill every replica's time anew from its price and hold the charges, idle and cold start against it."""
    with ledger.snapshot() as db:
        replicas = db.execute(
            "SELECT r.replica_id, price_nanousd_per_hour, elapsed_ns, idle_nanousd, cold_nanousd,"
            " COALESCE((SELECT SUM(nanousd) FROM charges c WHERE c.replica_id = r.replica_id), 0) FROM replicas r"
        ).fetchall()
        orphans, charged = db.execute(
            "SELECT COALESCE(SUM(CASE WHEN r.replica_id IS NULL THEN c.nanousd ELSE 0 END), 0), COUNT(*)"
            " FROM charges c LEFT JOIN replicas r ON r.replica_id = c.replica_id"
        ).fetchone()
    billed = {row[0]: bill(row[1], row[2]) for row in replicas}
    wrong = tuple(rid for rid, _, _, idle, cold, requests in replicas if billed[rid] != idle + cold + requests)
    idle, cold = sum(row[3] for row in replicas), sum(row[4] for row in replicas)
    requests = sum(row[5] for row in replicas) + orphans
    total = sum(billed.values())
    off = sum(abs(billed[rid] - i - c - q) for rid, _, _, i, c, q in replicas) + abs(orphans)
    return Reconciliation(off, total, requests, idle, cold, len(replicas), charged, wrong)


@dataclass(frozen=True)
class ModelSums:
    """What one model's replicas have cost and done. Money in nano-USD, time in nanoseconds."""

    model: str
    nanousd: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    running_nanousd: int = 0
    requests: int = 0
    tokens: Tokens = Tokens()
    cold_ns: int = 0
    idle_ns: int = 0
    busy_ns: int = 0

    @property
    def bill_nanousd(self) -> int:
        """All of it: what the replicas' time has cost."""
        return sum(self.nanousd.values()) + self.running_nanousd


@dataclass(frozen=True)
class TenantTotal:
    """Ended requests of one tenant on one model, in one bucket."""

    model: str
    tenant: str
    bucket: str
    nanousd: int
    requests: int
    tokens: Tokens


@dataclass(frozen=True)
class ReplicaState:
    """One replica as last seen."""

    replica_id: str
    model: str
    accelerator: str
    endpoint: str
    ready: bool
    alive: bool
    cold_ns: int
    idle_ns: int
    busy_ns: int
    cold_nanousd: int
    idle_nanousd: int
    seen_at: float
    folded_steps: int


@dataclass(frozen=True)
class Totals:
    """Everything that counters and reports are made of, at one moment."""

    replicas: tuple[ReplicaState, ...]
    tenants: tuple[TenantTotal, ...]
    running: dict[str, int]

    def models(self) -> dict[str, ModelSums]:
        """The same by model."""
        names = {r.model for r in self.replicas} | {t.model for t in self.tenants}
        return {name: self._model(name) for name in sorted(names)}

    def _model(self, name: str) -> ModelSums:
        replicas = [r for r in self.replicas if r.model == name]
        ended = [t for t in self.tenants if t.model == name]
        nanousd = dict.fromkeys(BUCKETS, 0)
        nanousd["idle"] = sum(r.idle_nanousd for r in replicas)
        nanousd["cold_start"] = sum(r.cold_nanousd for r in replicas)
        for total in ended:
            nanousd[total.bucket] += total.nanousd
        return ModelSums(
            name, nanousd, self.running.get(name, 0), sum(t.requests for t in ended),
            sum((t.tokens for t in ended), Tokens()), sum(r.cold_ns for r in replicas),
            sum(r.idle_ns for r in replicas), sum(r.busy_ns for r in replicas),
        )


def totals(ledger: Ledger, now: float) -> Totals:
    """Read the totals. `now`: Unix seconds, to tell which replicas are alive."""
    with ledger.snapshot() as db:
        replicas = tuple(
            ReplicaState(rid, model, accelerator, endpoint, bool(ready), not ended and now - seen < ALIVE_S,
                         cold_ns, idle_ns, busy_ns, cold, idle, seen, folded)
            for (rid, model, accelerator, endpoint, ready, ended, seen, cold_ns, idle_ns, busy_ns, cold, idle, folded)
            in db.execute("SELECT replica_id, model, accelerator, endpoint, ready, ended, seen_at, cold_ns, idle_ns,"
                          " busy_ns, cold_nanousd, idle_nanousd, folded_steps FROM replicas ORDER BY started_at")
        )
        tenants = tuple(
            TenantTotal(model, tenant, bucket, nanousd, requests, Tokens(prompt, cached, completion))
            for (model, tenant, bucket, nanousd, requests, prompt, cached, completion) in db.execute(
                "SELECT r.model, t.tenant, t.bucket, SUM(t.nanousd), SUM(t.requests), SUM(t.prompt_tokens),"
                " SUM(t.cached_tokens), SUM(t.completion_tokens) FROM totals t JOIN replicas r USING (replica_id)"
                " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
        )
        running = dict(db.execute(
            "SELECT r.model, SUM(c.nanousd) FROM charges c JOIN replicas r USING (replica_id)"
            " WHERE c.outcome = 'running' GROUP BY 1"))
    return Totals(replicas, tenants, running)


@dataclass(frozen=True)
class UsageRow:
    """Requests of one tenant to one model, as the gateway answered them, with what they cost."""

    tenant: str
    model: str
    requests: int
    errors: int
    aborted: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    nanousd: int


def usage(ledger: Ledger, since: float = 0.0, until: float = 1e18) -> list[UsageRow]:
    """Usage by tenant and model of requests that began in [since, until), Unix seconds.

    Token counts come from the answer, or from the engine where the caller left before it ended.
    """
    with ledger.snapshot() as db:
        rows = db.execute(
            "SELECT q.tenant, q.model, COUNT(*), SUM(q.outcome IN ('failed', 'rejected')), SUM(q.outcome = 'aborted'),"
            " SUM(COALESCE(q.prompt_tokens, c.prompt, 0)), SUM(COALESCE(q.cached_tokens, c.cached, 0)),"
            " SUM(COALESCE(q.completion_tokens, c.completion, 0)), SUM(COALESCE(c.nanousd, 0))"
            " FROM requests q LEFT JOIN (SELECT request_id, SUM(nanousd) nanousd, SUM(prompt_tokens) prompt,"
            "  SUM(cached_tokens) cached, SUM(completion_tokens) completion FROM charges GROUP BY 1) c"
            " USING (request_id) WHERE q.started_at >= ? AND q.started_at < ? GROUP BY 1, 2 ORDER BY 1, 2",
            (since, until),
        )
        return [UsageRow(*row) for row in rows]
