"""Rows to put into a ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import text

from serving.fleet.money import NS_PER_HOUR, bill
from serving.fleet.records import (
    Amounts,
    ChargeRecord,
    EngineOutcome,
    IntervalRecord,
    MeterReading,
    RequestRecord,
    Segment,
    SourceRecord,
    StepFit,
    Tokens,
    TotalRecord,
)
from serving.ledger.store import Ledger

PRICE = 3_000_000_000
PEPPER = b"pepper"
FIT = StepFit(0.001, 2e-6, 3e-10, 4e-9, 500, 0.03)
SEGMENT = Segment("prefill", 1, 8, 2, 44.5, 3, 1 / 3, 5_000_000, 7)


@cache
def _empty() -> bytes:
    """A ledger without rows, as a file: its migrations need not run again for each test."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.db"
        Ledger.open(file).close()
        assert [file] == list(Path(folder).iterdir()), "nothing of it waits in a file beside it"
        return file.read_bytes()


def fresh(file: Path) -> Ledger:
    """A new ledger at `file`, open."""
    file.write_bytes(_empty())
    return Ledger.open(file)


def request(number: int, **changes: Any) -> RequestRecord:
    """A request that went well."""
    row = RequestRecord(f"flo-{number}", "", "demo", "key_1", "qwen", "chat_completions", 200, "finished",
                        100.0 + number, 0.5, True, 0.1, Tokens(10, 4, 5))
    return replace(row, **changes)


def reading(
    source: str = "r1",
    charges: Mapping[str, int | Amounts] | None = None,
    ns: int = NS_PER_HOUR // 10,
    tenant: str = "demo",
    outcome: EngineOutcome = "finished",
    number: int = 1,
    at: float = 20.0,
    compared: Mapping[str, int] | None = None,
    **changes: Any,
) -> MeterReading:
    """Books that add up: what the charges leave of the bill is idle. An amount alone is direct, or waste where the
    request came to nothing; it was last charged `at`. `changes`: of the source's row."""
    given = {"flo-1": 100_000_000, "flo-2": 50_000_000} if charges is None else charges
    price = changes.get("price_nanousd_per_hour", PRICE)
    lost = outcome in ("aborted", "failed")
    split = {name: a if isinstance(a, Amounts) else Amounts(0, a) if lost else Amounts(a) for name, a in given.items()}
    whole = sum(split.values(), Amounts())
    idle = bill(price, ns) - whole.work
    row = SourceRecord(source, "replica", "qwen", "core", "127.0.0.1:1", PRICE, 10.0, 20.0, True, False, ns, 0, ns, 0,
                       0, idle, 0, 0, "step-shapley-fit", "", FIT)
    row = replace(row, **changes)
    interval = IntervalRecord(source, row.started_at, price, ns, row.cold_ns, row.idle_ns, row.busy_ns,
                              row.cold_nanousd, row.idle_nanousd, whole.work, row.overhead_nanousd)
    rows = tuple(ChargeRecord(source, name, tenant, outcome, amounts, Tokens(8, 2, 3), row.method, at,
                              compared=compared or {}, segments=(SEGMENT,)) for name, amounts in split.items())
    count, many = len(rows), Tokens(8 * len(rows), 2 * len(rows), 3 * len(rows))
    more = {name: amount * count for name, amount in (compared or {}).items()}
    total = TotalRecord(source, tenant, whole, count, count * lost, many, more)
    return MeterReading(number, row, (interval,), rows, (total,) if rows and outcome != "running" else ())


def overhead(source: str = "gw", role: str = "gateway", ns: int = NS_PER_HOUR // 4, **changes: Any) -> MeterReading:
    """A reading of what serves no model: all of its time is overhead."""
    own = {"role": role, "model": "", "variant": "", "fit": None, "idle_ns": 0, "idle_nanousd": 0,
           "overhead_nanousd": bill(PRICE, ns)}
    return reading(source, {}, ns, **own | changes)


def rows(ledger: Ledger, table: str) -> list[tuple]:
    """All rows of a table, ordered."""
    with ledger.snapshot() as db:
        return sorted((tuple(row) for row in db.execute(text(f"SELECT * FROM {table}"))), key=repr)


def column(ledger: Ledger, table: str, name: str) -> list[Any]:
    """One column of a table, ordered."""
    with ledger.snapshot() as db:
        return list(db.execute(text(f"SELECT {name} FROM {table} ORDER BY 1")).scalars())


def alter(ledger: Ledger, statement: str) -> None:
    """Tamper with a ledger."""
    with ledger.transaction() as db:
        db.execute(text(statement))
