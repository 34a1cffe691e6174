"""What limits have to know of the ledger: what a budget's period has cost so far, and what single requests cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from serving.fleet.limits import Limit, bounds
from serving.fleet.records import Amounts, Tokens
from serving.fleet.verdicts import Used
from serving.ledger import reading, schema
from serving.ledger.store import Ledger

_BATCH = 500


@dataclass(frozen=True)
class Charged:
    """What the ledger knows of a request. `running`: more may come."""

    used: Used
    running: bool


def spent(ledger: Ledger, of: Mapping[str, str], since: float, until: float) -> int:
    """Nano-USD that requests which have ended, and began in [since, until), were charged with.

    `of`: only those of this `tenant`, `key`, `model`.
    """
    q, c = schema.requests.c, schema.charges.c
    columns = {"tenant": q.tenant, "key": q.key_id, "model": q.model}
    query = (select(*(reading.total(c[name]) for name in ("direct", "waste", "idle", "cold_start")))
             .join_from(schema.requests, schema.charges, c.request_id == q.request_id)
             .where(q.started_at >= since, q.started_at < until,
                    *(columns[name] == value for name, value in of.items())))
    with ledger.snapshot() as db:
        return Amounts(*db.execute(query).one()).loaded


def spent_by(ledger: Ledger, since: float, until: float) -> dict[tuple[str, str], int]:
    """As `spent`, by tenant and model."""
    q, c = schema.requests.c, schema.charges.c
    query = (select(q.tenant, q.model, *(reading.total(c[name]) for name in ("direct", "waste", "idle", "cold_start")))
             .join_from(schema.requests, schema.charges, c.request_id == q.request_id)
             .where(q.started_at >= since, q.started_at < until).group_by(q.tenant, q.model))
    with ledger.snapshot() as db:
        return {(tenant, model): Amounts(*amounts).loaded for tenant, model, *amounts in db.execute(query)}


def charged(ledger: Ledger, request_ids: Sequence[str]) -> dict[str, Charged]:
    """What requests have been charged with over all their replicas; those that none has charged are missing."""
    c, found = schema.charges.c, {}
    names = ("direct", "waste", "idle", "cold_start", "prompt_tokens", "cached_tokens", "completion_tokens")
    with ledger.snapshot() as db:
        for at in range(0, len(request_ids), _BATCH):
            query = (select(c.request_id, func.count().filter(c.outcome == "running"),
                            *(reading.total(c[name]) for name in names))
                     .where(c.request_id.in_(request_ids[at : at + _BATCH])).group_by(c.request_id))
            for name, running, *sums in db.execute(query):
                found[name] = Charged(Used(Tokens(*sums[4:]), Amounts(*sums[:4]).loaded), running > 0)
    return found


class LedgerTruth:
    """The ledger's side of `serving.quotastore.desk`. Never blocks the event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def spent(self, limit: Limit, now: float) -> int:
        """What of a money limit's period is spent, nano-USD. Raises: LedgerError."""
        assert limit.period is not None
        return await asyncio.to_thread(spent, self._ledger, dict(limit.of), *bounds(limit.period, now))

    async def charged(self, request_ids: Sequence[str]) -> Mapping[str, Charged]:
        """What requests have used. Raises: LedgerError."""
        return await asyncio.to_thread(charged, self._ledger, request_ids)
