"""What requests cost for which no row could be kept: one sum per tenant, so that the books still add up."""

from __future__ import annotations

from dataclasses import replace

from serving.fleet.records import ChargeRecord

PREFIX = "unmetered:"  # of these rows' request ids


class Unmetered:
    """The sums of one replica."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._sums: dict[str, ChargeRecord] = {}
        self._changed = False
        self.requests = 0

    def add(self, charge: ChargeRecord) -> None:
        """A request that is over, instead of its own row."""
        self.requests += 1
        self._changed = True
        old = self._sums.get(charge.tenant)
        if old is None:
            row = replace(charge, request_id=f"{PREFIX}{self._source_id}:{charge.tenant}", segments=())
        else:
            compared = {name: old.compared.get(name, 0) + charge.compared.get(name, 0)
                        for name in {*old.compared, *charge.compared}}
            row = replace(
                old, amounts=old.amounts + charge.amounts, tokens=old.tokens + charge.tokens,
                updated_at=charge.updated_at, preemptions=old.preemptions + charge.preemptions,
                recomputed=old.recomputed + charge.recomputed, rejected=old.rejected + charge.rejected,
                compared=compared,
            )
        self._sums[charge.tenant] = replace(row, outcome="finished")

    def rows(self, now: float) -> list[ChargeRecord]:
        """The sums that a reading must hold: all of them once any has changed."""
        if not self._changed:
            return []
        self._changed = False
        return [replace(row, updated_at=now) for row in self._sums.values()]

    def again(self) -> None:
        """A reading with these sums could not be written."""
        self._changed = bool(self._sums)
