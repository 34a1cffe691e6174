"""How many replicas a model needs for a traffic within its promises: as many as ever the same, or as load asks for.

Two ways are tried, and the cheaper that keeps the objective is the plan. `fixed`: the least number of replicas that
keep it when they always run. `ours`: the policy of the fleet file between replicas.min and as many as it came to want;
where that misses the objective, with twice as many that always run, and so on. The fixed number is found by halving:
more replicas never keep less, but for chance of where conversations go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from serving.fleet.autoscaling.deciding import Rule
from serving.fleet.autoscaling.signals import Load, Variant
from serving.fleet.slos import Slo
from serving.simulator.evaluation import needed
from serving.simulator.simulate import Outcome, simulate
from serving.simulator.traffic import Traffic, repeated
from serving.simulator.world import Chances, Service

MOST = 1_024  # replicas; more of one model is no plan
LOADS = (0.5, 0.75, 1.0, 1.25, 1.5)
PRICES = (0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Fixed:
    """A rule that wants the least, whatever comes."""

    name = "fixed"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: object,
             now: float) -> tuple[tuple[int, ...], str, object, float | None]:
        """See `deciding.Rule`."""
        return tuple(v.least for v in variants), "steady", own, None


@dataclass(frozen=True)
class Way:
    """One way to serve a model's traffic. least, most: of replicas.min and max. usd: of the whole run."""

    policy: str
    least: int
    most: int
    outcome: Outcome

    @property
    def attainment(self) -> float:
        """Share of requests that kept all promises; those that were never answered did not."""
        total = self.outcome.measures.total
        count = total.requests + self.outcome.unanswered + self.outcome.too_long
        return total.good / count if count else 1.0

    @property
    def usd(self) -> float:
        """What replicas cost."""
        return sum(self.outcome.spent.hours_nanousd.values()) / 1e9


@dataclass(frozen=True)
class Plan:
    """A model's. ways: by policy. chosen: the cheaper of those that keep the objective; None: neither does."""

    service: Service
    traffic: Traffic
    objective: float
    ways: Mapping[str, Way]
    chosen: str | None

    @property
    def way(self) -> Way:
        """The plan, or where no way keeps the objective the one that comes nearest."""
        if self.chosen is not None:
            return self.ways[self.chosen]
        return max(self.ways.values(), key=lambda w: (w.attainment, -w.usd))


def plan(service: Service, traffic: Traffic, rule: Rule, seed: int = 0, say: Callable[[str], None] | None = None
         ) -> Plan:
    """The plan of one model. `rule`: of the way that follows load."""
    objective = service.policy.slo.goodput

    def lived(of: Rule, least: int, most: int) -> Way:
        if say:
            say(f"{service.name}: {of.name}, {least} to {most} replicas")
        return live(service, traffic, of, least, most, seed)

    ways = {}
    fixed = _fewest(lambda n: lived(Fixed(), n, n), max(1, math.ceil(needed(service, traffic))), objective)
    ways["fixed"] = fixed
    least = service.policy.variants[0].least
    most = min(MOST, max(fixed.most * 2, least + 1))
    while least <= fixed.most:
        found = lived(rule, least, most)
        wanted = max((step.wanted for step in found.outcome.steps), default=least)
        ways["ours"] = replace(found, most=max(1, least, wanted))
        if found.attainment >= objective:
            break
        least = max(least * 2, least + 1)
    kept = [name for name, way in ways.items() if way.attainment >= objective]
    return Plan(service, traffic, objective, ways, min(kept, key=lambda n: (ways[n].usd, n)) if kept else None)


def live(service: Service, traffic: Traffic, rule: Rule, least: int, most: int, seed: int = 0) -> Way:
    """The traffic, served by so many replicas."""
    first = replace(service.policy.variants[0], least=least, most=most)
    policy = replace(service.policy, rule=rule, variants=(first, *service.policy.variants[1:]))
    outcome = simulate({service.name: (replace(service, policy=policy), traffic)}, Chances(seed), keep_steps=True)
    return Way("fixed" if isinstance(rule, Fixed) else "ours", least, most, outcome[service.name])


def _fewest(lived: Callable[[int], Way], guess: int, objective: float) -> Way:
    """The way with the fewest replicas that keeps the objective; with `MOST` where none does or more change nothing."""
    above = lived(guess)
    low = 0
    while above.attainment < objective and above.most < MOST:
        low = above.most
        more = lived(min(MOST, above.most * 2))
        if more.attainment <= above.attainment + 1e-3 and more.most >= 4 * guess:
            return above  # what is late is late with any number
        above = more
    while above.most - low > 1:
        middle = lived((low + above.most) // 2)
        if middle.attainment >= objective:
            above = middle
        else:
            low = middle.most
    return above


def sensitivity(of: Plan, rule: Rule, loads: Sequence[float] = LOADS, seed: int = 0) -> list[tuple[float, Way]]:
    """The plan, unchanged, under so many times the load."""
    way = of.way
    by = Fixed() if way.policy == "fixed" else rule
    return [(load, way if load == 1 else live(of.service, repeated(of.traffic, load, seed), by, way.least, way.most,
                                              seed)) for load in loads]
