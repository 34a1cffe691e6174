"""Adapters in the ledger: added, removed, and followed by gateways. A row is never changed but for when it was removed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

from sqlalchemy import insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError

from serving.errors import AdapterRefused, LedgerError
from serving.fleet.adapters import Adapter
from serving.ledger import audit, schema
from serving.ledger.store import Ledger

log = logging.getLogger(__name__)
_ROWS = schema.adapters
_EVERY_S = 2.0
_FIRST_S = 2.0  # that a gateway's start waits for the database


def put(ledger: Ledger, adapter: Adapter, replace: bool, actor: str = "") -> None:
    """Keep an adapter. `replace`: what has its name goes at the same moment. `actor`: who does it.

    Raises: AdapterRefused, LedgerError.
    """
    row = asdict(adapter) | {"tenants": None if adapter.tenants is None else json.dumps(adapter.tenants)}
    with ledger.transaction() as db:
        if replace:
            db.execute(update(_ROWS).where(*_named(adapter.model, adapter.name)).values(removed_at=adapter.added_at))
        try:
            db.execute(insert(_ROWS), row)
        except IntegrityError:  # someone was quicker
            raise AdapterRefused(f"{adapter.addressed} is there already") from None
        audit.record(db, adapter.added_at, actor, "adapter.add", f"adapter:{adapter.addressed}", {
            "id": adapter.adapter_id, "source": adapter.source, "tenants": adapter.tenants, "replace": replace})


def remove(ledger: Ledger, model: str, name: str, now: float, actor: str = "") -> Adapter | None:
    """Take the adapter of this name away and return it; None: there is none. Raises: LedgerError."""
    with ledger.transaction() as db:
        row = db.execute(select(_ROWS).where(*_named(model, name))).mappings().first()
        if row is not None:
            db.execute(update(_ROWS).where(_ROWS.c.adapter_id == row["adapter_id"]).values(removed_at=now))
            audit.record(db, now, actor, "adapter.remove", f"adapter:{model}:{name}", {"id": row["adapter_id"]})
    return None if row is None else _adapter({**row, "removed_at": now})


def every(ledger: Ledger) -> list[Adapter]:
    """All that were ever added, oldest first. Raises: LedgerError."""
    with ledger.snapshot() as db:
        return [_adapter(row) for row in db.execute(
            select(_ROWS).order_by(_ROWS.c.added_at, _ROWS.c.adapter_id)).mappings()]


def present(ledger: Ledger) -> list[Adapter]:
    """Those that have not been removed. Raises: LedgerError."""
    with ledger.snapshot() as db:
        return [_adapter(row) for row in db.execute(
            select(_ROWS).where(_ROWS.c.removed_at.is_(None)).order_by(_ROWS.c.added_at, _ROWS.c.adapter_id)
        ).mappings()]


def _named(model: str, name: str) -> tuple:
    return _ROWS.c.model == model, _ROWS.c.name == name, _ROWS.c.removed_at.is_(None)


def _adapter(row: RowMapping | dict) -> Adapter:
    tenants = row["tenants"]
    return Adapter(**{**row, "tenants": None if tenants is None else tuple(json.loads(tenants))})


class FollowedAdapters:
    """The adapters there are, read again every `every_s` seconds. While the database is away, those known stay.

    Belongs to the event loop that called `start`.
    """

    def __init__(self, ledger: Ledger, every_s: float = _EVERY_S) -> None:
        self._ledger, self._every_s = ledger, every_s
        self._found: tuple[Adapter, ...] = ()
        self._task: asyncio.Task[None] | None = None

    @property
    def found(self) -> Sequence[Adapter]:
        """Those there are: the same object until they change."""
        return self._found

    async def start(self) -> None:
        """Begin to follow; they are known when this returns, unless the database is away."""
        first = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._follow(first))
        with suppress(TimeoutError):
            await asyncio.wait_for(first.wait(), _FIRST_S)

    def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self, first: asyncio.Event) -> None:
        away = False
        while True:
            try:
                found = tuple(await asyncio.to_thread(present, self._ledger))
                if found != self._found:
                    self._found = found
                away = False
            except LedgerError as error:
                if not away:
                    log.warning("adapters cannot be read (%s); those known stay", error)
                away = True
            first.set()
            await asyncio.sleep(self._every_s)
