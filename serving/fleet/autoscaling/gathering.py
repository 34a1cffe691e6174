"""Many tellers, one `Load`: counters of processes that come and go are joined into ones that only grow.

Knows no clock: every message comes with its time. A replica that runs but has been silent for long makes the whole
measurement old, and so does a fleet of which no gateway tells: whoever decides then changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Generic, TypeVar

from serving.fleet.autoscaling.signals import Load, Sums
from serving.fleet.autoscaling.told import GatewayTold, ReplicaTold
from serving.fleet.stepmodel import StepModel

T = TypeVar("T")
_BEGINNING_S = 15.0  # within it whoever is heard for the first time may have counted for long already


@dataclass(frozen=True)
class Heard(Generic[T]):
    """A message and when it was said, Unix seconds."""

    at_s: float
    told: T


class Growing:
    """One counter over many that come, go and begin anew at 0."""

    def __init__(self) -> None:
        self.total = 0.0
        self._last: dict[str, float] = {}

    def add(self, source: str, value: float, known: bool) -> None:
        """`source` has counted so far. `known`: whether all that it has counted is news; else this is where it begins.
        """
        last = self._last.get(source)
        if last is None:
            self.total += value if known else 0.0
        else:
            self.total += value - last if value >= last else value
        self._last[source] = value

    def keep(self, sources: set[str]) -> None:
        """Forget those that have gone; what they counted stays."""
        self._last = {s: v for s, v in self._last.items() if s in sources}


@dataclass(frozen=True)
class Known:
    """What is known of a model's replicas, from those that run or the last that did. None: not yet."""

    steps: StepModel | None = None
    kv_tokens: int | None = None
    batched_tokens: int | None = None
    start_s: float | None = None
    price: int | None = None


@dataclass
class Gathering:
    """One model. `known` outlives the replicas that told it."""

    known: Known = field(default_factory=Known)

    def __post_init__(self) -> None:
        self._began_s: float | None = None
        self._seen_s: dict[str, float] = {}  # replicas, since when
        self._arrived, self._promised, self._missed = Growing(), Growing(), Growing()
        self._sums = {name: Growing() for name in ("finished", "prompt", "computed", "computed_squared", "output")}
        self._busy = Growing()
        self._before: tuple[float, float, float, float] | None = None  # at, busy, promised, missed

    def load(self, now: float, running: Mapping[str, Heard[ReplicaTold] | None], starting: int,
             gateways: Mapping[str, Heard[GatewayTold]]) -> Load | None:
        """The model as it is. `running`: its ready replicas and what they said last. None: nobody tells."""
        self._began_s = now if self._began_s is None else self._began_s
        known = now - self._began_s > _BEGINNING_S
        heard = {name: h for name, h in running.items() if h is not None}
        self._seen_s = {name: self._seen_s.get(name, now) for name in running}
        if not gateways:
            return None
        for name, said in gateways.items():
            for growing, value in ((self._arrived, said.told.arrived), (self._promised, said.told.promised),
                                   (self._missed, said.told.missed)):
                growing.add(name, value, known)
        for name, of in heard.items():
            for part, growing in self._sums.items():
                growing.add(name, getattr(of.told, part), known)
            self._busy.add(name, of.told.busy_s, known)
        for growing in (*self._sums.values(), self._busy):
            growing.keep(set(running))
        for growing in (self._arrived, self._promised, self._missed):
            growing.keep(set(gateways))
        self._learn([h.told for h in heard.values()])
        told = [h.told for h in heard.values()]
        at = min([h.at_s for h in gateways.values()] + [
            heard[name].at_s if name in heard else self._seen_s[name] for name in running])
        busy, late = self._lately(at, len(running))
        return Load(
            at, int(self._arrived.total), int(sum(h.told.queued for h in gateways.values())),
            int(sum(t.waiting for t in told)), int(sum(t.running for t in told)),
            int(sum(t.waiting_tokens for t in told) + sum(h.told.queued_tokens for h in gateways.values())),
            (len(running),), (starting,), Sums(int(self._sums["finished"].total), *(
                self._sums[part].total for part in ("prompt", "computed", "computed_squared", "output"))),
            busy, fmean([t.cache for t in told]) if told else 0.0, late)

    def _lately(self, at: float, replicas: int) -> tuple[float, float | None]:
        """(share of time in steps, share of answers that missed a promise) since the last call."""
        now = (at, self._busy.total, self._promised.total, self._missed.total)
        before, self._before = self._before, now
        if before is None or at <= before[0]:
            self._before = before if before is not None else now
            return 0.0, None
        busy = min(1.0, max(0.0, now[1] - before[1]) / ((at - before[0]) * replicas)) if replicas else 0.0
        promised = now[2] - before[2]
        return busy, (now[3] - before[3]) / promised if promised > 0 else None

    def _learn(self, told: list[ReplicaTold]) -> None:
        """What running replicas say of themselves, their mean; what none says stays as it was."""
        was = self.known
        fits = [s for t in told if (s := t.steps) is not None]
        steps = StepModel(*(fmean([getattr(s, name) for s in fits])
                            for name in ("fixed", "token", "attention", "cache"))) if fits else was.steps
        kv, batched = [t.kv_tokens for t in told if t.kv_tokens > 0], [t.batched_tokens for t in told
                                                                        if t.batched_tokens > 0]
        starts, prices = [t.start_s for t in told if t.start_s >= 0], [t.price for t in told if t.price >= 0]
        self.known = Known(steps, int(min(kv)) if kv else was.kv_tokens,
                           int(min(batched)) if batched else was.batched_tokens,
                           fmean(starts) if starts else was.start_s, int(max(prices)) if prices else was.price)
