"""Ledgers of other times: older ones become today's with all their money, newer ones and strangers' are left alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import first_ledger
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger_samples import alter, column, reading, rows
from sqlalchemy import text

from serving.errors import LedgerError
from serving.fleet.records import Amounts, Tokens
from serving.ledger import keys, schema, sums, upgrade
from serving.ledger.store import Ledger

REPOSITORY = Path(__file__).parents[2]


def test_the_migrations_make_the_tables_that_the_code_uses(database: str) -> None:
    ledger = Ledger.open(database)
    with ledger.snapshot() as db:
        assert compare_metadata(MigrationContext.configure(db), schema.metadata) == []
    ledger.close()


def test_the_head_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(upgrade._MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_opening_again_changes_nothing(database: str) -> None:
    first = Ledger.open(database)
    first.write_reading(reading())
    before = rows(first, "sources"), rows(first, "alembic_version")
    second = Ledger.open(database)
    assert (rows(second, "sources"), rows(second, "alembic_version")) == before
    first.close()
    second.close()


def test_opening_todays_ledger_does_not_wait_for_its_writer(sqlite_ledger: Ledger) -> None:
    with sqlite_ledger.transaction():
        assert rows(Ledger.open(sqlite_ledger.name), "requests") == []


def test_the_first_flotillas_ledger_keeps_keys_requests_and_money(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first_ledger.make(path)
    bill, residual = first_ledger.bill(path)
    assert (residual, bill > 3_000_000_000) == (0, True)
    ledger = Ledger.open(path)
    found = sums.reconcile(ledger)
    assert (found.residual_nanousd, found.wrong_sources, found.bill_nanousd) == (0, (), bill)
    assert found.requests_nanousd == 1_000_007 + 600_000 + 70
    assert [(k.name, k.revoked_at) for k in keys.all_keys(ledger)] == [("old", 6.0), ("laptop", None)]
    one = sums.request(ledger, "mine")
    assert one is not None and one.request is not None
    assert (one.request.request_id, one.request.tokens, one.request.stream) == ("flo-1", Tokens(10, 4, 5), True)
    assert [c.amounts for c in one.charges] == [Amounts(1_000_007)]
    assert [c.method for c in one.charges] == ["step-shapley-prior"]
    two = sums.request(ledger, "flo-2")
    assert two is not None and two.charges[0].amounts == Amounts(waste=600_000)
    models = sums.totals(ledger, 4000.0).models()
    assert sum(m.bill_nanousd for m in models.values()) == bill
    assert (models["qwen"].requests, models["qwen"].unfinished, models["qwen"].running_nanousd) == (2, 1, 70)
    assert column(ledger, "intervals", "starts_at") == [10.0, 20.0]
    assert column(ledger, "sources", "variant") == ["core", "core"]
    with ledger.snapshot() as db:
        left = db.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
    assert set(left) == set(schema.metadata.tables) | {"alembic_version"}


OPENER = """
import sys
sys.path.insert(0, {repository!r})
from serving.ledger import sums
from serving.ledger.store import Ledger
print("ready", flush=True)
sys.stdin.readline()
print(sums.reconcile(Ledger.open({where!r})).residual_nanousd)
"""


def test_an_older_ledger_is_opened_by_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first_ledger.make(path)
    openers = [subprocess.Popen(
        [sys.executable, "-c", OPENER.format(repository=str(REPOSITORY), where=str(path))], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for opener in openers:
            assert opener.stdout.readline() == "ready\n"
        for opener in openers:
            opener.stdin.write("go\n")
            opener.stdin.flush()
        said = [opener.communicate(timeout=60) for opener in openers]
    finally:
        for opener in openers:
            opener.kill()
            opener.wait()
    assert said == [("0\n", "")] * 4
    assert len(rows(Ledger.open(path), "sources")) == 2


def test_a_migration_that_breaks_off_leaves_the_older_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first_ledger.make(path)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE sources (x TEXT)")
        before = db.execute("SELECT * FROM charges").fetchall()
    with pytest.raises(LedgerError, match="sources already exists"):
        Ledger.open(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT * FROM charges").fetchall() == before
        db.execute("DROP TABLE sources")
    assert sums.reconcile(Ledger.open(path)).residual_nanousd == 0


def test_a_ledger_of_a_newer_flotilla_is_refused_and_left_alone(database: str) -> None:
    ledger = Ledger.open(database)
    alter(ledger, "UPDATE alembic_version SET version_num = '9999'")
    says = "has format 9999, this Flotilla knows those up to 0004; use the newer"
    with pytest.raises(LedgerError, match=says) as found:
        Ledger.open(database)
    assert ledger.name in str(found.value)
    assert rows(ledger, "alembic_version") == [("9999",)]
    ledger.close()


def test_the_first_flotilla_would_not_take_todays_ledger_for_its_own(ledger: Ledger) -> None:
    assert rows(ledger, "meta") == [("version", "2")]


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
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE meta")
        db.execute("CREATE TABLE requests (mine TEXT)")
    with pytest.raises(LedgerError, match="already exists"):
        Ledger.open(path)


def test_the_migrations_are_part_of_the_package() -> None:
    folder = REPOSITORY / "serving" / "ledger" / "migrations"
    modules = list(folder.rglob("*.py"))
    assert len(modules) >= 5
    assert all((module.parent / "__init__.py").exists() for module in modules), "setuptools takes packages only"
