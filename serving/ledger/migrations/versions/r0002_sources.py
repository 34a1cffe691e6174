"""Replicas become sources with intervals; charges and totals hold amounts by bucket.

What a replica's time has cost so far becomes one interval that begins with the replica. Its method was the step model
with coefficients that were not fitted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NS_PER_HOUR = 3_600 * 1_000_000_000
_METHOD = "step-shapley-prior"


def upgrade() -> None:
    """Make the new tables, move what there is, drop the old ones."""
    op.drop_index("charges_by_replica", "charges")
    op.rename_table("charges", "old_charges")
    op.rename_table("totals", "old_totals")
    _tables()
    _move_replicas()
    op.execute(
        "INSERT INTO charges (request_id, source_id, number, tenant, outcome, direct, waste, idle, cold_start,"
        " prompt_tokens, cached_tokens, completion_tokens, method, updated_at, preemptions, recomputed, rejected,"
        " compared, segments)"
        " SELECT request_id, replica_id, 0, tenant, outcome,"
        " CASE WHEN outcome IN ('aborted', 'failed') THEN 0 ELSE nanousd END,"
        " CASE WHEN outcome IN ('aborted', 'failed') THEN nanousd ELSE 0 END, 0, 0, prompt_tokens, cached_tokens,"
        f" completion_tokens, '{_METHOD}', updated_at, 0, 0, 0, '{{}}', '[]' FROM old_charges")
    op.execute(
        "INSERT INTO totals (source_id, tenant, number, direct, waste, idle, cold_start, requests, unfinished,"
        " prompt_tokens, cached_tokens, completion_tokens, compared)"
        " SELECT replica_id, tenant, 0, SUM(CASE WHEN bucket = 'direct' THEN nanousd ELSE 0 END),"
        " SUM(CASE WHEN bucket = 'direct' THEN 0 ELSE nanousd END), 0, 0, SUM(requests),"
        " SUM(CASE WHEN bucket = 'direct' THEN 0 ELSE requests END), SUM(prompt_tokens), SUM(cached_tokens),"
        " SUM(completion_tokens), '{}' FROM old_totals GROUP BY replica_id, tenant")
    for table in ("replicas", "old_charges", "old_totals"):
        op.drop_table(table)
    op.execute("UPDATE meta SET value = '2' WHERE key = 'version'")  # a Flotilla from before the migrations reads this
    op.drop_index("requests_by_time", "requests")
    op.create_index("requests_by_time", "requests", ["started_at", "request_id"])
    op.create_index("requests_by_caller", "requests", ["caller_id"], sqlite_where=sa.text("caller_id <> ''"),
                    postgresql_where=sa.text("caller_id <> ''"))


def _tables() -> None:
    text, whole, moment = sa.Text, sa.BigInteger, sa.Double
    op.create_table(
        "sources", *_columns(text, "source_id"), *_columns(whole, "number"),
        *_columns(text, "role", "model", "variant", "endpoint"), *_columns(whole, "price_nanousd_per_hour"),
        *_columns(moment, "started_at", "seen_at"), *_columns(sa.Boolean, "ready", "ended"),
        *_columns(whole, "elapsed_ns", "cold_ns", "idle_ns", "busy_ns", "cold_nanousd", "idle_nanousd",
                  "overhead_nanousd", "folded_steps"),
        *_columns(text, "method", "idle_tenant"), sa.Column("fit", text), *_columns(whole, "unmetered"),
        sa.PrimaryKeyConstraint("source_id", name="pk_sources"),
    )
    op.create_table(
        "intervals", *_columns(text, "source_id"), *_columns(moment, "starts_at"),
        *_columns(whole, "number", "price_nanousd_per_hour", "elapsed_ns", "cold_ns", "idle_ns", "busy_ns",
                  "cold_nanousd", "idle_nanousd", "busy_nanousd", "overhead_nanousd"),
        sa.PrimaryKeyConstraint("source_id", "starts_at", name="pk_intervals"),
    )
    op.create_index("intervals_by_time", "intervals", ["starts_at"])
    op.create_table(
        "charges", *_columns(text, "request_id", "source_id"), *_columns(whole, "number"),
        *_columns(text, "tenant", "outcome"), *_columns(whole, "direct", "waste", "idle", "cold_start"),
        *_columns(whole, "prompt_tokens", "cached_tokens", "completion_tokens"),
        *_columns(text, "method"), *_columns(moment, "updated_at"),
        *_columns(whole, "preemptions", "recomputed", "rejected"), *_columns(text, "compared", "segments"),
        sa.PrimaryKeyConstraint("request_id", "source_id", name="pk_charges"),
    )
    op.create_index("charges_by_source", "charges", ["source_id"])
    op.create_index("charges_by_time", "charges", ["updated_at"])
    op.create_index("charges_under_way", "charges", ["source_id"], sqlite_where=sa.text("outcome = 'running'"),
                    postgresql_where=sa.text("outcome = 'running'"))
    op.create_table(
        "totals", *_columns(text, "source_id", "tenant"),
        *_columns(whole, "number", "direct", "waste", "idle", "cold_start", "requests", "unfinished", "prompt_tokens",
                  "cached_tokens", "completion_tokens"),
        *_columns(text, "compared"), sa.PrimaryKeyConstraint("source_id", "tenant", name="pk_totals"),
    )


def _move_replicas() -> None:
    db, tables = op.get_bind(), sa.MetaData()
    tables.reflect(db, only=["replicas", "sources", "intervals"])
    old, sources, intervals = (tables.tables[name] for name in ("replicas", "sources", "intervals"))
    for row in db.execute(sa.select(old)).mappings().all():
        same = {name: row[name] for name in ("price_nanousd_per_hour", "elapsed_ns", "cold_ns", "idle_ns", "busy_ns",
                                             "cold_nanousd", "idle_nanousd")}
        # price times nanoseconds does not fit into 64 bits, so this is not SQL
        bill = row["price_nanousd_per_hour"] * row["elapsed_ns"] // _NS_PER_HOUR
        db.execute(sources.insert(), {
            **same, **{name: row[name] for name in ("model", "endpoint", "started_at", "seen_at", "folded_steps")},
            "source_id": row["replica_id"], "number": 0, "role": "replica", "variant": row["accelerator"],
            "ready": bool(row["ready"]), "ended": bool(row["ended"]), "overhead_nanousd": 0, "method": _METHOD,
            "idle_tenant": "", "fit": None, "unmetered": 0,
        })
        db.execute(intervals.insert(), {
            **same, "source_id": row["replica_id"], "starts_at": row["started_at"], "number": 0,
            "busy_nanousd": bill - row["cold_nanousd"] - row["idle_nanousd"], "overhead_nanousd": 0,
        })


def _columns(kind: type, *names: str) -> list[sa.Column]:
    return [sa.Column(name, kind, nullable=False) for name in names]
