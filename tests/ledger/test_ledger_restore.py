"""The drill of deployments/docs/kubernetes-recovery.md: a ledger is dumped, its database is lost, and what is restored
elsewhere has the same books and keys, and is written on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import postgres_server
import pytest
from ledger_samples import PEPPER, reading, request, rows
from postgres_server import PostgresServer

from serving.errors import InvalidKey
from serving.ledger import keys, sums
from serving.ledger.live import LedgerKeyring
from serving.ledger.store import Ledger

TABLES = ("sources", "requests", "charges", "keys")


async def test_a_restored_database_is_the_same_ledger(shared_postgres: PostgresServer, tmp_path: Path) -> None:
    lost, new = shared_postgres.database(), shared_postgres.database()
    ledger = Ledger.open(shared_postgres.url(lost))
    ledger.write_requests([request(1), request(2)])
    ledger.write_reading(reading())
    text, _ = keys.create(ledger, "demo", "laptop", PEPPER, 1.0)
    before = {table: rows(ledger, table) for table in TABLES}
    dump = str(tmp_path / "ledger.dump")
    tool("pg_dump", "--format=custom", f"--file={dump}", shared_postgres.url(lost))
    ledger.write_reading(reading("since"))
    ledger.close()
    shared_postgres.drop(lost)

    tool("pg_restore", "--no-owner", "--dbname", shared_postgres.url(new), dump)
    found = Ledger.open(shared_postgres.url(new))
    assert {table: rows(found, table) for table in TABLES} == before
    assert sums.reconcile(found).residual_nanousd == 0
    assert (await LedgerKeyring(found, PEPPER).principal(text)).tenant == "demo"
    with pytest.raises(InvalidKey):
        await LedgerKeyring(found, b"another pepper").principal(text)
    found.write_reading(reading(number=2))
    found.write_requests([request(3)])
    assert len(rows(found, "requests")) == len(before["requests"]) + 1
    assert sums.reconcile(found).residual_nanousd == 0
    found.close()
    shared_postgres.drop(new)


def tool(name: str, *arguments: str) -> None:
    programs = postgres_server.binaries()
    assert programs is not None
    done = subprocess.run([str(programs / name), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
