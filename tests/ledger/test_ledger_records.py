"""The writer of request rows: never in the way, and nothing lost while the database is away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from spool_rig import FakeLedger, eventually, request

from serving.ledger import live
from serving.ledger.durable import adopt, own_spool
from serving.ledger.live import LedgerRecords
from serving.ledger.segments import encoded
from serving.ledger.spool import Spool

MIB = 1024 * 1024
ONE = len(encoded(request(1000)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spools"


@pytest.fixture
def waiting(root: Path) -> Spool:
    return own_spool(root, "gateway", MIB)


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def records(ledger: FakeLedger, waiting: Spool) -> Iterator[LedgerRecords]:
    made = LedgerRecords(ledger, waiting, every_s=0.01)
    yield made
    made.close(1)


def ids(numbers: range) -> set[str]:
    return {f"flo-{n}" for n in numbers}


def test_rows_are_written_soon_and_past_the_spool(
    ledger: FakeLedger, records: LedgerRecords, root: Path, waiting: Spool
) -> None:
    for n in range(50):
        records.put(request(n))
    eventually(lambda: set(ledger.requests) == ids(range(50)))
    assert waiting.size_bytes == 0 and records.accepting


def test_closing_writes_what_is_left(ledger: FakeLedger, waiting: Spool, root: Path) -> None:
    records = LedgerRecords(ledger, waiting, every_s=3600)
    records.put(request(1))
    records.close()
    assert set(ledger.requests) == {"flo-1"} and not list(root.iterdir())


def test_an_outage_loses_nothing(ledger: FakeLedger, records: LedgerRecords, caplog: pytest.LogCaptureFixture) -> None:
    ledger.away = True
    for n in range(30):
        records.put(request(n))
        if n % 10 == 0:
            eventually(lambda: not records._inbox)
    eventually(lambda: records.stats().entries == 30)
    assert "wait for the ledger" in caplog.text and records.accepting and not records.full
    ledger.away = False
    for n in range(30, 40):
        records.put(request(n))
    eventually(lambda: set(ledger.requests) == ids(range(40)))
    eventually(lambda: records.stats().bytes == 0)
    assert records.unmetered == 0 and "the ledger is back" in caplog.text


def test_an_absent_database_is_not_tried_with_each_batch(ledger: FakeLedger, records: LedgerRecords) -> None:
    ledger.away, began = True, time.monotonic()
    for n in range(40):
        records.put(request(n))
        eventually(lambda: not records._inbox)  # the next one is a batch of its own
    assert ledger.tries <= 3 * (2 + (time.monotonic() - began) / 0.5)


def test_a_database_that_hangs_keeps_no_request_waiting_and_fills_no_memory(
    ledger: FakeLedger, records: LedgerRecords
) -> None:
    ledger.hangs = threading.Event()
    records.put(request(0))
    eventually(lambda: ledger.tries == 1)
    began = time.monotonic()
    for n in range(1, 1000):
        records.put(request(n))
    assert time.monotonic() - began < 0.5
    eventually(lambda: not records._inbox and records.stats().entries == 999)
    ledger.hangs.set()
    eventually(lambda: set(ledger.requests) == ids(range(1000)))


def test_closing_while_the_database_hangs_leaves_all_to_the_next_process(
    ledger: FakeLedger, waiting: Spool, root: Path
) -> None:
    ledger.hangs = hangs = threading.Event()
    records = LedgerRecords(ledger, waiting, every_s=0.01)
    records.put(request(0))
    eventually(lambda: ledger.tries == 1)
    for n in range(1, 10):
        records.put(request(n))
    records.close(timeout_s=0.2)
    other = FakeLedger()
    assert adopt(root, other) == 10
    assert set(other.requests) == ids(range(10))
    ledger.away = True
    hangs.set()  # what was under way fails in the end, and must not trouble the spool that it has no more
    records._writer.join(5)
    assert not records._writer.is_alive() and records.unmetered == 0


def test_closing_while_the_database_is_away_is_quick_and_leaves_all(
    ledger: FakeLedger, waiting: Spool, root: Path
) -> None:
    records, ledger.away = LedgerRecords(ledger, waiting, every_s=3600), True
    for n in range(10):
        records.put(request(n))
    began = time.monotonic()
    records.close()
    assert time.monotonic() - began < 2
    ledger.away = False
    assert adopt(root, ledger) == 10 and set(ledger.requests) == ids(range(10))


@pytest.mark.parametrize("error", [OverflowError("too large"), RuntimeError("anything")])
def test_whatever_goes_wrong_the_writer_goes_on(
    ledger: FakeLedger, waiting: Spool, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed, write = threading.Event(), ledger.write_requests

    def once(rows: list) -> None:
        if not failed.is_set():
            failed.set()
            raise error
        write(rows)

    monkeypatch.setattr(ledger, "write_requests", once)
    records = LedgerRecords(ledger, waiting, every_s=0.01)
    try:
        records.put(request(1))
        assert failed.wait(5)
        eventually(lambda: set(ledger.requests) == {"flo-1"})
    finally:
        records.close()


def test_a_row_that_cannot_be_kept_at_all_is_counted(ledger: FakeLedger, records: LedgerRecords) -> None:
    ledger.away = True
    records.put(request(1, code=1 << 70))
    records.put(request(2))
    eventually(lambda: records.unmetered == 1 and records.stats().entries == 1)


def test_a_row_that_the_database_refuses_stops_no_other(ledger: FakeLedger, records: LedgerRecords) -> None:
    ledger.refuses = lambda row: row.request_id == "flo-7"
    for n in range(20):
        records.put(request(n))
    eventually(lambda: set(ledger.requests) == ids(range(20)) - {"flo-7"})


def test_a_full_spool_refuses_requests_but_keeps_those_let_in(ledger: FakeLedger, root: Path) -> None:
    ledger.away = True
    waiting = own_spool(root, "gateway", 100 * ONE)
    records = LedgerRecords(ledger, waiting, "refuse", every_s=0.01)
    try:
        for n in range(1000, 1099):
            records.put(request(n))
        eventually(lambda: records.stats().entries == 99)
        assert records.accepting
        for n in range(1099, 1105):
            records.put(request(n))
        eventually(lambda: records.stats().entries == 105)
        assert records.full and not records.accepting and records.unmetered == 0
        for n in range(1105, 1108):
            records.put(request(n))
        eventually(lambda: records.unmetered == 3)
        assert records.stats().bytes == 105 * ONE
        ledger.away = False
        eventually(lambda: set(ledger.requests) == ids(range(1000, 1105)))
        eventually(lambda: records.accepting)
        records.put(request(2000))
        eventually(lambda: "flo-2000" in ledger.requests)
    finally:
        records.close()


def test_a_full_spool_may_serve_unmetered(ledger: FakeLedger, root: Path) -> None:
    ledger.away = True
    waiting = own_spool(root, "gateway", 100 * ONE)
    records = LedgerRecords(ledger, waiting, "serve_unmetered", every_s=0.01)
    try:
        for n in range(1000, 1110):
            records.put(request(n))
        eventually(lambda: records.unmetered == 10)
        assert records.full and records.accepting
        assert records.stats().bytes == 100 * ONE
        ledger.away = False
        eventually(lambda: set(ledger.requests) == ids(range(1000, 1100)))
    finally:
        records.close()


def test_a_disk_that_fails_for_a_while_loses_nothing(
    ledger: FakeLedger, records: LedgerRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.away, probes = True, []
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: 0)
        patched.setattr(Spool, "probe", lambda self: probes.append(1))
        for n in range(10):
            records.put(request(n))
        eventually(lambda: not records.accepting)
        eventually(lambda: len(probes) > 10)
        assert records.unmetered == 0
    eventually(lambda: records.stats().entries == 10)
    eventually(lambda: records.accepting)
    ledger.away = False
    eventually(lambda: set(ledger.requests) == ids(range(10)))


def test_when_disk_and_database_fail_memory_has_a_bound(
    ledger: FakeLedger, waiting: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_INBOX", 100)
    records, ledger.away = LedgerRecords(ledger, waiting, every_s=3600), True
    for n in range(150):
        records.put(request(n))
    assert (len(records._inbox), records.unmetered, records.accepting) == (100, 50, False)
    records.close()
    assert records.stats().unmetered == 50


def test_memory_stays_flat_through_a_long_outage(ledger: FakeLedger, root: Path) -> None:
    ledger.away = True
    records, me = LedgerRecords(ledger, own_spool(root, "gateway", 64 * MIB), every_s=0.01), psutil.Process()
    resident = []
    try:
        for n in range(50_000):
            records.put(request(n))
            if n % 5000 == 4999:
                eventually(lambda: len(records._inbox) < 1000)
                resident.append(me.memory_info().rss)
        eventually(lambda: records.stats().entries == 50_000)
        ledger.write_requests = lambda rows: None  # type: ignore[method-assign]
        eventually(lambda: records.stats().bytes == 0, 30)
        resident.append(me.memory_info().rss)
        assert max(resident) - resident[0] < 20 * MIB
    finally:
        records.close()
