"""Closes the books of what died without a word: its requests under way have failed, and their work is waste.

A killed replica cannot say so itself, and its requests would be "under way" for ever. Whoever seems dead may only be
cut off from the database: then its next reading, which has a higher number, replaces what was written here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from serving.errors import LedgerError
from serving.ledger import schema
from serving.ledger.reading import total
from serving.ledger.store import Ledger

log = logging.getLogger(__name__)
_SILENT_S = 20.0
_LOOKS = 3  # in a row that find a source silent: the database may just have come back, and its sources not yet
_SUMMED = ("direct", "waste", "idle", "cold_start", "prompt_tokens", "cached_tokens", "completion_tokens")


class Closer:
    """Looks for the dead, now and then. `clock`: Unix seconds."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._clock = ledger, clock
        self._silent: dict[tuple[str, int], int] = {}  # (source, its last reading's number): looks

    def look(self) -> list[str]:
        """Close the books of sources that have ended, or have been silent for some looks. Returns: which ones."""
        try:
            found = self._candidates()
            self._silent = {(s, n): self._silent.get((s, n), 0) + 1 for s, n, _ in found}
            dead = [s for s, n, ended in found if ended or self._silent[s, n] >= _LOOKS]
            for source_id in dead:
                with self._ledger.transaction() as db:
                    close(db, source_id)
                log.warning("%s ended in the middle of requests: they count as failed, their work as waste", source_id)
            return dead
        except LedgerError as error:
            log.warning("the ledger cannot be looked through (%s)", error)
            self._silent.clear()  # who is silent now may only be unheard
            return []

    def _candidates(self) -> list[tuple[str, int, bool]]:
        s = schema.sources.c
        under_way = select(schema.charges.c.source_id).where(schema.RUNNING)
        with self._ledger.snapshot() as db:
            rows = db.execute(select(s.source_id, s.number, s.ended, s.seen_at).where(s.source_id.in_(under_way))).all()
        return [(source_id, number, ended) for source_id, number, ended, seen_at in rows
                if ended or seen_at < self._clock() - _SILENT_S]


def close(db: Connection, source_id: str) -> None:
    """Count a source's requests under way as failed, in their rows and in its tenants' totals."""
    c, t = schema.charges.c, schema.totals.c
    mine = (c.source_id == source_id, c.outcome == "running")
    rows = db.execute(select(c.tenant, func.count(), *(total(c[n]) for n in _SUMMED)).where(*mine)
                      .group_by(c.tenant)).all()
    for tenant, count, direct, waste, *others in rows:
        lost = dict(zip(_SUMMED, (0, direct + waste, *others), strict=True)) | {"requests": count, "unfinished": count}
        of = (t.source_id == source_id, t.tenant == tenant)
        done = db.execute(update(schema.totals).where(*of).values({n: t[n] + v for n, v in lost.items()}))
        if not done.rowcount:
            made = {"source_id": source_id, "tenant": tenant, "number": 0, "compared": "{}"}
            db.execute(insert(schema.totals).values(made | lost))
    db.execute(update(schema.charges).where(*mine).values(waste=c.waste + c.direct, direct=0, outcome="failed"))
