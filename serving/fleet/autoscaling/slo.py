"""Our rule: as many replicas as the promises need for the work that is expected by the time a new one could be ready.

Demand is the rate of arrivals, its growth carried on for as long as a start takes, and what the rate's own chance may
add (square-root staffing: many small bursts even out in a large fleet, so that it needs a smaller margin). What a
replica takes follows from its step model and the mix of requests that has been answered lately (`capacity`). Fewer
replicas only once fewer have been enough for as long as a start takes: before that, ending one costs more than keeping.

Bursts that are over before a new replica could be ready cannot be answered by starting one. With `remember_s` the rule
keeps what the last while's demand needs, but for the share of requests that may be late (`slo.goodput`); `follow` says
how much of a burst beyond that is followed at once. `correct` makes it leaner while fewer requests are late than may
be, and richer while more are.

What requests are like is known from those that were answered, which is late where they change; how many are at once is
known now. `crowd` takes as many replicas as have those at once at their capacity, where that is more than by the rate.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Any

from serving.fleet.autoscaling.capacity import Capacity, Mix, capacity
from serving.fleet.autoscaling.cheapest import cheapest
from serving.fleet.autoscaling.signals import Load, Sums, Variant
from serving.fleet.slos import Slo

_FADES_S = 600.0  # after which a late answer counts a third
_BEFORE_ANYTHING = Mix(1_000.0, 1_000.0, 2e6, 200.0)  # of a model that has not answered yet


@dataclass(frozen=True)
class SloRule:
    """margin: standard deviations of chance that replicas are kept for. fill: share of the modelled capacity that is
    planned with. hold: how many starts' time fewer must have been enough. window_s: over which the rate is taken.
    growth: share of a rise that is carried on; 0: none. remember_s: how long demand is remembered; 0: the rate of now
    only. follow: share of what is beyond the remembered that is followed at once. correct: by how much at most demand
    is taken as less while nobody is late (twice that as more, while many are); 0: never. crowd: share of the requests
    at once that count as demand of their own; 0: none."""

    margin: float = 2.0
    fill: float = 0.9
    hold: float = 1.0
    window_s: float = 30.0
    growth: float = 0.5
    mix_s: float = 300.0
    remember_s: float = 0.0
    follow: float = 1.0
    correct: float = 0.0
    crowd: float = 0.0

    name = "slo"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """(replicas by variant, reason, what to remember, replicas' worth of work)."""
        seen: _Seen = own or _Seen(since_s=now)
        seen = seen.with_(load, max(self.mix_s, self.remember_s) + 2 * self.window_s)
        mix = seen.mix(self.mix_s) or _BEFORE_ANYTHING
        each = [capacity(v, mix, slo) for v in variants]
        main = max(range(len(each)), key=lambda i: each[i].per_s)
        start = min(v.start_s + v.node_s for v in variants)
        rate, reason = self._expected(seen, load, each[main], start, slo, mix)
        rate = _with_chance(rate, each[main], self.margin) * self._correction(seen, slo)
        rate = max(rate, self.crowd * load.ongoing * each[main].per_s / max(1.0, each[main].at_once))
        limits = [v.least for v in variants], [v.most for v in variants]
        wanted = cheapest(rate, [c.per_s * self.fill for c in each], [v.price for v in variants], *limits)
        worth = rate / (each[main].per_s * self.fill) if each[main].per_s > 0 else None
        keep = max(self.window_s, self.hold * start)
        seen = seen.wanting(now, wanted, keep)
        if any(w > t for w, t in zip(wanted, target, strict=True)):
            return wanted if len(variants) > 1 else tuple(map(max, wanted, target)), reason, seen, worth
        held = seen.held(target, now, keep)
        return held, ("less_demand" if held != target else "steady"), seen, worth

    def _correction(self, seen: _Seen, slo: Slo) -> float:
        """What demand is multiplied with, by how many requests were late of late."""
        if not self.correct or seen.answered < 20:
            return 1.0
        used = seen.late / seen.answered / (1 - slo.goodput)
        return 1 + self.correct * max(-1.0, min(2.0, used - 1))

    def _expected(self, seen: _Seen, load: Load, one: Capacity, start: float, slo: Slo,
                  mix: Mix) -> tuple[float, str]:
        """Requests per second to be ready for, and why."""
        lately, before = seen.rate(0.0, self.window_s), seen.rate(self.window_s, self.window_s)
        risen = lately - before - math.sqrt((lately + before) / self.window_s)
        growth = self.growth * max(0.0, risen) / self.window_s * min(start, 4 * self.window_s)
        if self.remember_s:
            usual = seen.usual(self.window_s, self.remember_s, slo.goodput)
            lately, growth = usual + self.follow * max(0.0, lately - usual), self.follow * growth
        # prompts that wait count by their length: ten long ones are more than ten requests' work
        waiting: float = load.queued + load.waiting
        waiting = max(waiting, load.queued_tokens / max(1.0, mix.prompt)) if waiting else 0.0
        backlog = max(0.0, waiting - one.per_s * max(1, sum(load.ready)) * 0.5)
        # what waits now and could still wait when a replica that starts now is ready
        catch_up = backlog / max(10.0, start)
        return lately + growth + catch_up, "backlog" if catch_up > growth and catch_up > 0.1 * lately else "demand"


def _with_chance(rate: float, one: Capacity, margin: float) -> float:
    """The rate plus what chance may add: requests at once scatter like their square root."""
    if rate <= 0 or one.per_s <= 0:
        return rate
    per_request = one.per_s / max(1.0, one.at_once)  # of the rate, that one request at once stands for
    return rate + margin * math.sqrt(rate * per_request)


@dataclass(frozen=True)
class _Seen:
    """Samples of late: (when, requests arrived ever, sums ever), oldest first; and what was wanted when. answered,
    late: requests, of which those of minutes ago count less. since_s: when anyone began to look."""

    since_s: float = -math.inf
    samples: tuple[tuple[float, int, Sums], ...] = ()
    wants: tuple[tuple[float, tuple[int, ...]], ...] = ()
    answered: float = 0.0
    late: float = 0.0

    def with_(self, load: Load, keep_s: float) -> _Seen:
        if self.samples and load.at_s <= self.samples[-1][0]:
            return self
        if self.samples and load.late is not None:
            at, _, sums = self.samples[-1]
            faded, more = math.exp(-(load.at_s - at) / _FADES_S), load.sums.finished - sums.finished
            self = replace(self, answered=self.answered * faded + more, late=self.late * faded + more * load.late)
        samples = (*self.samples, (load.at_s, load.arrived, load.sums))
        first = 0
        while first + 1 < len(samples) and samples[first + 1][0] <= load.at_s - keep_s:
            first += 1
        return replace(self, samples=samples[first:])

    def rate(self, ago_s: float, length_s: float) -> float:
        """Arrivals per second in a stretch that ended so long ago."""
        if len(self.samples) < 2:
            return 0.0
        end_s = self.samples[-1][0] - ago_s
        end, begin = self._at(end_s), self._at(end_s - length_s)
        return max(0, end[1] - begin[1]) / (end[0] - begin[0]) if end[0] > begin[0] else 0.0

    def usual(self, length_s: float, reach_s: float, share: float) -> float:
        """The arrivals per second below which so large a share of the requests of the last while came, by stretches."""
        rates = sorted(self.rate(n * length_s, length_s) for n in range(max(1, round(reach_s / length_s))))
        wanted, passed = share * sum(rates), 0.0
        for rate in rates:
            passed += rate
            if passed >= wanted - 1e-9:
                return rate
        return 0.0

    def _at(self, at_s: float) -> tuple[float, int, Sums]:
        """The sample at a moment, or the one before it."""
        return self.samples[max(0, bisect_right(self.samples, at_s + 1e-9, key=lambda sample: sample[0]) - 1)]

    def mix(self, length_s: float) -> Mix | None:
        """What the requests answered in the last so many seconds were like; where too few, longer ago counts."""
        if not self.samples:
            return None
        newest = self.samples[-1]
        for reach in (length_s / 4, length_s):
            part = newest[2] - self._at(newest[0] - reach)[2]
            if part.finished >= 100:
                return Mix.of(part)
        return Mix.of(newest[2] - self.samples[0][2]) or Mix.of(newest[2])

    def wanting(self, now: float, wanted: tuple[int, ...], keep_s: float) -> _Seen:
        return replace(self, wants=(*((t, w) for t, w in self.wants if t > now - keep_s), (now, wanted)))

    def held(self, target: tuple[int, ...], now: float, keep_s: float) -> tuple[int, ...]:
        """As many as before, or the most that was wanted for so long. Who has just begun to look knows of no time in
        which fewer were enough."""
        if now - self.since_s < keep_s:
            return target
        return tuple(min(t, max(w[v] for _, w in self.wants)) for v, t in enumerate(target))
