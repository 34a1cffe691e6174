"""Whether the books add up: every source's time billed anew, and all that was booked held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, RowMapping

from serving.fleet.money import NS_PER_HOUR, bill
from serving.ledger import schema
from serving.ledger.reading import total
from serving.ledger.store import Ledger

_TIMES = ("elapsed_ns", "cold_ns", "idle_ns", "busy_ns")
_COSTS = ("cold_nanousd", "idle_nanousd", "overhead_nanousd")
_AMOUNTS = ("direct", "waste", "idle", "cold_start")
_NOTHING: dict[str, int] = {}


@dataclass(frozen=True)
class Reconciliation:
    """The books against the bill, over everything the ledger holds. All amounts nano-USD.

    `requests_nanousd`: the work of all requests, direct and waste. `allocated_nanousd`: idle and cold start that
    requests were charged with, part of those two. `wrong_sources`: what does not add up.
    """

    residual_nanousd: int
    bill_nanousd: int
    requests_nanousd: int
    idle_nanousd: int
    cold_start_nanousd: int
    overhead_nanousd: int
    allocated_nanousd: int
    sources: int
    charged_requests: int
    wrong_sources: tuple[str, ...] = ()


@dataclass
class _Books:
    """What the ledger holds of one source."""

    source: RowMapping | None
    intervals: Mapping[str, int]
    owed: int  # nano-USD times nanoseconds an hour
    charges: Mapping[str, int]
    totals_off: int

    @property
    def bill(self) -> int:
        return self.owed // NS_PER_HOUR

    def residual(self) -> int:
        """The sum of all differences. Times that differ count at their price, at least as 1."""
        i, c = self.intervals, self.charges
        rest = sum(i.get(name, 0) for name in _COSTS)
        work = c.get("direct", 0) + c.get("waste", 0)
        off = abs(self.bill - work - rest) + abs(self.bill - i.get("busy_nanousd", 0) - rest) + self.totals_off
        off += max(0, c.get("idle", 0) - i.get("idle_nanousd", 0))
        off += max(0, c.get("cold_start", 0) - i.get("cold_nanousd", 0))
        if self.source is None:
            return off + abs(self.bill) + abs(work)
        off += sum(abs(self.source[name] - i.get(name, 0)) for name in _COSTS)
        for name in _TIMES:
            if ns := abs(self.source[name] - i.get(name, 0)):
                off += max(1, bill(self.source["price_nanousd_per_hour"], ns))
        return off


def reconcile(ledger: Ledger) -> Reconciliation:
    """Bill every source's time anew from its intervals and hold charges, idle, cold start and overhead against it.

    Also: a source's own sums against its intervals', what was allocated against what there was to allocate, and the
    totals of ended requests against their charges where the ledger has all of these.
    """
    with ledger.snapshot(patient=True) as db:
        books = _read(db)
        charged = db.execute(select(func.count()).select_from(schema.charges)).scalar_one()
    off = {name: found.residual() for name, found in books.items()}

    def over(part: str, *names: str) -> int:
        return sum(getattr(found, part).get(name, 0) for found in books.values() for name in names)

    return Reconciliation(
        sum(off.values()), sum(b.bill for b in books.values()), over("charges", "direct", "waste"),
        over("intervals", "idle_nanousd"), over("intervals", "cold_nanousd"), over("intervals", "overhead_nanousd"),
        over("charges", "idle", "cold_start"), sum(b.source is not None for b in books.values()), charged,
        tuple(sorted(name for name, amount in off.items() if amount)),
    )


def _read(db: Connection) -> dict[str, _Books]:
    s, i, c = schema.sources.c, schema.intervals.c, schema.charges.c
    sources = {row["source_id"]: row for row in db.execute(
        select(s.source_id, s.price_nanousd_per_hour, *(s[name] for name in (*_TIMES, *_COSTS)))).mappings()}
    intervals: dict[str, dict[str, int]] = {}
    owed: dict[str, int] = {}
    sums = [total(i[name]).label(name) for name in (*_TIMES, *_COSTS, "busy_nanousd")]
    price = i.price_nanousd_per_hour
    for row in db.execute(select(i.source_id, price, *sums).group_by(i.source_id, price)).mappings():
        name = row["source_id"]
        # a price times nanoseconds does not fit into 64 bits, so this is not SQL
        owed[name] = owed.get(name, 0) + row["price_nanousd_per_hour"] * row["elapsed_ns"]
        found = intervals.setdefault(name, {})
        for column in (*_TIMES, *_COSTS, "busy_nanousd"):
            found[column] = found.get(column, 0) + row[column]
    charges = {row["source_id"]: dict(row) for row in db.execute(
        select(c.source_id, *(total(c[name]).label(name) for name in _AMOUNTS)).group_by(c.source_id)).mappings()}
    off = _totals_off(db)
    return {name: _Books(sources.get(name), intervals.get(name, _NOTHING), owed.get(name, 0),
                         charges.get(name, _NOTHING), off.get(name, 0))
            for name in {*sources, *intervals, *charges, *off}}


def _totals_off(db: Connection) -> dict[str, int]:
    """By how much each source's totals differ from its ended charges, nano-USD.

    Only where no charge is missing: requests for which no row could be kept share one, but are counted one by one.
    """
    c, t = schema.charges.c, schema.totals.c
    told: dict[tuple[str, str], RowMapping] = {(row["source_id"], row["tenant"]): row for row in db.execute(
        select(t.source_id, t.tenant, t.requests, *(t[n] for n in _AMOUNTS))).mappings()}
    off: dict[str, int] = {}
    for row in db.execute(
            select(c.source_id, c.tenant, func.count().label("requests"), *(total(c[n]).label(n) for n in _AMOUNTS))
            .where(c.outcome != "running").group_by(c.source_id, c.tenant)).mappings():
        found = told.get((row["source_id"], row["tenant"]))
        if found is None or row["requests"] >= found["requests"]:
            difference = sum(abs(row[n] - (found[n] if found is not None else 0)) for n in _AMOUNTS)
            off[row["source_id"]] = off.get(row["source_id"], 0) + difference
    return off
