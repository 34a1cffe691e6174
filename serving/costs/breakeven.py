"""From which utilisation on a model of one's own is cheaper than an API, and whether it can be 90% cheaper at all.

A replica costs P an hour whether it works or not. Full, it answers mu requests a second; busy to the share u of that, a
request costs P * k / (3600 * mu * u), where k carries what the bill has beside replicas. Held against c, what an API
asks for the same request, both are equal at

    u* = P * k / (3600 * mu * c)

and a saving of s needs u* / (1 - s); above 1 there is no such utilisation. mu comes from the fitted step model: with B
requests at once a decode step takes T(B), and a request needs its own part of the prompt's time and as many B-th parts
of T(B) as it has further tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.costs import figures
from serving.fleet.records import StepFit

SAVING = 0.9


@dataclass(frozen=True)
class Shape:
    """The mean request: tokens of the prompt, how many of them came from the cache, and tokens of the answer."""

    prompt: float
    cached: float
    completion: float


def step_seconds(fit: StepFit, batch: int, context: float) -> float:
    """How long a step takes that decodes one token for each of `batch` requests of `context` tokens, seconds."""
    return fit.fixed + batch * (fit.token + (fit.attention + fit.cache) * context)


def prefill_seconds(fit: StepFit, shape: Shape) -> float:
    """What a prompt adds to the steps it is computed in, seconds."""
    fresh = max(0.0, shape.prompt - shape.cached)
    pairs = fresh * (shape.cached + max(0.0, fresh - 1) / 2)
    return fit.token * fresh + fit.attention * pairs + fit.cache * shape.cached


def capacity(fit: StepFit, shape: Shape, max_num_seqs: int) -> float:
    """mu: requests a second that a replica answers with `max_num_seqs` of them at once.

    Raises: ValueError where the shape has no tokens or the fit knows no time.
    """
    context = shape.prompt + max(0.0, shape.completion - 1) / 2
    decodes = max(0.0, shape.completion - 1)
    needed = prefill_seconds(fit, shape) + decodes * step_seconds(fit, max_num_seqs, context) / max_num_seqs
    if not decodes:
        needed += fit.fixed / max_num_seqs  # no decode step carries the prompt along
    if needed <= 0:
        raise ValueError("a request without tokens, or a step model without times, has no capacity")
    return 1 / needed


def breakeven(price_usd_per_hour: float, overhead: float, capacity_per_s: float, api_usd: float) -> float | None:
    """u*: the utilisation at which a request costs what it costs at the API; above 1: never. None: the API is free.

    `overhead`: k, the bill over the replicas' bill. `api_usd`: mean cost of a request there.
    """
    return price_usd_per_hour * overhead / (3600 * capacity_per_s * api_usd) if api_usd > 0 else None


@dataclass(frozen=True)
class Against:
    """One comparator: what a request costs there, and the utilisations that matter. None where there is none."""

    name: str
    role: str
    usd_per_request: float
    breakeven: float | None
    for_saving: float | None
    saving_now: float | None

    @property
    def possible(self) -> bool:
        """Whether it can be beaten at all."""
        return self.breakeven is not None and self.breakeven <= 1

    @property
    def saving_possible(self) -> bool:
        """Whether the saving can be had at all."""
        return self.for_saving is not None and self.for_saving <= 1


@dataclass(frozen=True)
class BreakEven:
    """A model's replica: what it costs, what it could do, what it does.

    `price_usd_per_hour`: of a replica, mean over the time looked at. `overhead`: k. `capacity_per_s`: mu.
    `requests_per_s`: of a replica, over all of its time. `utilisation`: u.
    """

    model: str
    price_usd_per_hour: float
    overhead: float
    capacity_per_s: float
    requests_per_s: float
    against: tuple[Against, ...]
    saving: float = SAVING

    @property
    def utilisation(self) -> float:
        """u: what a replica does over what it could do."""
        return self.requests_per_s / self.capacity_per_s

    def usd_at(self, utilisation: float) -> float:
        """What a request costs at a utilisation, USD: the fully loaded basis."""
        return self.price_usd_per_hour * self.overhead / (3600 * self.capacity_per_s * utilisation)


def break_even(model: str, price_usd_per_hour: float, overhead: float, capacity_per_s: float, requests_per_s: float,
               api_usd: Mapping[str, float], roles: Mapping[str, str], saving: float = SAVING) -> BreakEven:
    """Hold a replica against every API. `api_usd`: mean cost of a request by comparator; `roles`: what each shows."""
    bare = BreakEven(model, price_usd_per_hour, overhead, capacity_per_s, requests_per_s, (), saving)
    now = bare.usd_at(bare.utilisation) if requests_per_s > 0 else None
    order = list(figures.ROLES)
    found = []
    for name, cost in api_usd.items():
        equal = breakeven(price_usd_per_hour, overhead, capacity_per_s, cost)
        needed = equal / (1 - saving) if equal is not None else None
        found.append(Against(name, roles.get(name, ""), cost, equal, needed, figures.saving(now, cost)))
    found.sort(key=lambda a: (order.index(a.role) if a.role in order else len(order), a.name))
    return BreakEven(model, price_usd_per_hour, overhead, capacity_per_s, requests_per_s, tuple(found), saving)
