"""Connections to the ledger's database, and the transactions that it offers.

SQLite: write-ahead logging lets readers go on while one process writes; a writer waits for another up to `BUSY_S`.
PostgreSQL: whatever hangs is given up after a while, so that an outage is an error and never a standstill.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection

BUSY_S = 30.0
_CONNECT_S = 5
_POSTGRES = {
    "connect_timeout": _CONNECT_S,
    "application_name": "flotilla",
    "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10min",
    # a server that is gone without a word is noticed within about 20 s
    "tcp_user_timeout": 20_000, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2,
}
_BEGIN = "flotilla_begin"


def connect(url: URL) -> Engine:
    """An engine for a ledger's address. Nothing is connected yet."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_S})
        event.listen(engine, "connect", _opened)
        event.listen(engine, "begin", _begin)
        return engine
    ours = {name: value for name, value in _POSTGRES.items() if name not in url.query}
    return create_engine(url, connect_args=ours, pool_pre_ping=True, pool_timeout=_CONNECT_S)


def for_writing(engine: Engine) -> Engine:
    """The same engine; its transactions write."""
    if engine.dialect.name == "sqlite":
        # asked for at once: a transaction that turns from reading to writing half-way may not wait for others
        return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
    return engine


def for_reading(engine: Engine) -> Engine:
    """The same engine; every query of one transaction sees the same moment."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_BEGIN: "BEGIN"})
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _opened(db: sqlite3.Connection, _record: Any) -> None:
    db.isolation_level = None  # else Python's module begins transactions of its own
    _log_ahead(db)
    db.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _log_ahead(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. SQLite does not wait here when several processes open a new file at once."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
