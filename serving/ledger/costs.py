"""The bill cut by model, tenant, day, accelerator, bucket, adapter, preset: rows that add up to it in any case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, ColumnElement, Select, Text, case, cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from serving.errors import ConfigError
from serving.fleet.records import BUCKETS, Bucket, Tokens
from serving.ledger import schema
from serving.ledger.reading import day, total
from serving.ledger.store import Ledger

Dimension = Literal["model", "tenant", "day", "variant", "bucket", "adapter", "preset"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
_FOREVER = 1e18
_DAY_S = 86_400
_ALLOCATED: tuple[Bucket, ...] = ("idle", "cold_start")
Key = tuple[str, ...]


def _zeros(names: Iterable[Bucket]) -> dict[Bucket, int]:
    return dict.fromkeys(names, 0)


@dataclass
class CostRow:
    """A part of the bill. `keys`: which part. Money in nano-USD.

    `nanousd`: by bucket; idle and cold start are what requests were charged with (`allocated`, told once more on its
    own) and the rest, which falls on whoever the source's idle time belongs to. `requests`: ended ones, `unfinished`
    (aborted or failed) among them; a request that ran on two replicas is one. `compared`: the same tokens elsewhere.
    """

    keys: dict[str, str]
    nanousd: dict[Bucket, int] = field(default_factory=lambda: _zeros(BUCKETS))
    allocated: dict[Bucket, int] = field(default_factory=lambda: _zeros(_ALLOCATED))
    requests: int = 0
    unfinished: int = 0
    tokens: Tokens = Tokens()
    compared: dict[str, int] = field(default_factory=dict)

    @property
    def total_nanousd(self) -> int:
        """All of it."""
        return sum(self.nanousd.values())


def costs(ledger: Ledger, by: Sequence[Dimension], since: float = 0.0, until: float = _FOREVER) -> list[CostRow]:
    """The bill by `by`, in the order of the keys; of [since, until), Unix seconds. Without limits it is all of it.

    Charges belong to the day (UTC) on which they last changed, intervals to that on which they began, idle time to
    `SourceRecord.idle_tenant`, what no one is charged with to tenant "". Idle time may be allocated on a later day than
    it passed: by tenant and day, what is left of it can then be below 0 on that later day, and sums hold all the same.
    Adapters and presets are those that requests named: idle time, and work that no gateway has written down (yet), are
    of none.
    Cut by bucket, a row's money is in one bucket; requests, tokens and what they compare with stand in that of direct.
    Raises: ConfigError for an unknown or repeated name in `by`; LedgerError.
    """
    if unknown := [name for name in by if name not in DIMENSIONS]:
        raise ConfigError(f"costs cannot be cut by {unknown[0]!r}; there are: {', '.join(DIMENSIONS)}")
    if len(set(by)) != len(by):
        raise ConfigError(f"costs are cut by each of these once: {', '.join(by)}")
    plain = [name for name in by if name != "bucket"]
    with ledger.snapshot(patient=True) as db:
        rows = _Cut(db, plain, since, until).rows()
    if "bucket" in by:
        rows = [part for row in rows for part in _by_bucket(row)]
    for row in rows:
        row.keys = {name: row.keys[name] for name in by}
    return sorted(rows, key=lambda row: tuple(row.keys.values()))


def _by_bucket(row: CostRow) -> Iterable[CostRow]:
    for bucket in BUCKETS:
        keys = row.keys | {"bucket": bucket}
        nanousd = _zeros(BUCKETS) | {bucket: row.nanousd[bucket]}
        allocated = _zeros(_ALLOCATED) | ({bucket: row.allocated[bucket]} if bucket in row.allocated else {})
        if bucket == "direct":
            yield CostRow(keys, nanousd, allocated, row.requests, row.unfinished, row.tokens, row.compared)
        elif nanousd[bucket] or allocated.get(bucket):
            yield CostRow(keys, nanousd, allocated)


class _Cut:
    """One reading of charges and intervals, grouped."""

    def __init__(self, db: Connection, by: Sequence[str], since: float, until: float) -> None:
        self._db, self._by = db, by
        self._rows: dict[Key, CostRow] = {}
        c, i = schema.charges.c, schema.intervals.c
        self._charged = (c.updated_at >= since, c.updated_at < until)
        self._passed = (i.starts_at >= since, i.starts_at < until)

    def rows(self) -> list[CostRow]:
        """All of it."""
        self._charges()
        self._left_over()
        self._compared()
        return list(self._rows.values())

    def _row(self, key: Key) -> CostRow:
        if key not in self._rows:
            self._rows[key] = CostRow(dict(zip(self._by, key, strict=True)))
        return self._rows[key]

    def _keys(self, tenant: ColumnElement[str], moment: ColumnElement[float],
              named: bool = False) -> list[ColumnElement[str]]:
        """`named`: the query has the rows of requests too."""
        s, q = schema.sources.c, schema.requests.c
        found: dict[str, Callable[[], ColumnElement[Any]]] = {
            "model": lambda: func.coalesce(s.model, ""), "variant": lambda: func.coalesce(s.variant, ""),
            "tenant": lambda: func.coalesce(tenant, ""), "day": lambda: day(self._db, moment),
            "adapter": lambda: func.coalesce(q.adapter, "") if named else literal("", Text),
            "preset": lambda: func.coalesce(q.preset, "") if named else literal("", Text),
        }
        return [found[name]().label(f"key_{name}") for name in self._by]

    def _with_names(self, query: Select[Any]) -> Select[Any]:
        """A query of charges, joined with what their requests named where that is asked for."""
        if not {"adapter", "preset"} & set(self._by):
            return query
        return query.outerjoin(schema.requests, schema.requests.c.request_id == schema.charges.c.request_id)

    def _grouped(self, query: Select[Any], keys: list[ColumnElement[str]]) -> Iterable[tuple[Key, Sequence[Any]]]:
        # by their labels: PostgreSQL does not see that two expressions with parameters are the same
        for row in self._db.execute(query.group_by(*(key.name for key in keys)) if keys else query):
            yield tuple(row[:len(keys)]), row[len(keys):]

    def _charges(self) -> None:
        c = schema.charges.c
        keys = self._keys(c.tenant, c.updated_at, named=True)
        real = c.request_id.not_like("unmetered:%")  # such a row stands for many requests
        columns = [total(c[n]) for n in ("direct", "waste", "idle", "cold_start", "prompt_tokens", "cached_tokens",
                                         "completion_tokens")]
        counts = [func.count(case((condition, c.request_id)).distinct()) for condition in (
            (c.outcome != "running") & real, c.outcome.in_(("aborted", "failed")) & real)]
        query = self._with_names(
            select(*keys, *columns, *counts)
            .outerjoin_from(schema.charges, schema.sources, schema.sources.c.source_id == c.source_id)
            .where(*self._charged))
        for key, (direct, waste, idle, cold, prompt, cached, completion, ended, unfinished) in self._grouped(
                query, keys):
            row = self._row(key)
            for bucket, amount in (("direct", direct), ("waste", waste), ("idle", idle), ("cold_start", cold)):
                row.nanousd[bucket] += amount
            row.allocated["idle"] += idle
            row.allocated["cold_start"] += cold
            row.requests, row.unfinished = ended, unfinished
            row.tokens += Tokens(prompt, cached, completion)

    def _left_over(self) -> None:
        """What the intervals hold beyond what requests were charged with."""
        s, c, i = schema.sources.c, schema.charges.c, schema.intervals.c
        keys = self._keys(s.idle_tenant, i.starts_at)
        query = (select(*keys, total(i.idle_nanousd), total(i.cold_nanousd))
                 .outerjoin_from(schema.intervals, schema.sources, s.source_id == i.source_id).where(*self._passed))
        for key, (idle, cold) in self._grouped(query, keys):
            self._add(key, idle, cold)
        keys = self._keys(literal("", Text), i.starts_at)
        query = (select(*keys, total(i.overhead_nanousd))
                 .outerjoin_from(schema.intervals, schema.sources, s.source_id == i.source_id)
                 .where(*self._passed, i.overhead_nanousd != 0))
        for key, (overhead,) in self._grouped(query, keys):
            if overhead:
                self._row(key).nanousd["overhead"] += overhead
        keys = self._keys(s.idle_tenant, c.updated_at)
        query = (select(*keys, total(c.idle), total(c.cold_start))
                 .outerjoin_from(schema.charges, schema.sources, s.source_id == c.source_id).where(*self._charged))
        for key, (idle, cold) in self._grouped(query, keys):
            self._add(key, -idle, -cold)

    def _add(self, key: Key, idle: int, cold: int) -> None:
        if idle or cold:
            row = self._row(key)
            row.nanousd["idle"] += idle
            row.nanousd["cold_start"] += cold

    def _compared(self) -> None:
        c = schema.charges.c
        keys = self._keys(c.tenant, c.updated_at, named=True)
        if self._db.dialect.name == "sqlite":
            each = func.json_each(c.compared).table_valued("key", "value")
        else:
            each = func.jsonb_each_text(cast(c.compared, JSONB)).table_valued("key", "value")
        query = self._with_names(
            select(*keys, each.c.key.label("comparator"), total(cast(each.c.value, BigInteger)))
            .outerjoin_from(schema.charges, schema.sources, schema.sources.c.source_id == c.source_id)
            .join(each, literal(True)).where(*self._charged))
        for row in self._db.execute(query.group_by(*(key.name for key in keys), "comparator")):
            compared = self._row(tuple(row[:len(keys)])).compared
            compared[row[-2]] = compared.get(row[-2], 0) + row[-1]
