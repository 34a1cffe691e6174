"""Rows into records: the other way of `writing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, cast, func
from sqlalchemy.engine import Connection, RowMapping

from serving.fleet.records import (
    Amounts,
    ChargeRecord,
    IntervalRecord,
    RequestRecord,
    Segment,
    SourceRecord,
    StepFit,
    Tokens,
)


def total(column: Any) -> ColumnElement[int]:
    """The sum of a column of whole numbers, 0 over nothing. PostgreSQL would make a decimal of it."""
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def day(db: Connection, moment: ColumnElement[float]) -> ColumnElement[str]:
    """The day (UTC, as 2026-11-25) of a column of Unix seconds."""
    if db.dialect.name == "sqlite":
        return func.strftime("%Y-%m-%d", moment, "unixepoch")
    return func.to_char(func.timezone("UTC", func.to_timestamp(moment)), "YYYY-MM-DD")


def request(row: RowMapping) -> RequestRecord:
    """A row of `requests`."""
    tokens = None if row["prompt_tokens"] is None else tokens_of(row)
    return RequestRecord(row["request_id"], row["caller_id"], row["tenant"], row["key_id"], row["model"],
                         row["endpoint"], row["code"], row["outcome"], row["started_at"], row["duration_s"],
                         row["stream"], row["ttft_s"], tokens, row["adapter"], row["preset"])


def source(row: RowMapping) -> SourceRecord:
    """A row of `sources`."""
    values = {name: row[name] for name in SourceRecord.__dataclass_fields__}
    return SourceRecord(**values | {"fit": msgspec.json.decode(row["fit"], type=StepFit) if row["fit"] else None})


def interval(row: RowMapping) -> IntervalRecord:
    """A row of `intervals`."""
    return IntervalRecord(**{name: row[name] for name in IntervalRecord.__dataclass_fields__})


def charge(row: RowMapping) -> ChargeRecord:
    """A row of `charges`."""
    segments = tuple(Segment(*values) for values in msgspec.json.decode(row["segments"]))
    return ChargeRecord(row["source_id"], row["request_id"], row["tenant"], row["outcome"], amounts_of(row),
                        tokens_of(row), row["method"], row["updated_at"], row["preemptions"], row["recomputed"],
                        row["rejected"], compared_of(row), segments)


def amounts_of(row: RowMapping) -> Amounts:
    """The four amounts of a row."""
    return Amounts(row["direct"], row["waste"], row["idle"], row["cold_start"])


def tokens_of(row: RowMapping) -> Tokens:
    """The tokens of a row."""
    return Tokens(row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])


def compared_of(row: RowMapping) -> dict[str, int]:
    """Nano-USD by comparator of a row."""
    return msgspec.json.decode(row["compared"], type=dict[str, int])


def add(into: dict[str, int], amounts: Mapping[str, int]) -> None:
    """Add amounts by name to a running sum."""
    for name, amount in amounts.items():
        into[name] = into.get(name, 0) + amount
