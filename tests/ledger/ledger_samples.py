"""Rows to put into a ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serving.fleet.money import NS_PER_HOUR, bill
from serving.fleet.records import (
    ChargeRecord,
    MeterReading,
    ReplicaRecord,
    RequestRecord,
    Tokens,
    TotalRecord,
)

PRICE = 3_000_000_000
PEPPER = b"pepper"


def request(number: int, **changes: Any) -> RequestRecord:
    """A request that went well."""
    row = RequestRecord(
        f"flo-{number}",
        "",
        "demo",
        "key_1",
        "qwen",
        "chat_completions",
        200,
        "finished",
        100.0 + number,
        0.5,
        True,
        0.1,
        Tokens(10, 4, 5),
    )
    return replace(row, **changes)


def reading(
    replica: str = "r1",
    charges: dict[str, int] | None = None,
    ns: int = NS_PER_HOUR // 10,
    tenant: str = "demo",
    outcome: str = "finished",
    **changes: Any,
) -> MeterReading:
    """Books that add up: what the charges leave of the bill is idle."""
    charges = {"flo-1": 100_000_000, "flo-2": 50_000_000} if charges is None else charges
    total = bill(PRICE, ns)
    row = ReplicaRecord(
        replica,
        "qwen",
        "core",
        "127.0.0.1:1",
        PRICE,
        10.0,
        20.0,
        True,
        False,
        ns,
        0,
        ns,
        0,
        0,
        total - sum(charges.values()),
        0,
        "test",
    )
    rows = tuple(
        ChargeRecord(replica, name, tenant, outcome, nano, Tokens(8, 2, 3), 20.0)  # type: ignore[arg-type]
        for name, nano in charges.items()
    )
    totals = (TotalRecord(replica, tenant, "direct", sum(charges.values()), len(charges), Tokens(8, 2, 3)),)
    return MeterReading(replace(row, **changes), rows, totals if outcome != "running" else ())
