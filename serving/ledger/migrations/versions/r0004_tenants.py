"""Keys learn when they end and what they are good for; tenants live in the ledger; an audit log that only grows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ONLY_GROWS = "the audit log only grows"


def upgrade() -> None:
    """Add columns and tables. A key of before is good for what it was: its tenant's models, requests and own usage."""
    text, moment = sa.Text, sa.Double
    for column in (
        sa.Column("expires_at", moment), sa.Column("models", text),
        sa.Column("scopes", text, nullable=False, server_default='["inference","usage"]'),
        sa.Column("priority", text, nullable=False, server_default="standard"),
        sa.Column("limits", text, nullable=False, server_default="{}"), sa.Column("last_used_at", moment),
        sa.Column("rotated_from", text),
    ):
        op.add_column("keys", column)
    op.create_table(
        "tenants", sa.Column("name", text, nullable=False), sa.Column("spec", text, nullable=False),
        sa.Column("seeded", text, nullable=False), sa.Column("updated_at", moment, nullable=False),
        sa.Column("removed_at", moment), sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    op.create_table(
        "audit", sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", moment, nullable=False), sa.Column("actor", text, nullable=False),
        sa.Column("action", text, nullable=False), sa.Column("subject", text, nullable=False),
        sa.Column("details", text, nullable=False), sa.PrimaryKeyConstraint("number", name="pk_audit"),
    )
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER audit_no_{what.lower()} BEFORE {what} ON audit "
                       f"BEGIN SELECT RAISE(ABORT, '{_ONLY_GROWS}'); END")
        return
    op.execute("CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
               f"$$ BEGIN RAISE EXCEPTION '{_ONLY_GROWS}'; END $$")
    op.execute("CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
               "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()")
