"""The clock of a simulated fleet: every few seconds each model's policy is asked, as Ray Serve's controller asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from serving.fleet.autoscaling import Decision, Load, decide
from serving.fleet.autoscaling.deciding import Claim, within
from serving.fleet.autoscaling.signals import State
from serving.fleet.loading import LoadingPolicy
from serving.simulator.books import Money
from serving.simulator.measures import Measures
from serving.simulator.traffic import Traffic
from serving.simulator.world import Chances, Service, Spent, World

_BOOK_EVERY_S = 60.0
CALM = Chances()
_LAST_S = 3_600.0  # after the last arrival; whoever is not answered by then never will be


@dataclass(frozen=True)
class Purse:
    """Who gets replicas when money is short. cap: nano-USD per hour, None: no limit."""

    cap: int | None = None
    model_cap: int | None = None
    priority: int = 0
    value: float = 0.0


@dataclass(frozen=True)
class Step:
    """One decision, for the log: seconds, replicas wanted, ready, why."""

    at_s: float
    wanted: int
    ready: int
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of one model."""

    measures: Measures
    spent: Spent
    money: Money
    too_long: int
    steps: tuple[Step, ...]
    length_s: float
    unanswered: int


def simulate(services: Mapping[str, tuple[Service, Traffic]], chances: Chances = CALM,
             purses: Mapping[str, Purse] | None = None, fleet_cap: int | None = None, unix_s: float = 0.0,
             tick_s: float = 5.0, loading: LoadingPolicy | None = None, keep_steps: bool = False,
             say: Callable[[float], None] | None = None, begin_with: Mapping[str, tuple[int, ...]] | None = None,
             counted_from_s: float = 0.0) -> dict[str, Outcome]:
    """Run a fleet's models through their traffic. Deterministic: the same arguments give the same outcome. The least
    replicas are ready at its beginning, or those of `begin_with`, by variant.

    `loading`: how idle time is charged; None leaves the books out (replica time is counted all the same). `unix_s`: the
    moment at which the run begins. `tick_s`: between decisions. `say` is told the time every simulated minute.
    `counted_from_s`: what comes before is lived through, and neither measured nor paid.
    """
    purses = purses or {}
    worlds = {n: World(service, traffic, chances, unix_s, loading, counted_from_s)
              for n, (service, traffic) in services.items()}
    states = {n: State(begin_with[n]) if begin_with and n in begin_with else service.policy.begin()
              for n, (service, _) in services.items()}
    steps: dict[str, list[Step]] = {n: [] for n in services}
    capped = fleet_cap is not None or any(p.model_cap is not None for p in purses.values())
    for n, world in worlds.items():
        world.begin(states[n].target)
    length = max(traffic.length_s for _, traffic in services.values())
    now, tick, booked = 0.0, 0, 0.0
    while now < length or (any(w.under_way for w in worlds.values()) and now < length + _LAST_S):
        tick += 1
        now = tick * tick_s
        decisions: dict[str, Decision] = {}
        for n, world in worlds.items():
            world.advance(now)
            decisions[n] = decide(_shifted(world, unix_s), services[n][0].policy, states[n], unix_s + now)
        if capped:
            decisions = within({n: _claim(decisions[n], services[n][0], purses.get(n, Purse())) for n in decisions},
                               fleet_cap)
        for n, decision in decisions.items():
            states[n] = decision.state
            worlds[n].scale(decision.replicas)
            _note(worlds[n].spent, decision, steps[n] if keep_steps else None, now, worlds[n])
        if now - booked >= _BOOK_EVERY_S:
            booked = now
            for world in worlds.values():
                world.book()
            if say:
                say(now)
    found = {}
    for n, world in worlds.items():
        left = world.unanswered
        world.close()
        found[n] = Outcome(world.measures, world.spent, world.money, world.too_long, tuple(steps[n]), length, left)
    return found


def _shifted(world: World, unix_s: float) -> Load:
    load = world.load()
    return replace(load, at_s=unix_s + load.at_s)


def _claim(decision: Decision, service: Service, purse: Purse) -> Claim:
    return Claim(decision, service.policy.variants, purse.model_cap, purse.priority, purse.value)


def _note(spent: Spent, decision: Decision, steps: list[Step] | None, now: float, world: World) -> None:
    spent.reasons[decision.reason] = spent.reasons.get(decision.reason, 0) + 1
    if steps is not None and (not steps or steps[-1].wanted != decision.total or steps[-1].reason != decision.reason
                              or now - steps[-1].at_s >= 60):
        steps.append(Step(now, decision.total, world.ready, decision.reason))


def total_of(outcomes: Sequence[Outcome]) -> float:
    """GPU-hours of all models."""
    return sum(o.spent.gpu_s for o in outcomes) / 3_600
