"""The audit log: who has made, changed or ended what. The database itself refuses to change or remove an entry.

An entry is written in the transaction of what it tells of, so that neither is there without the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from serving.ledger import schema
from serving.ledger.store import Ledger

_AUDIT = schema.audit


@dataclass(frozen=True)
class Entry:
    """One act. `at`: Unix seconds; `subject`: as `key:ID` or `tenant:NAME`; `details`: what was set, never a secret."""

    number: int
    at: float
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


def record(db: Connection, now: float, actor: str, action: str, subject: str,
           details: Mapping[str, Any] | None = None) -> None:
    """Write an entry down."""
    db.execute(insert(_AUDIT), {"at": now, "actor": actor, "action": action, "subject": subject,
                                "details": json.dumps(dict(details or {}), sort_keys=True)})


def entries(ledger: Ledger, limit: int = 100, before: int | None = None, subject: str | None = None) -> list[Entry]:
    """The newest entries first. `before`: only those with a smaller number; `subject`: only those about it."""
    query = select(_AUDIT).order_by(_AUDIT.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(_AUDIT.c.number < before)
    if subject is not None:
        query = query.where(_AUDIT.c.subject == subject)
    with ledger.snapshot() as db:
        return [Entry(row.number, row.at, row.actor, row.action, row.subject, json.loads(row.details))
                for row in db.execute(query)]
