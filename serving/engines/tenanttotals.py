"""Sums over a replica's ended requests by tenant, which outlive the requests: what counters are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from serving.fleet.records import Amounts, ChargeRecord, Tokens, TotalRecord


class TenantTotals:
    """The sums of one replica."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._sums: dict[str, TotalRecord] = {}
        self._changed: set[str] = set()

    def book(self, charge: ChargeRecord, before: TotalRecord | None) -> TotalRecord:
        """Count an ended request; `before`: what was counted of it already, so that only what is new is added.

        Returns: what is counted of it now.
        """
        nothing = TotalRecord(self._source_id, charge.tenant, Amounts(), 0, 0, Tokens())
        old = before or nothing
        unfinished = int(charge.outcome in ("aborted", "failed"))
        new = TotalRecord(self._source_id, charge.tenant, charge.amounts, 1, unfinished, charge.tokens, charge.compared)
        total = self._sums.get(charge.tenant, nothing)
        compared = {name: total.compared.get(name, 0) + new.compared.get(name, 0) - old.compared.get(name, 0)
                    for name in {*total.compared, *new.compared}}
        self._sums[charge.tenant] = replace(
            total,
            amounts=total.amounts + new.amounts - old.amounts,
            requests=total.requests + new.requests - old.requests,
            unfinished=total.unfinished + new.unfinished - old.unfinished,
            tokens=total.tokens + new.tokens - old.tokens,
            compared=compared,
        )
        self._changed.add(charge.tenant)
        return new

    def changes(self) -> tuple[TotalRecord, ...]:
        """Sums that have grown since the last call."""
        found = tuple(self._sums[tenant] for tenant in self._changed)
        self._changed.clear()
        return found

    def again(self, lost: Iterable[TotalRecord]) -> None:
        """These could not be written: they count as changed."""
        self._changed.update(total.tenant for total in lost)
