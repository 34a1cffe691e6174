"""Money of a run: what the traffic cost here and what it would have cost elsewhere. Pure.

Integer nano-USD from the ledger become USD floats only here, at the edge where they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtests.context import Comparator, ModelLedger, Role
from loadtests.records import Record
from loadtests.report.model import ComparatorCost, Cost, CostBasis, RoleCost, Traffic

_NANO = 1e-9


def usd(nanousd: int) -> float:
    return nanousd * _NANO


def traffic(records: Sequence[Record]) -> Traffic:
    """Requests, and tokens of the successful ones as the responses' usage says."""
    good = [record for record in records if record.ok]
    return Traffic(
        requests=len(records),
        errors=len(records) - len(good),
        succeeded=len(good),
        input_tokens=sum(record.prompt_tokens or 0 for record in good),
        cached_input_tokens=sum(record.cached_tokens or 0 for record in good),
        output_tokens=sum(record.completion_tokens or 0 for record in good),
    )


def model_cost(records: Sequence[Record], ledger: ModelLedger | None) -> Cost:
    """Cost of one model's whole run: everything the ledger metered for it, else what the responses said."""
    priced = [record for record in records if record.ok and record.cost_usd is not None]
    charged = sum(record.cost_usd or 0.0 for record in priced)
    charged_each = charged / len(priced) if priced else None
    if ledger is None:
        return _cost("charged" if priced else None, charged, traffic(priced), charged_each)
    return _cost("fully_loaded", usd(ledger.nanousd.total), traffic(records), charged_each)


def mix_cost(costs: Sequence[Cost], whole: Traffic, records: Sequence[Record]) -> Cost:
    """Cost of the mix; no total where its models are not all known on the same basis."""
    bases = {cost.cost_basis for cost in costs}
    basis = bases.pop() if len(bases) == 1 else None
    priced = [record for record in records if record.ok and record.cost_usd is not None]
    charged = sum(record.cost_usd or 0.0 for record in priced)
    covered = whole if basis == "fully_loaded" else traffic(priced)
    total = sum(cost.cost_usd or 0.0 for cost in costs)
    return _cost(basis, total, covered, charged / len(priced) if priced else None)


def comparator_costs(comparators: Sequence[Comparator], whole: Traffic, own: Cost) -> list[ComparatorCost]:
    """The same successful traffic at each comparator's prices; [] without traffic."""
    if not whole.succeeded:
        return []
    costs = [(comparator, api_cost_usd(comparator, whole)) for comparator in comparators]
    return [
        ComparatorCost(
            name=comparator.name,
            role=comparator.role,
            cost_usd=cost,
            cost_per_request_usd=cost / whole.succeeded,
            cost_per_mtok_usd=_per_mtok(cost, whole),
            saving=saving(own, cost),
            input_usd_per_mtok=comparator.input_usd_per_mtok,
            cached_input_usd_per_mtok=comparator.cached_input_usd_per_mtok,
            output_usd_per_mtok=comparator.output_usd_per_mtok,
            batch=comparator.batch,
            token_ratio=comparator.token_ratio,
        )
        for comparator, cost in costs
    ]


def api_cost_usd(comparator: Comparator, tokens: Traffic) -> float:
    """Tokens × prices. Cached input counts at the cached price where there is one."""
    cached_price = comparator.cached_input_usd_per_mtok
    if cached_price is None:
        cached_price = comparator.input_usd_per_mtok
    fresh = tokens.input_tokens - tokens.cached_input_tokens
    per_million = (
        fresh * comparator.input_usd_per_mtok
        + tokens.cached_input_tokens * cached_price
        + tokens.output_tokens * comparator.output_usd_per_mtok
    )
    return per_million / 1e6


def role_costs(by_model: Mapping[str, Sequence[ComparatorCost]], own: Cost) -> dict[Role, RoleCost]:
    """The mix per role; a role appears only if every model with traffic has a comparator in it."""
    cheapest: list[dict[Role, ComparatorCost]] = []
    for comparators in by_model.values():
        best: dict[Role, ComparatorCost] = {}
        for item in comparators:
            if item.role not in best or item.cost_usd < best[item.role].cost_usd:
                best[item.role] = item
        cheapest.append(best)
    if not cheapest:
        return {}
    found: dict[Role, RoleCost] = {}
    for role in cheapest[0]:
        if all(role in best for best in cheapest):
            chosen = [best[role] for best in cheapest]
            cost = sum(item.cost_usd for item in chosen)
            saved = saving(own, cost)
            found[role] = RoleCost(
                cost_usd=cost,
                saving=saved,
                traffic_factor=None if saved is None else 1.0 - saved,
                names=list(dict.fromkeys(item.name for item in chosen)),
            )
    return found


def saving(own: Cost, other_usd: float) -> float | None:
    """1 − own / other: 0.9 is a tenth of the price, below 0 is dearer.

    None unless the own cost is fully loaded: what answers were charged with leaves out what an API price has in it.
    """
    if own.cost_basis != "fully_loaded" or own.cost_usd is None or other_usd <= 0:
        return None
    return 1.0 - own.cost_usd / other_usd


def _cost(basis: CostBasis | None, total: float, covered: Traffic, charged_each: float | None) -> Cost:
    each = total / covered.succeeded if basis and covered.succeeded else None
    return Cost(
        cost_basis=basis,
        cost_usd=total if basis else None,
        cost_per_request_usd=each,
        cost_per_mtok_usd=_per_mtok(total, covered) if basis else None,
        charged_cost_per_request_usd=charged_each,
        fully_loaded_cost_per_request_usd=each if basis == "fully_loaded" else None,
    )


def _per_mtok(cost: float, covered: Traffic) -> float | None:
    tokens = covered.input_tokens + covered.output_tokens
    return cost / tokens * 1e6 if tokens else None
