"""What only the ledger knows, for the page: budgets and what is spent of them, requests that failed, who is starting.

Computed in a thread of its own, however long the ledger takes; the page shows what was known last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from serving.console.snapshot import Budget, Failure, Slow
from serving.fleet.catalogue import Fleet
from serving.fleet.limits import Limit, LimitsSpec, bounds, limits_of
from serving.fleet.specs import TenantSpec
from serving.fleet.tenants import ApiKey
from serving.ledger import budgets, details, keys, sums, tenants
from serving.ledger.store import Ledger

_FAILURES, _FAILED_WITHIN_S = 20, 3600.0
_BUDGETS_S = 30.0  # sums over a month's requests are not for every look


class Facts:
    """Call it in a thread. `clock`: Unix seconds. Raises: LedgerError."""

    def __init__(self, ledger: Ledger, fleet: Fleet, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._fleet, self._clock = ledger, fleet, clock
        self._budgets: tuple[Budget, ...] = ()
        self._budgets_at = float("-inf")

    def __call__(self) -> Slow:
        """All of it now; budgets at most half a minute old."""
        now = self._clock()
        starting: dict[str, int] = {}
        for state in sums.totals(self._ledger, now).replicas:
            if state.alive and not state.record.ready:
                starting[state.model] = starting.get(state.model, 0) + 1
        if now - self._budgets_at >= _BUDGETS_S:
            self._budgets, self._budgets_at = self._spent(now), now
        failed = details.newest(self._ledger, _FAILURES, since=now - _FAILED_WITHIN_S, outcomes=("failed", "rejected"))
        return Slow(starting, self._budgets, tuple(
            Failure(r.request_id, r.started_at, r.tenant, r.model, r.endpoint, r.code, r.outcome) for r in failed))

    def _spent(self, now: float) -> tuple[Budget, ...]:
        found = []
        there = tenants.all_tenants(self._ledger) or self._fleet.tenants
        for limit in money_limits(self._fleet, there, keys.all_keys(self._ledger), now):
            assert limit.period is not None
            begin, end = bounds(limit.period, now)
            spent = budgets.spent(self._ledger, dict(limit.of), begin, end)
            found.append(Budget(limit.whose, limit.period, spent, limit.soft, limit.most if limit.hard else None, end))
        return tuple(found)


def money_limits(fleet: Fleet, there: Mapping[str, TenantSpec], all_keys: list[ApiKey], now: float) -> list[Limit]:
    """Every budget that holds for someone: of tenants, of tenants on a model, of keys, of models."""
    specs: list[tuple[LimitsSpec, str, tuple[tuple[str, str], ...]]] = []
    for tenant, spec in there.items():
        specs.append((spec.limits, tenant, (("tenant", tenant),)))
        specs += [(own, f"{tenant} on {model}", (("tenant", tenant), ("model", model)))
                  for model, own in spec.model_limits.items()]
    specs += [(k.limits, f"key {k.name} of {k.tenant}", (("key", k.key_id),)) for k in all_keys
              if k.usable and not k.expired(now)]
    specs += [(m.limits, f"model {name}", (("model", name),)) for name, m in fleet.models.items()]
    return [limit for spec, whose, of in specs for limit in limits_of(spec, whose, whose, of) if limit.unit == "usd"]
