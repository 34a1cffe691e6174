"""Spools before real databases: what comes by way of a spool is what would have come directly."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import FIT, PEPPER, SEGMENT
from postgres_server import PostgresServer
from spool_rig import Clock, eventually, reading, request

from serving.errors import InvalidKey, LedgerError
from serving.fleet.records import MeterReading
from serving.ledger import keys, schema
from serving.ledger.durable import DurableReadings, adopt, own_spool
from serving.ledger.live import LedgerKeyring, LedgerRecords
from serving.ledger.spool import Spool
from serving.ledger.store import Ledger

MIB = 1024 * 1024


def rows(ledger: Ledger) -> dict[str, list[Any]]:
    """Everything that readings and gateways have left, without the readings' numbers."""
    found: dict[str, list[Any]] = {}
    with ledger.snapshot() as db:
        for table in (schema.requests, schema.sources, schema.intervals, schema.charges, schema.totals):
            columns = [c for c in table.columns if c.name != "number"]
            order = list(table.primary_key)
            found[table.name] = [tuple(row) for row in db.execute(table.select().with_only_columns(*columns)
                                                                  .order_by(*order))]
    return found


def full(number: int, source: str = "r1") -> MeterReading:
    """A reading that uses every field."""
    found = reading(number, (number % 5, 100 + number), source)
    charges = tuple(replace(c, segments=(SEGMENT, SEGMENT), preemptions=1, recomputed=2, rejected=3)
                    for c in found.charges)
    return replace(found, source=replace(found.source, fit=FIT, idle_tenant="demo", unmetered=4), charges=charges)


def test_a_spooled_ledger_equals_one_written_directly(ledger: Ledger, tmp_path: Path) -> None:
    direct = Ledger.open(tmp_path / "direct.db")
    waiting = own_spool(tmp_path / "spools", "replica", MIB)
    for n in range(1, 60):
        for source in ("r1", "r2"):
            direct.write_reading(full(n, source))
            waiting.append(full(n, source))
        direct.write_requests([request(n)])
        waiting.append(request(n))
    waiting.close()
    assert adopt(tmp_path / "spools", ledger) == 177
    assert rows(ledger) == rows(direct)
    assert len(rows(direct)["charges"]) == 2 * (59 + 5)
    direct.close()


def test_replays_in_any_order_change_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """As when a process dies after it has written and before it has dropped."""
    readings = [full(n) for n in range(1, 40)]
    for found in readings:
        ledger.write_reading(found)
    before = rows(ledger)
    mixed = readings * 2
    random.Random(4).shuffle(mixed)
    waiting = own_spool(tmp_path / "spools", "replica", 4 * MIB)
    for found in mixed:
        waiting.append(found)
    waiting.close()
    assert adopt(tmp_path / "spools", ledger) == 78
    assert rows(ledger) == before


def test_a_row_that_a_real_database_refuses_stops_no_other(ledger: Ledger, tmp_path: Path) -> None:
    waiting = own_spool(tmp_path / "spools", "gateway", MIB)
    bad = {77, 100, 101, 102, 499}
    for n in range(500):
        waiting.append(request(n, code=1 << 62) if n in bad else request(n))
    waiting.close()
    if ledger.dialect == "sqlite":  # where an integer is an integer
        ledger = Ledger.open(tmp_path / "checked.db")
        with ledger.transaction() as db:
            db.exec_driver_sql("CREATE TRIGGER refuse BEFORE INSERT ON requests WHEN NEW.code > 2147483647"
                               " BEGIN SELECT RAISE(ABORT, 'out of range'); END")
    adopt(tmp_path / "spools", ledger)
    assert {row[0] for row in rows(ledger)["requests"]} == {f"flo-{n}" for n in range(500) if n not in bad}
    (left,) = (tmp_path / "spools").iterdir()
    assert (left / "refused").stat().st_size > 0 and not list(left.glob("*.seg"))


def test_a_server_that_stops_and_starts_loses_nothing(own_postgres: PostgresServer, tmp_path: Path) -> None:
    ledger = Ledger.open(own_postgres.url(own_postgres.database()))
    direct = Ledger.open(tmp_path / "direct.db")
    clock, root = Clock(), tmp_path / "spools"
    write = DurableReadings(ledger, own_spool(root, "replica", MIB), clock)
    records = LedgerRecords(ledger, own_spool(root, "gateway", MIB), every_s=0.01)
    try:
        for n in range(1, 61):
            if n == 21:
                own_postgres.stop()
            if n == 41:
                own_postgres.start()
                clock.now += 5
            for _ in range(2):
                write(found := full(n))
                direct.write_reading(found)
            records.put(request(n))
            direct.write_requests([request(n)])
            clock.now += 0.5
            if 21 <= n < 41:
                assert write.stats().entries
        eventually(lambda: len(rows(ledger)["requests"]) == 60)
    finally:
        records.close()
    assert rows(ledger) == rows(direct)
    write.close()
    assert not list(root.iterdir()), "nothing waits any more"
    ledger.close()
    direct.close()


def test_a_process_may_start_and_end_while_the_server_is_away(own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = own_postgres.url(own_postgres.database())
    own_postgres.stop()
    with pytest.raises(LedgerError):
        Ledger.open(url)
    ledger, root = Ledger.later(url), tmp_path / "spools"
    records = LedgerRecords(ledger, own_spool(root, "gateway", MIB), every_s=0.01)
    write = DurableReadings(ledger, own_spool(root, "replica", MIB))
    for n in range(1, 30):
        records.put(request(n))
        write(full(n))
    records.close()
    write.close()
    own_postgres.start()
    assert adopt(root, ledger) == 58
    found = rows(ledger)
    assert len(found["requests"]) == 29 and len(found["charges"]) == 29 + 5 and not list(root.iterdir())
    ledger.close()


SPOOLER = """
import sys
sys.path[:0] = {folders!r}
from pathlib import Path
from test_ledger_durable_database import full
from serving.ledger.durable import DurableReadings, own_spool
from serving.ledger.store import Ledger
write = DurableReadings(Ledger.later({url!r}), own_spool(Path({root!r}), "replica", 1 << 26))
for number in range(1, 1_000_000):
    write(full(number))
    print(number, flush=True)
"""


def test_a_killed_process_and_a_stopped_server_lose_nothing(own_postgres: PostgresServer, tmp_path: Path) -> None:
    url, root = own_postgres.url(own_postgres.database()), tmp_path / "spools"
    ledger, direct = Ledger.open(url), Ledger.open(tmp_path / "direct.db")
    here = Path(__file__).parent
    code = SPOOLER.format(folders=[str(here), str(here.parent / "servers")], url=url, root=str(root))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(20):
            process.stdout.readline()
        own_postgres.stop()
        for _ in range(300):
            process.stdout.readline()
        process.kill()
        said = process.stdout.read().split("\n")
    last = max(int(line) for line in [*said, "320"] if line.isdecimal())
    own_postgres.start()
    adopt(root, ledger)
    with ledger.snapshot() as db:
        (number,) = db.execute(schema.sources.select().with_only_columns(schema.sources.c.number)).one()
    assert number in (last, last + 1)
    for n in range(1, number + 1):
        direct.write_reading(full(n))
    assert rows(ledger) == rows(direct) and not list(root.iterdir())
    ledger.close()
    direct.close()


def test_a_locked_database_keeps_no_request_waiting(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    records = LedgerRecords(sqlite_ledger, Spool(tmp_path / "spool", MIB), every_s=0.01)
    try:
        with sqlite_ledger.transaction():
            began = time.monotonic()
            for n in range(100):
                records.put(request(n))
            assert time.monotonic() - began < 0.2
        eventually(lambda: len(rows(sqlite_ledger)["requests"]) == 100)
    finally:
        records.close()


async def test_known_keys_wait_for_no_database_that_hangs(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = keys.create(sqlite_ledger, "demo", "laptop", PEPPER, 1.0)
    keyring, read, goes_on = LedgerKeyring(sqlite_ledger, PEPPER, max_age_s=0.0), keys.all_keys, threading.Event()
    await keyring.principal(key)
    calls: list[int] = []

    def hangs(ledger: Ledger) -> list[Any]:
        calls.append(1)
        goes_on.wait()
        return read(ledger)

    monkeypatch.setattr(keys, "all_keys", hangs)
    try:
        await asyncio.wait_for(keyring.principal(key), 5)  # the first one finds out
        began = time.monotonic()
        for _ in range(100):
            await keyring.principal(key)
        assert time.monotonic() - began < 0.3 and len(calls) == 1
        assert "takes long" in caplog.text
    finally:
        goes_on.set()


async def test_a_revocation_is_followed_again_after_an_outage(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = keys.create(sqlite_ledger, "demo", "laptop", PEPPER, 1.0)
    keyring = LedgerKeyring(sqlite_ledger, PEPPER, max_age_s=0.0)
    await keyring.principal(key)

    def away(ledger: Ledger) -> list[Any]:
        raise LedgerError("away")

    with monkeypatch.context() as patched:
        patched.setattr(keys, "all_keys", away)
        for _ in range(3):
            assert (await keyring.principal(key)).tenant == "demo"
    keys.revoke(sqlite_ledger, "laptop", 2.0)
    async with asyncio.timeout(5):
        with pytest.raises(InvalidKey, match="has been revoked"):
            while True:
                await keyring.principal(key)
                await asyncio.sleep(0.01)
