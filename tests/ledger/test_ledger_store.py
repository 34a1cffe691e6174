"""The ledger's database: written by many at once, repeated without harm, refused when it is not ours."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ledger_samples import reading, request

from serving.errors import LedgerError
from serving.ledger import schema, store
from serving.ledger.store import Ledger

REPOSITORY = Path(__file__).parents[2]


def rows(ledger: Ledger, table: str) -> list[tuple]:
    with ledger.snapshot() as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


def test_writing_a_request_again_changes_nothing(ledger: Ledger) -> None:
    ledger.write_requests([request(1), request(2, tokens=None, ttft_s=None)])
    before = rows(ledger, "requests")
    ledger.write_requests([request(1), request(1, code=500), request(2)])
    assert rows(ledger, "requests") == before
    assert len(before) == 2


def test_a_reading_replaces_an_older_one(ledger: Ledger) -> None:
    ledger.write_reading(reading(charges={"flo-1": 5, "flo-2": 6}))
    ledger.write_reading(reading(charges={"flo-1": 7}, seen_at=30.0))
    ledger.write_reading(reading(charges={"flo-1": 7}, seen_at=30.0))
    assert [(row[1], row[4]) for row in rows(ledger, "charges")] == [("flo-1", 7), ("flo-2", 6)]
    assert [row[6] for row in rows(ledger, "replicas")] == [30.0]
    assert len(rows(ledger, "totals")) == 1


def test_one_request_on_two_replicas_has_two_charges(ledger: Ledger) -> None:
    ledger.write_reading(reading("r1", {"flo-1": 5}))
    ledger.write_reading(reading("r2", {"flo-1": 6}))
    assert sorted(row[4] for row in rows(ledger, "charges")) == [5, 6]


def test_a_transaction_is_all_or_nothing(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger.transaction() as db:
        db.execute("DELETE FROM meta")
        raise KeyError
    assert rows(ledger, "meta") == [("version", str(schema.VERSION))]
    with pytest.raises(LedgerError, match="no such table"), ledger.transaction() as db:
        db.execute("INSERT INTO nowhere VALUES (1)")
    ledger.write_requests([request(1)])  # the connection is usable again


def test_a_snapshot_sees_one_moment(ledger: Ledger) -> None:
    ledger.write_requests([request(1)])
    with ledger.snapshot() as db:
        assert db.execute("SELECT COUNT(*) FROM requests").fetchone() == (1,)
        writer = threading.Thread(target=ledger.write_requests, args=([request(2)],))
        writer.start()
        writer.join()  # neither waits for the other
        assert db.execute("SELECT COUNT(*) FROM requests").fetchone() == (1,)
    assert len(rows(ledger, "requests")) == 2


def test_it_travels_to_another_process(ledger: Ledger) -> None:
    ledger.write_requests([request(1)])
    assert rows(pickle.loads(pickle.dumps(ledger)), "requests") == rows(ledger, "requests")


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [{repository!r}, {samples!r}]
from ledger_samples import reading, request
from serving.ledger.store import Ledger
me = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger.open(Path({path!r}))
for n in range(40):
    ledger.write_requests([request(n, request_id=f"{{me}}-{{n}}"), request(n, request_id=f"shared-{{n}}")])
    ledger.write_reading(reading(me, {{f"{{me}}-{{n}}": n}}))
"""


def test_many_processes_make_and_write_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    code = WRITER.format(repository=str(REPOSITORY), samples=str(Path(__file__).parent), path=str(path))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"w{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:  # all open the new ledger at once
            writer.stdin.write("go\n")
            writer.stdin.flush()
        failed = [
            said for writer in writers for _, said in [writer.communicate(timeout=60)] if writer.returncode
        ]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert not failed
    ledger = Ledger.open(path)
    assert len(rows(ledger, "requests")) == 4 * 40 + 40
    assert len(rows(ledger, "charges")) == 4 * 40
    with ledger.snapshot() as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_ledger_of_another_format_is_refused_and_left_alone(ledger: Ledger) -> None:
    with ledger.transaction() as db:
        db.execute("UPDATE meta SET value = '99'")
    with pytest.raises(LedgerError, match="has format 99, this Flotilla writes .*; move the file away"):
        Ledger.open(ledger.path)
    assert rows(ledger, "meta") == [("version", "99")]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database, but long enough to be taken for one\n" * 50)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(path)


def test_a_database_of_someone_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE meta (something TEXT)")
    with pytest.raises(LedgerError, match="no such column"):
        Ledger.open(path)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE meta")
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    with pytest.raises(LedgerError, match="has format unknown"):
        Ledger.open(path)


@pytest.mark.parametrize("path", ["/proc/nothing/ledger.db", "/dev/null/ledger.db"])
def test_a_path_that_cannot_be(path: str) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open(Path(path))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="unable to open"):
        Ledger.open(tmp_path)


def test_a_lock_that_stays_is_an_error_and_not_a_hang(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_S", 0.1)
    waiting = Ledger.open(ledger.path)
    with ledger.transaction(), pytest.raises(LedgerError, match="locked"):
        waiting.write_requests([request(1)])
    waiting.write_requests([request(1)])
    assert len(rows(ledger, "requests")) == 1
