"""Our rule: as many replicas as the promises need for the work that is expected by the time a new one could be ready.

Demand is the rate of arrivals, its growth carried on for as long as a start takes, and what the rate's own chance may
add (square-root staffing: many small bursts even out in a large fleet, so that it needs a smaller margin). What a
replica takes follows from its step model and the mix of requests that has been answered lately (`capacity`). Fewer
replicas only once fewer have been enough for as long as a start takes: before that, ending one costs more than keeping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from serving.fleet.autoscaling.capacity import Capacity, Mix, capacity
from serving.fleet.autoscaling.cheapest import cheapest
from serving.fleet.autoscaling.signals import Load, Sums, Variant
from serving.fleet.slos import Slo

_BEFORE_ANYTHING = Mix(1_000.0, 1_000.0, 2e6, 200.0)  # of a model that has not answered yet


@dataclass(frozen=True)
class SloRule:
    """margin: standard deviations of chance that replicas are kept for. fill: share of the modelled capacity that is
    planned with. hold: how many starts' time fewer must have been enough. window_s: over which the rate is taken.
    growth: share of a rise that is carried on; 0: none."""

    margin: float = 2.0
    fill: float = 0.9
    hold: float = 1.0
    window_s: float = 30.0
    growth: float = 0.5
    mix_s: float = 300.0

    name = "slo"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """(replicas by variant, reason, what to remember, replicas' worth of work)."""
        seen: _Seen = own or _Seen()
        seen = seen.with_(load, self.mix_s + 2 * self.window_s)
        mix = seen.mix(self.mix_s) or _BEFORE_ANYTHING
        each = [capacity(v, mix, slo) for v in variants]
        main = max(range(len(each)), key=lambda i: each[i].per_s)
        start = min(v.start_s + v.node_s for v in variants)
        rate, reason = self._expected(seen, load, each[main], start)
        rate = _with_chance(rate, each[main], self.margin)
        limits = [v.least for v in variants], [v.most for v in variants]
        wanted = cheapest(rate, [c.per_s * self.fill for c in each], [v.price for v in variants], *limits)
        worth = rate / (each[main].per_s * self.fill) if each[main].per_s > 0 else None
        keep = max(self.window_s, self.hold * start)
        seen = seen.wanting(now, wanted, keep)
        if any(w > t for w, t in zip(wanted, target, strict=True)):
            return wanted if len(variants) > 1 else tuple(map(max, wanted, target)), reason, seen, worth
        held = tuple(max(w[v] for _, w in seen.wants) for v in range(len(variants)))
        held = tuple(map(min, held, target))
        return held, ("less_demand" if held != target else "steady"), seen, worth

    def _expected(self, seen: _Seen, load: Load, one: Capacity, start: float) -> tuple[float, str]:
        """Requests per second to be ready for, and why."""
        lately, before = seen.rate(0.0, self.window_s), seen.rate(self.window_s, self.window_s)
        risen = lately - before - math.sqrt((lately + before) / self.window_s)
        growth = self.growth * max(0.0, risen) / self.window_s * min(start, 4 * self.window_s)
        waiting = load.queued + load.waiting
        usual = one.per_s * max(1, sum(load.ready)) * 0.5
        backlog = max(0.0, waiting - usual)
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
    """Samples of late: (when, requests arrived ever, sums ever), oldest first; and what was wanted when."""

    samples: tuple[tuple[float, int, Sums], ...] = ()
    wants: tuple[tuple[float, tuple[int, ...]], ...] = ()

    def with_(self, load: Load, keep_s: float) -> _Seen:
        if self.samples and load.at_s <= self.samples[-1][0]:
            return self
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

    def _at(self, at_s: float) -> tuple[float, int, Sums]:
        """The sample at a moment, or the one before it."""
        found = self.samples[0]
        for sample in self.samples:
            if sample[0] > at_s + 1e-9:
                break
            found = sample
        return found

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
