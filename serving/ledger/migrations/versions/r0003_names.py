"""Requests remember the adapter and the preset they named; adapters that were added while a fleet runs have a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Requests of before named none, as far as is known."""
    for name in ("adapter", "preset"):
        op.add_column("requests", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.create_table(
        "adapters",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("adapter_id", "model", "name", "source", "path")),
        sa.Column("rank", sa.BigInteger, nullable=False), sa.Column("description", sa.Text, nullable=False),
        sa.Column("tenants", sa.Text), sa.Column("added_at", sa.Double, nullable=False),
        sa.Column("removed_at", sa.Double), sa.PrimaryKeyConstraint("adapter_id", name="pk_adapters"),
    )
    there = sa.text("removed_at IS NULL")
    op.create_index("adapters_there", "adapters", ["model", "name"], unique=True, sqlite_where=there,
                    postgresql_where=there)
