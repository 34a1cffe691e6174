"""Where a ledger is: a file's path or a database URL, and how to speak of it without its password."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from serving.errors import LedgerError

_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
_SQLITE = ("sqlite", "sqlite+pysqlite")
_WRITE = "write a file's path, sqlite:////PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


def address(where: str | Path) -> URL:
    """The URL of a ledger; a file's path is made absolute, so that it means the same in every process.

    Raises: LedgerError for what is no URL, or one of a database that the ledger does not know.
    """
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).absolute()))
    try:
        found = make_url(where)
    except (ArgumentError, ValueError) as error:  # its text may hold the password, so it is not shown
        raise LedgerError(f"the database URL cannot be read; {_WRITE}") from error
    if found.drivername in _POSTGRES:
        return found.set(drivername="postgresql+psycopg")
    if found.drivername in _SQLITE:
        if found.database in (None, "", ":memory:") or found.query:
            raise LedgerError(f"{found.drivername}: the ledger needs a plain file; {_WRITE}")
        return URL.create("sqlite", database=str(Path(found.database).absolute()))
    raise LedgerError(f"the ledger cannot be kept in {found.drivername!r}; {_WRITE}")


def shown(url: URL) -> str:
    """The address for messages: without password and options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()


def failed(url: URL, error: BaseException) -> LedgerError:
    """A database's error as ours: one line, neither statement nor parameters nor password in it."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    for secret in (url.password, url.query.get("password")):
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "********")
    return LedgerError(f"{shown(url)}: {text}")
