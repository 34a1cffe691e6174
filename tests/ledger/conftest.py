"""Ledgers for tests: each test gets fresh ones, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from postgres_server import PostgresServer

from serving.ledger.store import Ledger


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One server for all tests that do not stop it."""
    if postgres_server.binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres_server.running() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, which may stop and start it."""
    if postgres_server.binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres_server.running() as server:
        yield server


@pytest.fixture
def postgres_url(shared_postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    name = shared_postgres.database()
    yield shared_postgres.url(name)
    shared_postgres.drop(name)


@pytest.fixture(scope="session")
def postgres_template(shared_postgres: PostgresServer) -> str:
    """A database with an empty ledger, to be copied: that is quicker than making one for each test."""
    name = shared_postgres.database()
    Ledger.open(shared_postgres.url(name)).close()
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may be made: nothing is there yet. Once for each database."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "ledger.db")
    return request.getfixturevalue("postgres_url")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger. Once for each database."""
    if request.param == "sqlite":
        yield Ledger.open(tmp_path / "state" / "ledger.db")
        return
    server: PostgresServer = request.getfixturevalue("shared_postgres")
    name = server.database(request.getfixturevalue("postgres_template"))
    made = Ledger.open(server.url(name))
    yield made
    made.close()
    server.drop(name)


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    made = Ledger.open(tmp_path / "state" / "ledger.db")
    yield made
    made.close()
