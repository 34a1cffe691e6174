"""Usage by tenant, key, model, adapter, preset and day as gateways answered it; what a model's requests look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import func, select, text
from sqlalchemy.sql.elements import ColumnElement

from serving.fleet.records import Amounts, Tokens
from serving.ledger import schema
from serving.ledger.reading import day, total
from serving.ledger.store import Ledger

_FOREVER = 1e18
By = Literal["tenant", "key", "model", "adapter", "preset", "day"]
USAGE_BY: tuple[By, ...] = get_args(By)


@dataclass(frozen=True)
class UsageRow:
    """Requests of one tenant to one model, as the gateway answered them, with what they cost. Money in nano-USD.

    `key`, `day` (UTC, as 2026-11-25), `adapter` (as model:adapter) and `preset` (as name@version) are empty where rows
    are not by them; so are the others. Requests that named no adapter or preset are of the empty one.
    """

    tenant: str
    model: str
    requests: int
    errors: int
    aborted: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amounts: Amounts
    key: str = ""
    day: str = ""
    adapter: str = ""
    preset: str = ""

    @property
    def nanousd(self) -> int:
        """What they were charged with: the fully loaded basis."""
        return self.amounts.loaded

    def shown(self, by: Sequence[By]) -> dict[str, Any]:
        """As JSON has it: what it is by, counts, and the cost in USD and, exactly, in nano-USD."""
        return {name: getattr(self, name) for name in by} | {
            "requests": self.requests, "errors": self.errors, "aborted": self.aborted,
            "prompt_tokens": self.prompt_tokens, "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens, "cost_usd": self.nanousd / 1e9,
            "cost_nanousd": self.nanousd}


def usage(ledger: Ledger, since: float = 0.0, until: float = _FOREVER, by: Sequence[By] = ("tenant", "model"),
          of: Mapping[str, str] | None = None) -> list[UsageRow]:
    """Usage of requests that began in [since, until), Unix seconds, one row for each value of what it is `by`.

    Token counts come from the answer, or from the engine where the caller left before it ended. `of`: only those of
    this `tenant`, `key`, `model`, `adapter` or `preset`.
    """
    q, c = schema.requests.c, schema.charges.c
    columns: dict[str, ColumnElement[str]] = {
        "tenant": q.tenant, "key": q.key_id, "model": q.model, "adapter": q.adapter, "preset": q.preset}
    only = [q.started_at >= since, q.started_at < until, *(columns[n] == value for n, value in (of or {}).items())]
    names = ("direct", "waste", "idle", "cold_start", "prompt_tokens", "cached_tokens", "completion_tokens")
    cost = (select(c.request_id, *(total(c[name]).label(name) for name in names))
            .join(schema.requests, q.request_id == c.request_id).where(*only).group_by(c.request_id).subquery())
    tokens = [total(func.coalesce(q[name], cost.c[name], 0)) for name in names[4:]]
    with ledger.snapshot(patient=True) as db:
        groups = [(day(db, q.started_at) if name == "day" else columns[name]).label(f"by_{name}") for name in by]
        query = (
            select(*groups, func.count(), func.count().filter(q.outcome.in_(("failed", "rejected"))),
                   func.count().filter(q.outcome == "aborted"), *tokens, *(total(cost.c[name]) for name in names[:4]))
            .outerjoin_from(schema.requests, cost, cost.c.request_id == q.request_id).where(*only)
        )
        if groups:  # by their labels: PostgreSQL does not see that two expressions with parameters are the same
            labels = [text(group.name) for group in groups]
            query = query.group_by(*labels).order_by(*labels)
        return [_row(by, tuple(row)) for row in db.execute(query)]


def _row(by: Sequence[By], row: tuple[Any, ...]) -> UsageRow:
    named, sums = dict(zip(by, row, strict=False)), row[len(by) :]
    return UsageRow(named.get("tenant", ""), named.get("model", ""), *sums[:6], Amounts(*sums[6:]),
                    named.get("key", ""), named.get("day", ""), named.get("adapter", ""), named.get("preset", ""))


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
