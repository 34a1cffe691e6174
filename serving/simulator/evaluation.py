"""Policies beside each other on traces: each tuned on a trace's first half, and told on its second.

A policy's setting is the one that took the fewest GPU-hours in the first half among those that kept the objective (the
share of requests that keep all promises); where none did, the one that came nearest. Where none of the others did in
the first half, ours is tuned to what the best of them kept there: more would be dearer, and no comparison. The second
half is lived through
once per policy with that setting, by one that has seen nothing of it. Saved is what ours took less than the cheapest of
the others that kept the objective there.

Equal attainment is made, not hoped for: where ours kept less than that other one, ours takes the next dearer settings
of the first half until it keeps as much, and their GPU-hours count. That can only make ours dearer.

How much could be saved at all is told by one that knows the second half beforehand (`foresight`), of whose plans the
cheapest that keeps as much as the best other is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np

from serving.fleet.autoscaling.capacity import Mix, capacity
from serving.fleet.autoscaling.deciding import Rule
from serving.fleet.autoscaling.hpa import Hpa
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.slo import SloRule
from serving.simulator import foresight
from serving.simulator.simulate import simulate
from serving.simulator.traffic import Traffic, traffic, whole
from serving.simulator.world import Chances, Service

OURS = "ours"
LEAD_S = 300.0  # of each half, lived through before anything is counted


@dataclass(frozen=True)
class Case:
    """A trace and the model that is asked. copies: how often each of the trace's requests comes."""

    name: str
    service: Service
    traffic: Traffic
    copies: int
    source: str


@dataclass(frozen=True)
class Result:
    """A half under one setting."""

    rule: Rule
    attainment: float
    gpu_hours: float
    usd: float
    requests: int
    replicas_most: int

    @property
    def setting(self) -> dict[str, Any]:
        """The rule's parameters."""
        return {f.name: getattr(self.rule, f.name) for f in fields(self.rule) if f.repr}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Judged:
    """What came of a policy on a trace. tuned: its best in the first half; told: the same setting in the second."""

    policy: str
    tuned: Result
    told: Result
    tried: tuple[Result, ...]


def copies_for(service: Service, asked: Traffic, replicas: float) -> int:
    """How often each request must come so that the model needs about so many replicas on the mean."""
    return max(1, round(replicas / needed(service, asked)))


def needed(service: Service, asked: Traffic) -> float:
    """Replicas that the whole traffic needs on the mean, by the capacity model, nothing cached."""
    requests = whole(asked)
    prompt, output = requests.prompt.astype(float), requests.output.astype(float)
    mix = Mix(float(prompt.mean()), float(prompt.mean()), float((prompt * prompt).mean()), float(output.mean()))
    one = capacity(service.policy.variants[0], mix, service.policy.slo).per_s
    return len(prompt) / asked.length_s / one


def spikes(length_s: float, rate: float, seed: int) -> Traffic:
    """Made: a slow wave with spikes of two to five times the traffic for one to six minutes, at no regular times, and
    stretches in which prompts are three times as long. Requests per second on the mean: about 1.4 times `rate`."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 77]))
    at_s = np.arange(0.0, length_s)
    wanted = rate * (1 + 0.4 * np.sin(2 * np.pi * at_s / 5_400))
    at = float(rng.exponential(400))
    while at < length_s:
        end = at + float(rng.uniform(60, 360))
        wanted[(at_s >= at) & (at_s < end)] *= float(rng.uniform(2, 5))
        at = end + float(rng.exponential(700))
    longer = np.ones(len(at_s))
    at = float(rng.exponential(900))
    while at < length_s:
        end = at + float(rng.uniform(300, 900))
        longer[(at_s >= at) & (at_s < end)] = 3.0
        at = end + float(rng.exponential(900))
    counts = rng.poisson(wanted)
    arrived = np.repeat(at_s, counts) + rng.uniform(0, 1, int(counts.sum()))
    prompt = np.clip(rng.lognormal(6.3, 0.8, len(arrived)) * np.repeat(longer, counts), 1, 16_000)
    output = np.clip(rng.lognormal(4.7, 0.8, len(arrived)), 1, 1_500)
    return traffic(arrived, prompt.astype(np.int64), output.astype(np.int64), length_s)


def halves(case: Case) -> tuple[Traffic, Traffic]:
    """The first half, and the second with a lead-in that is the first one's end."""
    middle = case.traffic.length_s / 2
    lead = min(LEAD_S, middle / 4)
    return case.traffic.between(0.0, middle), case.traffic.between(middle - lead, case.traffic.length_s)


def lived(case: Case, traffic: Traffic, rule: Rule, seed: int) -> Result:
    """One half under one rule, begun with as many replicas as the whole trace needs on the mean."""
    service = case.service
    policy = replace(service.policy, rule=rule)
    first = policy.variants[0]
    begin = min(first.most, max(1, first.least, math.ceil(needed(service, case.traffic))))
    outcome = simulate({"m": (replace(service, policy=policy), traffic)}, Chances(seed),
                       begin_with={"m": (begin, *(v.least for v in policy.variants[1:]))},
                       counted_from_s=min(LEAD_S, case.traffic.length_s / 8))["m"]
    spent = outcome.spent
    return Result(rule, outcome.measures.total.attainment, spent.gpu_s / 3_600,
                  sum(spent.hours_nanousd.values()) / 1e9, outcome.measures.total.requests, spent.most)


def rules(seats: int, quick: bool = False) -> dict[str, tuple[Rule, ...]]:
    """The settings that are tried, by policy. `seats`: of one replica; targets of requests follow it. Of ours no more
    than of the others together."""
    targets = [max(1.0, round(seats * share)) for share in (0.0625, 0.125, 0.25, 0.5)]
    delays = ((30.0, 600.0),) if quick else ((30.0, 600.0), (30.0, 300.0), (30.0, 60.0), (5.0, 300.0))
    waits = (300.0,) if quick else (60.0, 300.0)
    fills = (0.35, 0.5, 0.65, 0.8, 1.0)
    memories = ((900.0, 0.3),) if quick else ((0.0, 1.0), (900.0, 0.3), (900.0, 1.0), (1_800.0, 0.3))
    return {
        OURS: tuple(SloRule(margin=1.0, fill=fill, growth=0.0 if memory else 0.5, remember_s=memory, follow=follow,
                            crowd=crowd)
                    for fill, (memory, follow), crowd in product(fills, memories, (0.0, 1.0))),
        "ray-default": tuple(RayDefault(target, up, down) for target, (up, down) in product(targets, delays)),
        "queue": (*(Queue(waiting, wait) for waiting, wait in product((1.0, 5.0, 20.0), waits)),
                  *(Queue(target, wait, True) for target, wait in product(targets, waits))),
        "hpa": (*(Hpa(share, "busy", wait) for share, wait in product((0.5, 0.7, 0.8, 0.9), waits)),
                *(Hpa(share, "cache", wait) for share, wait in product((0.3, 0.5, 0.7), waits))),
    }


@dataclass(frozen=True)
class Verdict:
    """A trace's. best: the cheapest of the others that kept the objective (or the one nearest to it). against: ours at
    equal or better attainment than each of the others, None: no setting of ours keeps as much. foreseen: who knows the
    second half beforehand, at equal or better attainment than the best; None: no plan keeps as much."""

    judged: Mapping[str, Judged]
    best: str
    against: Mapping[str, Result | None]
    foreseen: Result | None = None

    @property
    def matched(self) -> Result | None:
        """Ours at equal or better attainment than the best other."""
        return self.against[self.best]

    @property
    def saved(self) -> float | None:
        """Share of the best other's GPU-hours that ours did without."""
        return self._saved(self.matched)

    @property
    def saved_at_most(self) -> float | None:
        """The same by who knows the second half beforehand."""
        return self._saved(self.foreseen)

    def _saved(self, by: Result | None) -> float | None:
        return None if by is None else 1 - by.gpu_hours / self.judged[self.best].told.gpu_hours


def judge(case: Case, policies: Mapping[str, Sequence[Rule]], objective: float, seed: int,
          say: Callable[[str], None] | None = None) -> Verdict:
    """All policies on one trace."""
    first, second = halves(case)
    tried: dict[str, list[Result]] = {}
    for name, tries in policies.items():
        tried[name] = []
        for rule in tries:
            tried[name].append(lived(case, first, rule, seed))
            if say:
                say(f"{case.name}: {name}: {len(tried[name])} of {len(tries)}")
    tuned = {name: chosen(results, objective) for name, results in tried.items() if name != OURS}
    tuned[OURS] = chosen(tried[OURS], min(objective, max(one.attainment for one in tuned.values())))
    found = {name: Judged(name, tuned[name], lived(case, second, tuned[name].rule, seed), tuple(results))
             for name, results in tried.items()}
    others = {name: one.told for name, one in found.items() if name != OURS}
    best = chosen(tuple(others.values()), objective)
    return Verdict(found, next(n for n, told in others.items() if told is best), {
        n: _matched(case, second, found[OURS], told.attainment, seed) for n, told in others.items()},
        _foreseen(case, second, best.attainment, seed))


def _foreseen(case: Case, second: Traffic, wanted: float, seed: int) -> Result | None:
    """The cheapest plan of one who knows the second half that keeps as much as wanted."""
    policy = case.service.policy
    variant = policy.variants[0]
    lives = [lived(case, second, plan, seed) for plan in foresight.plans(second, variant, policy.slo)]
    low, high = 0, variant.most
    while low < high:  # the fewest that are always there
        always = (low + high) // 2
        lives.append(lived(case, second, foresight.always(max(1, always)), seed))
        low, high = (low, always) if lives[-1].attainment >= wanted else (always + 1, high)
    return min((r for r in lives if r.attainment >= wanted), key=lambda r: r.gpu_hours, default=None)


def _matched(case: Case, second: Traffic, ours: Judged, wanted: float, seed: int) -> Result | None:
    """Ours in the second half with as much kept as wanted, by the next dearer settings of the first half."""
    if ours.told.attainment >= wanted:
        return ours.told
    kept = ours.tuned.attainment
    for tried in sorted(ours.tried, key=lambda r: (r.gpu_hours, -r.attainment)):
        if tried.gpu_hours < ours.tuned.gpu_hours or tried.attainment <= kept:
            continue
        kept = tried.attainment
        told = lived(case, second, tried.rule, seed)
        if told.attainment >= wanted:
            return told
    return None


def chosen(tried: Sequence[Result], objective: float) -> Result:
    """The cheapest that keeps the objective, or the one that comes nearest."""
    kept = [r for r in tried if r.attainment >= objective]
    if kept:
        return min(kept, key=lambda r: (r.gpu_hours, -r.attainment))
    return max(tried, key=lambda r: (r.attainment, -r.gpu_hours))


def summary(verdicts: Mapping[str, Verdict], goal: float = 0.3) -> dict[str, Any]:
    """GPU-hours saved over all traces together and for each. A trace on which no setting of ours keeps as much as the
    best other counts with what ours took."""
    ours = {n: (v.matched or v.judged[OURS].told).gpu_hours for n, v in verdicts.items()}
    other = {n: v.judged[v.best].told.gpu_hours for n, v in verdicts.items()}
    saved = 1 - sum(ours.values()) / sum(other.values()) if other else None
    equal = all(v.matched is not None for v in verdicts.values())
    names = [n for n in next(iter(verdicts.values())).judged if n != OURS] if verdicts else []
    known = [n for n, v in verdicts.items() if v.foreseen is not None]
    least = sum(verdicts[n].foreseen.gpu_hours for n in known)  # type: ignore[union-attr]
    return {"gpu_hours_saved": saved, "at_equal_or_better_attainment": equal, "goal": goal,
            "reached": saved is not None and equal and saved >= goal,
            "gpu_hours_saved_by_trace": {n: v.saved for n, v in verdicts.items()},
            "against": {name: _against(verdicts, name) for name in names},
            "foreseen": {"gpu_hours_saved": 1 - least / sum(other[n] for n in known) if known else None,
                         "gpu_hours": least, "by_trace": {n: v.saved_at_most for n, v in verdicts.items()}},
            "gpu_hours": {"ours": sum(ours.values()), "best_default": sum(other.values())}}


def _against(verdicts: Mapping[str, Verdict], name: str) -> dict[str, Any]:
    """The same against one of the others alone."""
    ours = sum((v.against[name] or v.judged[OURS].told).gpu_hours for v in verdicts.values())
    other = sum(v.judged[name].told.gpu_hours for v in verdicts.values())
    return {"gpu_hours_saved": 1 - ours / other, "gpu_hours": {"ours": ours, "other": other},
            "at_equal_or_better_attainment": all(v.against[name] is not None for v in verdicts.values())}
