"""Opening a database: made when it is empty, brought up to date when it is older, refused when it is not ours.

Several processes may do so at once: one works, the others wait for it and then find the work done.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import Connection

from serving.errors import LedgerError
from serving.ledger import schema

_MIGRATIONS = Path(__file__).parent / "migrations"
_FIRST = "0001"  # ledgers of the format that `meta` calls 1, made before there were migrations
_LOCK = 0x666C6F7469_6C6C61  # "flotilla"


def ensure(reading: Engine, writing: Engine, name: str) -> None:
    """Make sure that the database has today's tables. `name`: what messages call it.

    Raises: LedgerError for a database of a newer Flotilla, or of someone else; errors of the database.
    """
    with reading.begin() as db:
        if _revision(db, name) == schema.HEAD:
            return
    with writing.begin() as db:
        if db.dialect.name == "postgresql":
            db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            db.execute(text("SET LOCAL statement_timeout = 0"))  # a large ledger takes its time
        found = _revision(db, name)
        if found != schema.HEAD:
            _upgrade(db, found, name)


def _revision(db: Connection, name: str) -> str | None:
    """The last migration that a database has seen; None: it is empty."""
    tables = set(inspect(db).get_table_names())
    if "alembic_version" in tables:
        return db.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if "meta" not in tables:
        return None
    version = db.execute(text("SELECT value FROM meta WHERE key = 'version'")).scalar()
    if version != "1":
        raise LedgerError(f"{name}: the ledger has format {version or 'unknown'}, which this Flotilla does not know; "
                          "use the Flotilla that made it, or another database")
    return _FIRST


def _upgrade(db: Connection, found: str | None, name: str) -> None:
    from alembic import command  # these take a while to import, and a ledger is seldom upgraded
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = db
    known = {s.revision for s in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerError(f"{name}: the ledger has format {found}, this Flotilla knows those up to {schema.HEAD}; "
                          "use the newer Flotilla that made it, or another database")
    if found == _FIRST and not inspect(db).has_table("alembic_version"):
        command.stamp(config, _FIRST)
    command.upgrade(config, "head")
