"""Single requests and intervals: everything known of one, or all of them one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.engine import Connection, RowMapping

from serving.fleet.records import Amounts, ChargeRecord, IntervalRecord, RequestRecord, SourceRecord, Tokens
from serving.ledger import reading, schema
from serving.ledger.store import Ledger

_FOREVER = 1e18
_BATCH = 500
_LONGEST_S = 3600.0  # a request that began before is not looked for: the index is by when they began


@dataclass(frozen=True)
class RequestDetail:
    """One request. `request`: the gateway's row; None when it has not written one (yet). `charges`: one by replica.

    `sources`: those replicas; `intervals`: their time while the request ran, with the price then. `others`: ids of
    older requests that were sent with the same caller's id.
    """

    request_id: str
    request: RequestRecord | None
    charges: tuple[ChargeRecord, ...]
    sources: tuple[SourceRecord, ...]
    intervals: tuple[IntervalRecord, ...]
    others: tuple[str, ...] = ()


def request(ledger: Ledger, request_id: str) -> RequestDetail | None:
    """The request with this id, Flotilla's or the caller's (the newest of these); None: there is none."""
    q, c, s = schema.requests.c, schema.charges.c, schema.sources.c
    with ledger.snapshot() as db:
        found = db.execute(select(schema.requests).where(q.request_id == request_id)).mappings().first()
        others: tuple[str, ...] = ()
        if found is None and request_id:
            same = db.execute(select(schema.requests).where(q.caller_id == request_id)
                              .order_by(q.started_at.desc(), q.request_id)).mappings().all()
            if same:
                found, request_id = same[0], same[0]["request_id"]
                others = tuple(row["request_id"] for row in same[1:])
        charges = tuple(map(reading.charge, db.execute(
            select(schema.charges).where(c.request_id == request_id).order_by(c.updated_at)).mappings()))
        if found is None and not charges:
            return None
        at = [charge.source_id for charge in charges]
        sources = tuple(map(reading.source, db.execute(
            select(schema.sources).where(s.source_id.in_(at)).order_by(s.started_at)).mappings()))
        began = found["started_at"] if found is not None else min(charge.updated_at for charge in charges)
        intervals = tuple(i for charge in charges for i in _while(db, charge, began))
    return RequestDetail(request_id, reading.request(found) if found is not None else None, charges, sources,
                         intervals, others)


def _while(db: Connection, charge: ChargeRecord, began: float) -> Iterator[IntervalRecord]:
    """The intervals of a charge's source from the one in which the request began to its last change."""
    i = schema.intervals.c
    first = (select(func.max(i.starts_at)).where(i.source_id == charge.source_id, i.starts_at <= began)
             .scalar_subquery())
    query = (select(schema.intervals)
             .where(i.source_id == charge.source_id, i.starts_at >= func.coalesce(first, began),
                    i.starts_at <= charge.updated_at).order_by(i.starts_at))
    return map(reading.interval, db.execute(query).mappings())


@dataclass(frozen=True)
class RequestRow:
    """One request in one row. Money in nano-USD, times Unix seconds and seconds.

    What only the gateway knows (`key_id`, `endpoint`, `code`, …) is empty or None for work that came by no gateway.
    `variant`, `method` and `source_ids` are of the replicas that it ran on, the last one first; empty when it reached
    none. `started_at` is then when it was booked. `compared`: nano-USD by comparator.
    """

    request_id: str
    caller_id: str
    tenant: str
    key_id: str
    model: str
    variant: str
    endpoint: str
    code: int | None
    outcome: str
    started_at: float
    duration_s: float | None
    ttft_s: float | None
    stream: bool | None
    tokens: Tokens
    amounts: Amounts
    method: str
    compared: dict[str, int] = field(default_factory=dict)
    source_ids: tuple[str, ...] = ()
    adapter: str = ""
    preset: str = ""


def rows(ledger: Ledger, since: float = 0.0, until: float = _FOREVER) -> Iterator[RequestRow]:
    """Every request, oldest first: those of gateways that began in [since, until), then work that no gateway has
    written down, by when it last changed. One reading of the ledger; memory stays flat.

    Without limits their work, and what `intervals` holds besides, is the bill.
    """
    q, c = schema.requests.c, schema.charges.c
    with ledger.snapshot(patient=True) as db:
        known = select(schema.requests).where(q.started_at >= since, q.started_at < until)
        for batch in _pages(db, known, (q.started_at, q.request_id)):
            charged = _charges(db, [row["request_id"] for row in batch])
            for row in batch:
                yield _row(row, charged.get(row["request_id"], []))
        unknown = (select(c.request_id, func.max(c.updated_at).label("updated_at"))
                   .where(~select(q.request_id).where(q.request_id == c.request_id).exists())
                   .group_by(c.request_id).subquery())
        late = select(unknown).where(unknown.c.updated_at >= since, unknown.c.updated_at < until)
        for batch in _pages(db, late, (unknown.c.updated_at, unknown.c.request_id)):
            charged = _charges(db, [row["request_id"] for row in batch])
            for row in batch:
                yield _row(None, charged[row["request_id"]])


def newest(ledger: Ledger, count: int, since: float = 0.0, outcomes: Sequence[str] = (),
           of: Mapping[str, str] | None = None) -> list[RequestRow]:
    """The newest requests that gateways have written down and that began at `since` or later, newest first.

    `outcomes`: only those that ended so. `of`: only those of this `tenant`, `key`, `model`.
    """
    q = schema.requests.c
    columns = {"tenant": q.tenant, "key": q.key_id, "model": q.model}
    query = select(schema.requests).where(q.started_at >= since, *(columns[n] == v for n, v in (of or {}).items()))
    if outcomes:
        query = query.where(q.outcome.in_(outcomes))
    with ledger.snapshot() as db:
        found = list(db.execute(query.order_by(q.started_at.desc(), q.request_id.desc()).limit(count)).mappings())
        charged = _charges(db, [row["request_id"] for row in found])
    return [_row(row, charged.get(row["request_id"], [])) for row in found]


@dataclass(frozen=True)
class Beside:
    """A request that was on one of the same replicas at the same time. Times: Unix seconds."""

    request_id: str
    source_id: str
    tenant: str
    began_at: float
    ended_at: float


def beside(ledger: Ledger, request_id: str, began_at: float, ended_at: float, most: int = 200) -> list[Beside]:
    """The others that ran on the request's replicas in that time, as gateways saw them, oldest first."""
    q, c = schema.requests.c, schema.charges.c
    with ledger.snapshot() as db:
        at = list(db.execute(select(c.source_id).where(c.request_id == request_id)).scalars())
        query = (select(q.request_id, c.source_id, q.tenant, q.started_at, (q.started_at + q.duration_s).label("ended"))
                 .join_from(schema.requests, schema.charges, c.request_id == q.request_id)
                 .where(q.started_at >= began_at - _LONGEST_S, q.started_at <= ended_at,
                        q.started_at + q.duration_s >= began_at, c.source_id.in_(at), q.request_id != request_id)
                 .order_by(q.started_at, q.request_id).limit(most))
        return [Beside(*row) for row in db.execute(query)]


def _pages(db: Connection, query: Select, key: tuple) -> Iterator[list[RowMapping]]:
    """The rows of a query in the order of `key`, two columns that no two rows share, some at a time."""
    first, second = key
    page = query.order_by(first, second).limit(_BATCH)
    found = list(db.execute(page).mappings())
    while found:
        yield found
        if len(found) < _BATCH:
            return
        a, b = found[-1][first.name], found[-1][second.name]
        found = list(db.execute(page.where(or_(first > a, and_(first == a, second > b)))).mappings())


def _charges(db: Connection, ids: list[str]) -> dict[str, list[RowMapping]]:
    """Charges of these requests with model and variant of where they ran, by request, the last one first."""
    c, s = schema.charges.c, schema.sources.c
    query = (select(*(column for column in c if column.name != "segments"), s.model, s.variant)
             .outerjoin_from(schema.charges, schema.sources, s.source_id == c.source_id)
             .where(c.request_id.in_(ids)).order_by(c.request_id, c.updated_at.desc(), c.source_id))
    return {name: list(found) for name, found in groupby(db.execute(query).mappings(), lambda row: row["request_id"])}


def _row(row: RowMapping | None, charges: list[RowMapping]) -> RequestRow:
    compared: dict[str, int] = {}
    for charge in charges:
        reading.add(compared, reading.compared_of(charge))
    tokens = sum((reading.tokens_of(charge) for charge in charges), Tokens())
    amounts = sum((reading.amounts_of(charge) for charge in charges), Amounts())
    variant, method = (charges[0]["variant"] or "", charges[0]["method"]) if charges else ("", "")
    at = tuple(charge["source_id"] for charge in charges)
    if row is None:
        last = charges[0]
        return RequestRow(last["request_id"], "", last["tenant"], "", last["model"] or "", variant, "", None,
                          last["outcome"], last["updated_at"], None, None, None, tokens, amounts, method, compared, at)
    seen = reading.request(row)
    return RequestRow(
        seen.request_id, seen.caller_id, seen.tenant, seen.key_id, seen.model, variant, seen.endpoint, seen.code,
        seen.outcome, seen.started_at, seen.duration_s, seen.ttft_s, seen.stream, seen.tokens or tokens, amounts,
        method, compared, at, seen.adapter, seen.preset)


@dataclass(frozen=True)
class IntervalRow:
    """An interval with what its source is. `left_idle`, `left_cold_start`: nano-USD of it that no request was charged
    with; what was allocated counts against the source's oldest intervals first."""

    record: IntervalRecord
    role: str
    model: str
    variant: str
    idle_tenant: str
    left_idle: int
    left_cold_start: int


def intervals(ledger: Ledger, since: float = 0.0, until: float = _FOREVER) -> Iterator[IntervalRow]:
    """Intervals that began in [since, until), by source and time. One reading of the ledger; memory stays flat."""
    i, s, c = schema.intervals.c, schema.sources.c, schema.charges.c
    with ledger.snapshot(patient=True) as db:
        allocated = {name: (idle, cold) for name, idle, cold in db.execute(
            select(c.source_id, reading.total(c.idle), reading.total(c.cold_start)).group_by(c.source_id))}
        query = (select(schema.intervals, s.role, s.model, s.variant, s.idle_tenant)
                 .outerjoin_from(schema.intervals, schema.sources, s.source_id == i.source_id))
        source, idle, cold = "", 0, 0
        for batch in _pages(db, query, (i.source_id, i.starts_at)):
            for row in batch:
                if row["source_id"] != source:
                    source = row["source_id"]
                    idle, cold = allocated.get(source, (0, 0))
                record = reading.interval(row)
                taken = min(idle, record.idle_nanousd), min(cold, record.cold_nanousd)
                idle, cold = idle - taken[0], cold - taken[1]
                if since <= record.starts_at < until:
                    yield IntervalRow(record, row["role"] or "", row["model"] or "", row["variant"] or "",
                                      row["idle_tenant"] or "", record.idle_nanousd - taken[0],
                                      record.cold_nanousd - taken[1])
