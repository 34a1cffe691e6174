"""The ledger's database: written by many at once, repeated without harm, away for a while without hanging."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
from ledger_samples import alter, column, reading, request, rows
from postgres_server import PASSWORD, PostgresServer
from sqlalchemy import text

from serving.errors import LedgerError
from serving.ledger import connections
from serving.ledger.address import address, failed
from serving.ledger.store import Ledger

REPOSITORY = Path(__file__).parents[2]


def test_a_transaction_is_all_or_nothing(ledger: Ledger) -> None:
    before = rows(ledger, "meta")
    with pytest.raises(KeyError), ledger.transaction() as db:
        db.execute(text("DELETE FROM meta"))
        raise KeyError
    assert rows(ledger, "meta") == before != []
    with pytest.raises(LedgerError, match="nowhere"), ledger.transaction() as db:
        db.execute(text("INSERT INTO nowhere VALUES (1)"))
    ledger.write_requests([request(1)])  # the connection is usable again


def test_a_reading_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    alter(ledger, "ALTER TABLE totals RENAME TO away")
    with pytest.raises(LedgerError, match="totals"):
        ledger.write_reading(reading())
    assert rows(ledger, "sources") == rows(ledger, "intervals") == rows(ledger, "charges") == []


def test_a_snapshot_sees_one_moment(ledger: Ledger) -> None:
    ledger.write_requests([request(1)])
    count = text("SELECT COUNT(*) FROM requests")
    with ledger.snapshot() as db:
        assert db.execute(count).scalar() == 1
        writer = threading.Thread(target=ledger.write_requests, args=([request(2)],))
        writer.start()
        writer.join(20)  # neither waits for the other
        assert not writer.is_alive()
        assert db.execute(count).scalar() == 1
    assert len(rows(ledger, "requests")) == 2


def test_it_travels_to_another_process(ledger: Ledger) -> None:
    ledger.write_requests([request(1)])
    there = pickle.loads(pickle.dumps(ledger))
    assert rows(there, "requests") == rows(ledger, "requests")
    there.close()


WRITER = """
import sys
sys.path[:0] = [{repository!r}, {samples!r}]
from ledger_samples import reading, request
from serving.ledger.store import Ledger
me = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger.open({where!r})
for n in range(40):
    ledger.write_requests([request(n, request_id=f"{{me}}-{{n}}"), request(n, request_id=f"shared-{{n}}")])
    ledger.write_reading(reading(me, {{f"{{me}}-{{n}}": n}}, number=n))
    ledger.write_reading(reading("shared", {{f"b-{{n}}": n, f"a-{{n}}": n}}, number=n))
"""


def test_many_processes_make_and_write_one_ledger(database: str) -> None:
    code = WRITER.format(repository=str(REPOSITORY), samples=str(Path(__file__).parent), where=database)
    writers = [subprocess.Popen([sys.executable, "-c", code, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for n in range(4)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:  # all open the new ledger at once
            writer.stdin.write("go\n")
            writer.stdin.flush()
        failed = [said for writer in writers for _, said in [writer.communicate(timeout=60)] if writer.returncode]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert not failed
    ledger = Ledger.open(database)
    assert len(rows(ledger, "requests")) == 4 * 40 + 40
    assert len(rows(ledger, "charges")) == 4 * 40 + 2 * 40
    if ledger.dialect == "sqlite":
        with ledger.snapshot() as db:
            assert db.execute(text("PRAGMA integrity_check")).scalar() == "ok"
            assert db.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    ledger.close()


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    failed: list[Exception] = []

    def work(me: int) -> None:
        try:
            for n in range(10):
                ledger.write_requests([request(n, request_id=f"{me}-{n}")])
                assert rows(ledger, "requests")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(rows(ledger, "requests")) == 80


def test_a_lock_that_stays_is_an_error_and_not_a_hang(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_S", 0.1)
    waiting = Ledger.open(sqlite_ledger.name)
    with sqlite_ledger.transaction(), pytest.raises(LedgerError, match="locked"):
        waiting.write_requests([request(1)])
    waiting.write_requests([request(1)])
    assert len(rows(sqlite_ledger, "requests")) == 1


# -- addresses


def test_a_path_and_its_url_are_the_same_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Ledger.open(Path("one.db")).write_requests([request(1)])
    for where in ("one.db", str(tmp_path / "one.db"), "sqlite:///one.db", f"sqlite:///{tmp_path}/one.db"):
        found = Ledger.open(where)
        assert (found.name, len(rows(found, "requests"))) == (str(tmp_path / "one.db"), 1)
    relative = pickle.dumps(Ledger.open("one.db"))
    monkeypatch.chdir("/")
    assert len(rows(pickle.loads(relative), "requests")) == 1


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_by_any_of_its_names(postgres_url: str, scheme: str) -> None:
    ledger = Ledger.open(postgres_url.replace("postgresql", scheme))
    assert ledger.dialect == "postgresql"
    ledger.close()


@pytest.mark.parametrize(("where", "says"), [
    ("mysql://u:p4ssw0rd@h/d", "cannot be kept in 'mysql'; write a file's path"),
    ("postgresql+asyncpg://u:p4ssw0rd@h/d", "cannot be kept in 'postgresql.asyncpg'"),
    ("postgresql://u:p4ssw0rd@h:port/d", "the database URL cannot be read; write"),
    ("sqlite://", "needs a plain file"),
    ("sqlite:///:memory:", "needs a plain file"),
    ("sqlite:///x.db?mode=ro", "needs a plain file"),
])
def test_an_address_of_no_ledger_is_refused_and_says_what_would_be_right(where: str, says: str) -> None:
    for opening in (Ledger.open, Ledger.later):
        with pytest.raises(LedgerError, match=says) as found:
            opening(where)
        assert "p4ssw0rd" not in str(found.value)


@pytest.mark.parametrize("path", ["/proc/nothing/ledger.db", "/dev/null/ledger.db"])
def test_a_path_that_cannot_be(path: str) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open(Path(path))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="unable to open"):
        Ledger.open(tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database, but long enough to be taken for one\n" * 50)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(path)


# -- a server that is away


def test_the_password_is_in_no_message(shared_postgres: PostgresServer) -> None:
    away = shared_postgres.url("no_such_database")
    for where in (away, away.replace(PASSWORD, "wrong-" + PASSWORD), f"{away}?password={PASSWORD}"):
        with pytest.raises(LedgerError, match="no_such_database") as found:
            Ledger.open(where)
        assert PASSWORD not in str(found.value)
        assert PASSWORD not in repr(Ledger.later(where))
    with pytest.raises(LedgerError, match="refused"):
        Ledger.open("postgresql://u:p@127.0.0.1:1/d")


def test_an_error_that_quotes_the_password_does_not_pass_it_on() -> None:
    url = address(f"postgresql://u:{PASSWORD}@h/d")
    assert str(failed(url, OSError(f"no route for\n  password={PASSWORD}"))) == (
        "postgresql://u@h/d: no route for password=********")


def test_a_restart_that_no_one_has_noticed_costs_no_row(own_postgres: PostgresServer) -> None:
    ledger = Ledger.open(own_postgres.url(own_postgres.database()))
    ledger.write_requests([request(1)])
    own_postgres.stop()
    own_postgres.start()
    ledger.write_requests([request(2)])
    assert column(ledger, "requests", "request_id") == ["flo-1", "flo-2"]
    ledger.close()


def test_an_outage_is_an_error_at_once_and_the_ledger_goes_on_after_it(own_postgres: PostgresServer) -> None:
    where = own_postgres.url(own_postgres.database())
    ledger = Ledger.open(where)
    ledger.write_requests([request(1)])
    own_postgres.stop()
    began = time.monotonic()
    with pytest.raises(LedgerError, match="127.0.0.1"):
        ledger.write_requests([request(2)])
    with pytest.raises(LedgerError):
        column(ledger, "requests", "request_id")
    with pytest.raises(LedgerError):
        Ledger.open(where)
    later = Ledger.later(where)
    for _ in range(2):
        with pytest.raises(LedgerError):
            later.write_requests([request(3)])
    assert time.monotonic() - began < 5
    own_postgres.start()
    ledger.write_requests([request(2)])
    later.write_requests([request(3)])
    assert column(ledger, "requests", "request_id") == ["flo-1", "flo-2", "flo-3"]
    ledger.close()
    later.close()


def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setitem(connections._POSTGRES, "connect_timeout", 2)  # the shortest there is
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(LedgerError, match="timeout"):
            Ledger.open(f"postgresql://u:p@127.0.0.1:{mute.getsockname()[1]}/d")
    assert time.monotonic() - began < 10


def test_a_statement_that_takes_too_long_is_given_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections._POSTGRES, "options", "-c statement_timeout=200ms")
    ledger = Ledger.open(postgres_url)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE requests")
        with pytest.raises(LedgerError, match="statement timeout"):
            ledger.write_requests([request(1)])
    ledger.write_requests([request(1)])
    ledger.close()


def test_reports_may_take_longer(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections._POSTGRES, "options", "-c statement_timeout=200ms")
    ledger = Ledger.open(postgres_url)
    slow = text("SELECT 1 FROM pg_sleep(0.5)")
    with ledger.snapshot(patient=True) as db:
        assert db.execute(slow).scalar() == 1
    with pytest.raises(LedgerError, match="statement timeout"), ledger.snapshot() as db:  # that was for once
        db.execute(slow)
    ledger.close()


def test_a_ledger_for_later_is_made_at_its_first_use(database: str) -> None:
    ledger = Ledger.later(database)
    assert not Path(database).parent.exists() or "://" in database
    assert rows(ledger, "requests") == []
    ledger.close()


def test_closing_leaves_no_connection(postgres_url: str) -> None:
    ledger = Ledger.open(postgres_url)
    ledger.close()
    with psycopg.connect(postgres_url) as db:
        found = db.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'flotilla'").fetchone()
    assert found == (0,)


def test_a_writer_that_is_killed_leaves_a_ledger_that_opens(sqlite_ledger: Ledger) -> None:
    code = ("import sqlite3, os, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "db.execute('BEGIN IMMEDIATE'); db.execute('DELETE FROM meta'); os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", code, sqlite_ledger.name], check=False)
    assert rows(Ledger.open(sqlite_ledger.name), "meta") == [("version", "2")]
    with sqlite3.connect(sqlite_ledger.name) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
