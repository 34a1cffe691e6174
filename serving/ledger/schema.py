"""The ledger's tables as they are now. How an older ledger becomes this one stands in `migrations`.

Nanoseconds, nano-USD and counts are 64-bit integers, moments are Unix seconds. `number`, where a row has it, is the
reading that the row came from: a row is only replaced by one of a later reading. `compared` is a JSON object
(comparator: nano-USD), `fit` the object of a `StepFit`, `segments` an array of arrays in the order of `Segment`'s
fields, an adapter's `tenants` an array of names. A key's `models`, `scopes` and `limits`, a tenant's `spec` and
`seeded` (as the fleet file had it last; empty: it is not from there) and the `details` of an entry of the audit log are
JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0004"  # the migration that makes these tables; a test holds it against `migrations/versions`

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"})


def _text(name: str) -> Column:
    return Column(name, Text, nullable=False)


def _whole(name: str, nullable: bool = False) -> Column:
    return Column(name, BigInteger, nullable=nullable)


def _moment(name: str, nullable: bool = False) -> Column:
    return Column(name, Double, nullable=nullable)


meta = Table("meta", metadata, _text("key"), _text("value"), PrimaryKeyConstraint("key"))

keys = Table(
    "keys", metadata,
    _text("key_id"), _text("tenant"), _text("name"), _text("prefix"), _text("digest"), _moment("created_at"),
    _moment("revoked_at", nullable=True), _moment("expires_at", nullable=True), Column("models", Text), _text("scopes"),
    _text("priority"), _text("limits"), _moment("last_used_at", nullable=True), Column("rotated_from", Text),
    PrimaryKeyConstraint("key_id"), UniqueConstraint("digest"),
)

tenants = Table(
    "tenants", metadata,
    _text("name"), _text("spec"), _text("seeded"), _moment("updated_at"), _moment("removed_at", nullable=True),
    PrimaryKeyConstraint("name"),
)

audit = Table(  # a trigger refuses every change of what is there
    "audit", metadata,
    Column("number", BigInteger().with_variant(Integer(), "sqlite"), nullable=False), _moment("at"), _text("actor"),
    _text("action"), _text("subject"), _text("details"), PrimaryKeyConstraint("number"),
)

requests = Table(
    "requests", metadata,
    _text("request_id"), _text("caller_id"), _text("tenant"), _text("key_id"), _text("model"), _text("endpoint"),
    Column("code", Integer, nullable=False), _text("outcome"), _moment("started_at"), _moment("duration_s"),
    Column("stream", Boolean, nullable=False), _moment("ttft_s", nullable=True), _whole("prompt_tokens", nullable=True),
    _whole("cached_tokens", nullable=True), _whole("completion_tokens", nullable=True),
    Column("adapter", Text, nullable=False, server_default=""),
    Column("preset", Text, nullable=False, server_default=""), PrimaryKeyConstraint("request_id"),
)
Index("requests_by_time", requests.c.started_at, requests.c.request_id)
Index("requests_by_caller", requests.c.caller_id, sqlite_where=text("caller_id <> ''"),
      postgresql_where=text("caller_id <> ''"))

adapters = Table(
    "adapters", metadata,
    _text("adapter_id"), _text("model"), _text("name"), _text("source"), _text("path"), _whole("rank"),
    _text("description"), Column("tenants", Text), _moment("added_at"), _moment("removed_at", nullable=True),
    PrimaryKeyConstraint("adapter_id"),
)
Index("adapters_there", adapters.c.model, adapters.c.name, unique=True, sqlite_where=text("removed_at IS NULL"),
      postgresql_where=text("removed_at IS NULL"))

sources = Table(
    "sources", metadata,
    _text("source_id"), _whole("number"), _text("role"), _text("model"), _text("variant"), _text("endpoint"),
    _whole("price_nanousd_per_hour"), _moment("started_at"), _moment("seen_at"),
    Column("ready", Boolean, nullable=False), Column("ended", Boolean, nullable=False),
    _whole("elapsed_ns"), _whole("cold_ns"), _whole("idle_ns"), _whole("busy_ns"), _whole("cold_nanousd"),
    _whole("idle_nanousd"), _whole("overhead_nanousd"), _whole("folded_steps"), _text("method"), _text("idle_tenant"),
    Column("fit", Text), _whole("unmetered"), PrimaryKeyConstraint("source_id"),
)

intervals = Table(
    "intervals", metadata,
    _text("source_id"), _moment("starts_at"), _whole("number"), _whole("price_nanousd_per_hour"), _whole("elapsed_ns"),
    _whole("cold_ns"), _whole("idle_ns"), _whole("busy_ns"), _whole("cold_nanousd"), _whole("idle_nanousd"),
    _whole("busy_nanousd"), _whole("overhead_nanousd"), PrimaryKeyConstraint("source_id", "starts_at"),
)
Index("intervals_by_time", intervals.c.starts_at)

charges = Table(
    "charges", metadata,
    _text("request_id"), _text("source_id"), _whole("number"), _text("tenant"), _text("outcome"),
    _whole("direct"), _whole("waste"), _whole("idle"), _whole("cold_start"),
    _whole("prompt_tokens"), _whole("cached_tokens"), _whole("completion_tokens"), _text("method"),
    _moment("updated_at"), _whole("preemptions"), _whole("recomputed"), _whole("rejected"),
    _text("compared"), _text("segments"), PrimaryKeyConstraint("request_id", "source_id"),
)
Index("charges_by_source", charges.c.source_id)
Index("charges_by_time", charges.c.updated_at)
RUNNING = text("charges.outcome = 'running'")  # word for word as in the index, else SQLite does not use it
Index("charges_under_way", charges.c.source_id, sqlite_where=text("outcome = 'running'"),
      postgresql_where=text("outcome = 'running'"))

totals = Table(
    "totals", metadata,
    _text("source_id"), _text("tenant"), _whole("number"), _whole("direct"), _whole("waste"), _whole("idle"),
    _whole("cold_start"), _whole("requests"), _whole("unfinished"), _whole("prompt_tokens"), _whole("cached_tokens"),
    _whole("completion_tokens"), _text("compared"), PrimaryKeyConstraint("source_id", "tenant"),
)
