"""The writer of request rows: never in the way, and nothing lost while the database is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ledger_samples import request

from serving.errors import LedgerError
from serving.ledger.live import LedgerRecords
from serving.ledger.store import Ledger


def kept(ledger: Ledger) -> set[str]:
    with ledger.snapshot() as db:
        return {row[0] for row in db.execute("SELECT request_id FROM requests")}


def eventually(true: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def records(ledger: Ledger) -> Iterator[LedgerRecords]:
    made = LedgerRecords(ledger, every_s=0.01)
    yield made
    made.close()


def test_rows_are_written_soon(ledger: Ledger, records: LedgerRecords) -> None:
    for n in range(50):
        records.put(request(n))
    eventually(lambda: len(kept(ledger)) == 50)


def test_closing_writes_what_is_left(ledger: Ledger) -> None:
    records = LedgerRecords(ledger, every_s=3600)
    records.put(request(1))
    records.close()
    assert kept(ledger) == {"flo-1"}


def test_a_locked_database_keeps_no_request_waiting(ledger: Ledger, records: LedgerRecords) -> None:
    with ledger.transaction():
        began = time.monotonic()
        for n in range(100):
            records.put(request(n))
        assert time.monotonic() - began < 0.2
    eventually(lambda: len(kept(ledger)) == 100)


def test_an_unwritable_database_loses_nothing(
    ledger: Ledger, records: LedgerRecords, caplog: pytest.LogCaptureFixture
) -> None:
    with ledger.transaction() as db:
        db.execute("ALTER TABLE requests RENAME TO away")
    for n in range(10):
        records.put(request(n))
        eventually(lambda: "wait for the ledger" in caplog.text)
    with ledger.transaction() as db:
        db.execute("ALTER TABLE away RENAME TO requests")
    records.put(request(10))
    eventually(lambda: kept(ledger) == {f"flo-{n}" for n in range(11)})


@pytest.mark.parametrize(
    "error", [LedgerError("locked"), OverflowError("too large"), RuntimeError("anything")]
)
def test_whatever_goes_wrong_the_writer_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed, write = threading.Event(), Ledger.write_requests

    def once(self: Ledger, rows: list) -> None:
        if not failed.is_set():
            failed.set()
            raise error
        write(self, rows)

    monkeypatch.setattr(Ledger, "write_requests", once)
    records = LedgerRecords(ledger, every_s=0.01)
    try:
        records.put(request(1))
        assert failed.wait(5)
        eventually(lambda: kept(ledger) == {"flo-1"})
    finally:
        records.close()


def test_rows_put_while_a_batch_is_written_are_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Ledger.write_requests
    records: list[LedgerRecords] = []

    def slow(self: Ledger, rows: list) -> None:
        if rows[0].request_id == "flo-1":
            records[0].put(request(2))
        write(self, rows)

    monkeypatch.setattr(Ledger, "write_requests", slow)
    records.append(LedgerRecords(ledger, every_s=0.01))
    records[0].put(request(1))
    eventually(lambda: kept(ledger) == {"flo-1", "flo-2"})
    records[0].close()
