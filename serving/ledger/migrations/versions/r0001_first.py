"""The tables of the first ledgers: requests of gateways, replicas, charges and totals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    text, whole, moment = sa.Text, sa.BigInteger, sa.Double
    op.create_table("meta", sa.Column("key", text, primary_key=True), sa.Column("value", text, nullable=False))
    op.create_table(
        "keys", sa.Column("key_id", text, primary_key=True),
        *_columns(text, "tenant", "name", "prefix", "digest"), *_columns(moment, "created_at"),
        sa.Column("revoked_at", moment), sa.UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_table(
        "requests", sa.Column("request_id", text, primary_key=True),
        *_columns(text, "caller_id", "tenant", "key_id", "model", "endpoint"), *_columns(sa.Integer, "code"),
        *_columns(text, "outcome"), *_columns(moment, "started_at", "duration_s"), *_columns(sa.Boolean, "stream"),
        sa.Column("ttft_s", moment), sa.Column("prompt_tokens", whole), sa.Column("cached_tokens", whole),
        sa.Column("completion_tokens", whole),
    )
    op.create_index("requests_by_time", "requests", ["started_at"])
    op.create_table(
        "replicas", sa.Column("replica_id", text, primary_key=True),
        *_columns(text, "model", "accelerator", "endpoint"),
        *_columns(whole, "price_nanousd_per_hour"), *_columns(moment, "started_at", "seen_at"),
        *_columns(sa.Integer, "ready", "ended"),
        *_columns(whole, "elapsed_ns", "cold_ns", "idle_ns", "busy_ns", "cold_nanousd", "idle_nanousd", "folded_steps"),
        *_columns(text, "method"),
    )
    op.create_table(
        "charges", *_columns(text, "replica_id", "request_id", "tenant", "outcome"),
        *_columns(whole, "nanousd", "prompt_tokens", "cached_tokens", "completion_tokens"),
        *_columns(moment, "updated_at"), sa.PrimaryKeyConstraint("request_id", "replica_id"),
    )
    op.create_index("charges_by_replica", "charges", ["replica_id"])
    op.create_table(
        "totals", *_columns(text, "replica_id", "tenant", "bucket"),
        *_columns(whole, "nanousd", "requests", "prompt_tokens", "cached_tokens", "completion_tokens"),
        sa.PrimaryKeyConstraint("replica_id", "tenant", "bucket"),
    )
    op.execute("INSERT INTO meta (key, value) VALUES ('version', '1')")


def _columns(kind: type, *names: str) -> list[sa.Column]:
    return [sa.Column(name, kind, nullable=False) for name in names]
