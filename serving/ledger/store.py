"""The ledger's database: opened by path or URL, written by many processes at once.

Every write is one transaction and may be repeated without changing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from serving.errors import LedgerError
from serving.fleet.records import MeterReading, RequestRecord
from serving.ledger import upgrade, writing
from serving.ledger.address import address, failed, shown
from serving.ledger.connections import connect, for_reading, for_writing

_PATIENCE = "10min"


class Ledger:
    """A ledger's database. Safe to use from several threads, and it travels to other processes by its address."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = connect(url)
        self._writing, self._reading = for_writing(self._engine), for_reading(self._engine)
        self._ready = False

    @classmethod
    def open(cls, where: str | Path) -> Ledger:
        """Open, make or bring up to date the ledger at a path or URL. Raises: LedgerError."""
        ledger = cls.later(where)
        ledger.ready()
        return ledger

    @classmethod
    def later(cls, where: str | Path) -> Ledger:
        """A ledger that is opened when it is first used, and tried again at each use until that works.

        For processes that must start, and go on, while the database is away. Raises: LedgerError for a wrong address.
        """
        return cls(address(where))

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Ledger.later, (self._url.render_as_string(hide_password=False),)

    def __repr__(self) -> str:
        return f"Ledger({self.name!r})"

    @property
    def name(self) -> str:
        """The file, or the address without its password."""
        return shown(self._url)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def ready(self) -> None:
        """Open it now, unless it is open. Raises: LedgerError."""
        if self._ready:
            return
        with self._translated():
            if self.dialect == "sqlite":
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            upgrade.ensure(self._reading, self._writing, self.name)
        self._ready = True

    def close(self) -> None:
        """Close the connections that no one uses. It may be used again."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction: all or nothing. Raises: LedgerError."""
        with self._transaction(self._writing) as db:
            yield db

    @contextmanager
    def snapshot(self, patient: bool = False) -> Iterator[Connection]:
        """A read transaction: every query in it sees the same moment. Raises: LedgerError.

        `patient`: a query may take as long as reports over everything do, not only as long as live processes wait.
        """
        with self._transaction(self._reading) as db:
            if patient and self.dialect == "postgresql":
                db.execute(text(f"SET LOCAL statement_timeout = '{_PATIENCE}'"))
            yield db

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        self.ready()
        with self._translated(), engine.begin() as db:
            yield db

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise failed(self._url, error) from error
        except OSError as error:
            raise LedgerError(f"{self.name}: the ledger cannot be opened: {error}") from error

    def write_requests(self, records: Iterable[RequestRecord]) -> None:
        """Keep gateway rows; one that is there already is left as it is. Raises: LedgerError."""
        with self.transaction() as db:
            writing.requests(db, records)

    def write_reading(self, reading: MeterReading) -> None:
        """Keep a meter's reading: its rows replace those of earlier readings, never of later ones. Raises: LedgerError.
        """
        with self.transaction() as db:
            writing.reading(db, reading)
