"""Budgets as samples of the metric table: how much there is, how much is spent, when it begins anew.

Those of tenants, of models, and of tenants on one model; a key's own are its owner's matter (`flotilla keys`). What is
spent is what limits go by: what requests that have ended were charged with. May not happen in here: deciding anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from serving.fleet.limits import Limit, LimitsSpec, Period, bounds, limits_of
from serving.fleet.money import usd
from serving.fleet.specs import TenantSpec
from serving.ledger import budgets, tenants
from serving.ledger.store import Ledger
from serving.telemetry.exporter import Sample

Spent = Mapping[tuple[str, str], int]  # nano-USD by tenant and model


def money(found: Mapping[str, TenantSpec], models: Mapping[str, LimitsSpec]) -> Iterator[Limit]:
    """The budgets among the limits of tenants and models."""
    scopes: list[tuple[LimitsSpec, tuple[tuple[str, str], ...]]] = []
    for tenant, spec in found.items():
        scopes.append((spec.limits, (("tenant", tenant),)))
        scopes += [(own, (("tenant", tenant), ("model", model))) for model, own in spec.model_limits.items()]
    scopes += [(spec, (("model", model),)) for model, spec in models.items()]
    for limits, of in scopes:
        yield from (limit for limit in limits_of(limits, "", "", of) if limit.unit == "usd")


def samples(limits: Iterable[Limit], spent: Callable[[Period], Spent], now: float) -> Iterator[Sample]:
    """`spent`: of the day or month of `now`, Unix seconds."""
    for limit in limits:
        assert limit.period is not None
        of = dict(limit.of)
        tenant, model = of.get("tenant", ""), of.get("model", "")
        labels = model, tenant, limit.period
        for mark, most in (("hard", limit.most if limit.hard else None), ("soft", limit.soft)):
            if most is not None:
                yield Sample("flotilla_budget_usd", (*labels, mark), usd(most))
        used = sum(amount for (whose, where), amount in spent(limit.period).items()
                   if tenant in ("", whose) and model in ("", where))
        yield Sample("flotilla_budget_spent_usd", labels, usd(used))
        yield Sample("flotilla_budget_end_timestamp_seconds", labels, bounds(limit.period, now)[1])


class Budgets:
    """What a scrape asks. `models`: the limits of each model. `clock`: Unix seconds."""

    def __init__(self, ledger: Ledger, models: Mapping[str, LimitsSpec], clock: Callable[[], float]) -> None:
        self._ledger, self._models, self._clock = ledger, models, clock

    def __call__(self) -> list[Sample]:
        """All samples; the ledger is asked once for each kind of period that has a budget. Raises: LedgerError."""
        now, known = self._clock(), dict[Period, Spent]()

        def spent(period: Period) -> Spent:
            if period not in known:
                known[period] = budgets.spent_by(self._ledger, *bounds(period, now))
            return known[period]

        return list(samples(money(tenants.all_tenants(self._ledger), self._models), spent, now))
