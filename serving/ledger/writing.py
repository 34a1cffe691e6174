"""Records into rows. Whatever is written twice, or late, leaves the ledger as if it had come once and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from serving.fleet.records import (
    Amounts,
    ChargeRecord,
    IntervalRecord,
    MeterReading,
    RequestRecord,
    Segment,
    SourceRecord,
    Tokens,
    TotalRecord,
)
from serving.ledger import schema

_INSERT: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
Row = dict[str, Any]


def requests(db: Connection, records: Iterable[RequestRecord]) -> None:
    """Insert gateway rows that are not there yet."""
    _insert(db, schema.requests, [_request(r) for r in records], replace=False)


def reading(db: Connection, found: MeterReading) -> None:
    """Insert or replace the rows of one reading."""
    n = found.number
    _insert(db, schema.sources, [_source(found.source, n)])
    _insert(db, schema.intervals, [_interval(r, n) for r in found.intervals])
    _insert(db, schema.charges, [_charge(r, n) for r in found.charges])
    _insert(db, schema.totals, [_total(r, n) for r in found.totals])


def _insert(db: Connection, table: Table, rows: list[Row], replace: bool = True) -> None:
    if not rows:
        return
    key = [column.name for column in table.primary_key]
    rows.sort(key=lambda row: [row[name] for name in key])  # two writers of the same rows lock them in the same order
    statement = _INSERT[db.dialect.name](table)
    if replace:
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=key, set_={c.name: new[c.name] for c in table.columns if c.name not in key},
            where=table.c.number < new.number)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=key)
    db.execute(statement, rows)


def _request(r: RequestRecord) -> Row:
    tokens = r.tokens
    return {
        "request_id": r.request_id, "caller_id": _plain(r.caller_id), "tenant": r.tenant, "key_id": r.key_id,
        "model": _plain(r.model), "endpoint": r.endpoint, "code": r.code, "outcome": r.outcome,
        "started_at": r.started_at, "duration_s": r.duration_s, "stream": r.stream, "ttft_s": r.ttft_s,
        "prompt_tokens": tokens.prompt if tokens else None, "cached_tokens": tokens.cached if tokens else None,
        "completion_tokens": tokens.completion if tokens else None, "adapter": r.adapter, "preset": r.preset,
    }


def _source(r: SourceRecord, number: int) -> Row:
    return _row(r, number) | {"fit": msgspec.json.encode(r.fit).decode() if r.fit else None}


def _interval(r: IntervalRecord, number: int) -> Row:
    return _row(r, number)


def _charge(r: ChargeRecord, number: int) -> Row:
    return {
        "request_id": r.request_id, "source_id": r.source_id, "number": number, "tenant": r.tenant,
        "outcome": r.outcome, **_amounts(r.amounts), **_tokens(r.tokens), "method": r.method,
        "updated_at": r.updated_at, "preemptions": r.preemptions, "recomputed": r.recomputed, "rejected": r.rejected,
        "compared": _compared(r.compared), "segments": _segments(r.segments),
    }


def _total(r: TotalRecord, number: int) -> Row:
    return {
        "source_id": r.source_id, "tenant": r.tenant, "number": number, **_amounts(r.amounts), "requests": r.requests,
        "unfinished": r.unfinished, **_tokens(r.tokens), "compared": _compared(r.compared),
    }


def _row(record: Any, number: int) -> Row:
    return {name: getattr(record, name) for name in record.__dataclass_fields__} | {"number": number}


def _amounts(a: Amounts) -> Row:
    return {"direct": a.direct, "waste": a.waste, "idle": a.idle, "cold_start": a.cold_start}


def _tokens(t: Tokens) -> Row:
    return {"prompt_tokens": t.prompt, "cached_tokens": t.cached, "completion_tokens": t.completion}


def _compared(compared: Any) -> str:
    return msgspec.json.encode(dict(compared), order="sorted").decode()


def _segments(segments: Sequence[Segment]) -> str:
    return msgspec.json.encode([(s.phase, s.steps, s.tokens, s.context, s.pairs, s.shared, s.parts, s.step_ns,
                                 s.nanousd) for s in segments]).decode()


def _plain(text: str) -> str:
    """What callers wrote, without what a database cannot hold: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
