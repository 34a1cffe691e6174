"""The ledger on SQLite: opened by path, written by many processes at once.

Write-ahead logging lets readers go on while one process writes; a writer waits for another up to `_BUSY_S`. Every
write is one transaction and may be repeated without changing anything.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from serving.errors import LedgerError
from serving.fleet.records import MeterReading, RequestRecord, Tokens
from serving.ledger import schema

_BUSY_S = 30.0


@dataclass(frozen=True)
class Ledger:
    """A ledger's database. Safe to use from several threads: each gets a connection of its own."""

    path: Path
    _local: threading.local

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open or make the ledger at `path`. Raises: LedgerError."""
        ledger = cls(Path(path), threading.local())
        try:
            ledger.path.parent.mkdir(parents=True, exist_ok=True)
            with ledger.transaction() as db:
                found = db.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchone()
                if not found:
                    for statement in filter(str.strip, schema.TABLES.split(";")):
                        db.execute(statement)
                    db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(schema.VERSION),))
                row = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        except OSError as error:
            raise LedgerError(f"{path}: the ledger cannot be opened: {error}") from error
        if row is None or row[0] != str(schema.VERSION):
            found = row[0] if row else "unknown"
            raise LedgerError(f"{path}: the ledger has format {found}, this Flotilla writes {schema.VERSION}; "
                              "move the file away to begin a new one")
        return ledger

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Ledger.open, (self.path,)

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._local, "db", None)
        if found is None:
            found = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
            _log_ahead(found)
            found.execute("PRAGMA synchronous=NORMAL")
            self._local.db = found
        return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all or nothing. Raises: LedgerError."""
        try:
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: every query in it sees the same moment. Raises: LedgerError."""
        try:
            db = self._connection()
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def write_requests(self, records: Iterable[RequestRecord]) -> None:
        """Keep gateway rows; one that is there already is left as it is."""
        with self.transaction() as db:
            db.executemany(
                f"INSERT OR IGNORE INTO requests VALUES ({_marks(15)})",
                ((r.request_id, r.caller_id, r.tenant, r.key_id, r.model, r.endpoint, r.code, r.outcome,
                  r.started_at, r.duration_s, r.stream, r.ttft_s, *_counts(r.tokens)) for r in records),
            )

    def write_reading(self, reading: MeterReading) -> None:
        """Keep a replica's reading: absolute sums replace older ones."""
        with self.transaction() as db:
            db.execute(f"INSERT OR REPLACE INTO replicas VALUES ({_marks(17)})", astuple(reading.replica))
            db.executemany(
                f"INSERT OR REPLACE INTO charges VALUES ({_marks(9)})",
                ((c.replica_id, c.request_id, c.tenant, c.outcome, c.nanousd, *_counts(c.tokens), c.updated_at)
                 for c in reading.charges),
            )
            db.executemany(
                f"INSERT OR REPLACE INTO totals VALUES ({_marks(8)})",
                ((t.replica_id, t.tenant, t.bucket, t.nanousd, t.requests, *_counts(t.tokens)) for t in reading.totals),
            )


def _log_ahead(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. SQLite does not wait here when several processes open a new file at once."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _counts(tokens: Tokens | None) -> tuple[int | None, int | None, int | None]:
    return (tokens.prompt, tokens.cached, tokens.completion) if tokens else (None, None, None)
