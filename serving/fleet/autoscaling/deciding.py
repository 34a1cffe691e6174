"""The one call: a rule's wish, bounded by what the fleet file allows and by what must never happen by accident."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from serving.fleet.autoscaling.signals import Decision, Load, State, Variant
from serving.fleet.autoscaling.spec import Hours
from serving.fleet.slos import Slo

Replicas = tuple[int, ...]


class Rule(Protocol):
    """What wants replicas: one of the sibling modules."""

    @property
    def name(self) -> str: ...

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: Replicas, own: Any,
             now: float) -> tuple[Replicas, str, Any, float | None]:
        """(replicas by variant, reason, what to remember, replicas' worth of work where the rule knows it)."""
        ...


@dataclass(frozen=True)
class Policy:
    """All that a decision about one model needs to know beforehand.

    zero_after_s: how long no one must have asked before a model whose least is zero goes there. stale_s: age from which
    a measurement is none. spares: replicas beyond what is needed. hours: least numbers by time of the week.
    """

    rule: Rule
    variants: tuple[Variant, ...]
    slo: Slo
    zero_after_s: float = 300.0
    stale_s: float = 60.0
    spares: int = 0
    hours: tuple[Hours, ...] = ()

    def begin(self) -> State:
        """Before the first decision: the least."""
        return State(tuple(v.least for v in self.variants))


def decide(load: Load | None, policy: Policy, state: State, now: float) -> Decision:
    """How many replicas there should be now. Pure: the same four give the same answer.

    A missing or old measurement changes nothing. A model goes to zero only when a fresh one says that nobody is there
    and nobody has been for `zero_after_s`; it wakes as soon as anyone waits.
    """
    if load is None or now - load.at_s > policy.stale_s:
        return Decision(state.target, "stale", state)
    wanted, reason, own, needed = policy.rule.want(load, policy.variants, policy.slo, state.target, state.own, now)
    used = state.used_at_s
    if load.ongoing > 0 or used is None or load.arrived > (state.arrived or 0):
        used = now
    wanted, reason = _woken(wanted, reason, load, policy, used, now, state.target)
    wanted, reason = _bounded(wanted, reason, policy, now)
    if wanted == state.target and reason not in ("stale", "minimum", "maximum", "schedule"):
        reason = "steady"
    return Decision(wanted, reason, State(wanted, own, used, load.arrived), needed)


def _woken(wanted: Replicas, reason: str, load: Load, policy: Policy, used: float, now: float,
           target: Replicas) -> tuple[Replicas, str]:
    """From zero and to zero."""
    if sum(v.least for v in policy.variants) > 0:
        return (wanted, reason) if sum(wanted) else (tuple(v.least for v in policy.variants), "minimum")
    if load.ongoing > 0 and sum(wanted) == 0:
        return _one(policy.variants), "wake"
    if sum(wanted) == 0 and sum(target) > 0 and now - used < policy.zero_after_s:
        return _one_of(target), "less_demand" if sum(target) > 1 else "steady"
    if sum(wanted) <= 1 and load.ongoing == 0 and now - used >= policy.zero_after_s:
        return (0,) * len(wanted), "to_zero"
    return wanted, "wake" if sum(target) == 0 and sum(wanted) > 0 else reason


def _one(variants: tuple[Variant, ...]) -> Replicas:
    """One replica of whichever is ready first, of those the cheapest."""
    best = min((i for i, v in enumerate(variants) if v.most > 0),
               key=lambda i: (variants[i].start_s + variants[i].node_s, variants[i].price))
    return tuple(int(i == best) for i in range(len(variants)))


def _one_of(target: Replicas) -> Replicas:
    kept = next(i for i, n in enumerate(target) if n)
    return tuple(int(i == kept) for i in range(len(target)))


def _bounded(wanted: Replicas, reason: str, policy: Policy, now: float) -> tuple[Replicas, str]:
    """Spares, hours, least and most."""
    found = list(wanted)
    if policy.spares and sum(found):
        found[_cheapest_free(found, policy.variants)] += policy.spares
        reason = "spare" if reason == "steady" else reason
    floor = max((h.least for h in policy.hours if h.holds(now)), default=0)
    if sum(found) < floor:
        found[_cheapest_free(found, policy.variants)] += floor - sum(found)
        reason = "schedule"
    for i, v in enumerate(policy.variants):
        if found[i] > v.most:
            found[i], reason = v.most, "maximum"
        elif found[i] < v.least:
            found[i], reason = v.least, "minimum"
    return tuple(found), reason


def _cheapest_free(found: list[int], variants: tuple[Variant, ...]) -> int:
    free = [i for i, v in enumerate(variants) if found[i] < v.most] or list(range(len(variants)))
    return min(free, key=lambda i: variants[i].price)


@dataclass(frozen=True)
class Claim:
    """One model before the fleet's purse. priority: higher first; value: USD that an hour of a replica is worth."""

    decision: Decision
    variants: tuple[Variant, ...]
    cap: int | None  # nano-USD per hour
    priority: int = 0
    value: float = 0.0


def within(claims: dict[str, Claim], cap: int | None) -> dict[str, Decision]:
    """The same decisions within caps per model and for the fleet, nano-USD per hour. Least numbers are always kept;
    beyond them models are served by priority, then by value per dollar, then by name, one replica at a time."""
    found = {name: [min(v.least, n) for v, n in zip(c.variants, c.decision.replicas, strict=True)]
             for name, c in claims.items()}
    spent = {name: _bill(found[name], c.variants) for name, c in claims.items()}
    left = None if cap is None else cap - sum(spent.values())
    for name in sorted(claims, key=lambda n: (-claims[n].priority, -claims[n].value, n)):
        c = claims[name]
        for v in sorted(range(len(c.variants)), key=lambda i: c.variants[i].price):
            while found[name][v] < c.decision.replicas[v]:
                price = c.variants[v].price
                if (c.cap is not None and spent[name] + price > c.cap) or (left is not None and price > left):
                    break
                found[name][v] += 1
                spent[name] += price
                left = None if left is None else left - price
    return {name: c.decision if tuple(found[name]) == c.decision.replicas else
            replace(c.decision, replicas=tuple(found[name]), reason="cost_cap",
                    state=replace(c.decision.state, target=tuple(found[name]))) for name, c in claims.items()}


def _bill(replicas: list[int], variants: tuple[Variant, ...]) -> int:
    return sum(n * v.price for n, v in zip(replicas, variants, strict=True))
