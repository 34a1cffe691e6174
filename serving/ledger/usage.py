"""Usage by tenant and model as the gateway answered it, and what a model's requests look like."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from serving.fleet.records import Amounts, Tokens
from serving.ledger import schema
from serving.ledger.reading import total
from serving.ledger.store import Ledger

_FOREVER = 1e18


@dataclass(frozen=True)
class UsageRow:
    """Requests of one tenant to one model, as the gateway answered them, with what they cost. Money in nano-USD."""

    tenant: str
    model: str
    requests: int
    errors: int
    aborted: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amounts: Amounts

    @property
    def nanousd(self) -> int:
        """What they were charged with: the fully loaded basis."""
        return self.amounts.loaded


def usage(ledger: Ledger, since: float = 0.0, until: float = _FOREVER) -> list[UsageRow]:
    """Usage by tenant and model of requests that began in [since, until), Unix seconds.

    Token counts come from the answer, or from the engine where the caller left before it ended.
    """
    q, c = schema.requests.c, schema.charges.c
    names = ("direct", "waste", "idle", "cold_start", "prompt_tokens", "cached_tokens", "completion_tokens")
    cost = (select(c.request_id, *(total(c[name]).label(name) for name in names))
            .join(schema.requests, q.request_id == c.request_id)
            .where(q.started_at >= since, q.started_at < until).group_by(c.request_id).subquery())
    tokens = [total(func.coalesce(q[name], cost.c[name], 0)) for name in names[4:]]
    query = (
        select(q.tenant, q.model, func.count(), func.count().filter(q.outcome.in_(("failed", "rejected"))),
               func.count().filter(q.outcome == "aborted"), *tokens, *(total(cost.c[name]) for name in names[:4]))
        .outerjoin(cost, cost.c.request_id == q.request_id)
        .where(q.started_at >= since, q.started_at < until).group_by(q.tenant, q.model).order_by(q.tenant, q.model)
    )
    with ledger.snapshot(patient=True) as db:
        return [UsageRow(*row[:8], Amounts(*row[8:])) for row in db.execute(query)]


@dataclass(frozen=True)
class Shape:
    """What a model's finished requests look like: their number, mean tokens, and when they ran (Unix seconds)."""

    model: str
    requests: int
    prompt: float
    cached: float
    completion: float
    first_at: float
    last_at: float

    @property
    def span_s(self) -> float:
        """From the first one's beginning to the last one's end, seconds."""
        return self.last_at - self.first_at


def shapes(ledger: Ledger, model: str, since: float = 0.0) -> Shape | None:
    """The shape of a model's requests that finished, with known tokens, and began at `since` or later; None: none."""
    q = schema.requests.c
    query = select(
        func.count(), total(q.prompt_tokens), total(q.cached_tokens), total(q.completion_tokens),
        func.min(q.started_at), func.max(q.started_at + q.duration_s),
    ).where(q.model == model, q.outcome == "finished", q.prompt_tokens.is_not(None), q.started_at >= since)
    with ledger.snapshot(patient=True) as db:
        count, prompt, cached, completion, first, last = db.execute(query).one()
    sums = Tokens(prompt, cached, completion)
    return Shape(model, count, sums.prompt / count, sums.cached / count, sums.completion / count, first,
                 last) if count else None
