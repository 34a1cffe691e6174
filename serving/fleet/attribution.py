"""From engine steps to charges: who pays for which nanosecond of a replica.

The time of a replica is cut at engine steps into intervals that never overlap. A step's interval is shared among the
requests that it worked for, time between steps is idle, and time before the replica was ready is cold start; prices
come from `account`, so that

    sum of the requests' work + idle + cold start = bill of the time since the start

holds to the nano-dollar at every moment, whatever order or number of steps arrives. Shares follow `stepmodel`. They are
whole nano-dollars by the largest remainder; what rounding owes a request is carried to its next step, because a step
of a cheap machine costs less than one nano-dollar a request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from serving.fleet.account import Account
from serving.fleet.loading import NO_LOADING, LoadingPolicy, Pool
from serving.fleet.money import PriceLine
from serving.fleet.records import Amounts, EngineOutcome, Method, Phase, Segment
from serving.fleet.stepmodel import StepFitter, StepModel

_SHIFT = 16  # what rounding owes is kept in this many bits below a nano-dollar
_FIRST_SEGMENT = 16  # steps; each next one of the same kind is twice as long
_SEGMENTS = 32
_WEAKER: dict[Method, int] = {"window": 0, "step-shapley-prior": 1, "step-shapley-fit": 2}


class Working(Protocol):
    """What one step did for one request: `tokens` scheduled, on top of `context` tokens already there.

    `lost` of the tokens were for nothing: computed before (phase recompute), or speculative and thrown away.
    """

    request_id: str
    tokens: int
    context: int
    phase: Phase
    lost: int


@dataclass(frozen=True)
class Work:
    """A `Working` that stands for itself."""

    request_id: str
    tokens: int
    context: int
    phase: Phase = "decode"
    lost: int = 0


@dataclass(slots=True)
class Share:
    """A request's part of many steps told as one (`ReplicaMeter.span`): sums of the step model's parts, and of these
    what was for nothing."""

    request_id: str
    weight: float
    wasted: float = 0.0
    tokens: ClassVar[int] = 1
    context: ClassVar[int] = 0
    phase: ClassVar[Phase] = "decode"
    lost: ClassVar[int] = 0


class Trail:
    """The steps of one request, condensed: runs of one phase, each at most twice as long as the one before it.

    `more_tokens` and `more_pairs` count what goes beyond a plain decode: one token that attends to its context.
    """

    __slots__ = ("phase", "steps", "more_tokens", "context", "more_pairs", "shared", "parts", "step_ns", "nanousd",
                 "limit", "done")

    def __init__(self) -> None:
        self.done: list[Segment] = []
        self.limit = _FIRST_SEGMENT
        self._begin("prefill")

    def _begin(self, phase: Phase) -> None:
        self.phase: Phase = phase
        self.steps = self.more_tokens = self.context = self.shared = self.step_ns = self.nanousd = 0
        self.more_pairs = self.parts = 0.0

    def turn(self, phase: Phase) -> None:
        """The next run begins."""
        if self.steps:
            self.done.append(self._segment())
            self.limit = self.limit * 2 if phase == self.phase else _FIRST_SEGMENT
            if len(self.done) >= _SEGMENTS:
                self.done[-2:] = [_joined(*self.done[-2:])]
        self._begin(phase)

    def _segment(self) -> Segment:
        return Segment(self.phase, self.steps, self.steps + self.more_tokens, self.context,
                       self.context + self.more_pairs, self.shared, self.parts, self.step_ns, self.nanousd)

    def segments(self) -> tuple[Segment, ...]:
        """All of it, oldest first."""
        return (*self.done, self._segment()) if self.steps else tuple(self.done)


def _joined(a: Segment, b: Segment) -> Segment:
    return Segment(b.phase, a.steps + b.steps, a.tokens + b.tokens, a.context + b.context, a.pairs + b.pairs,
                   a.shared + b.shared, a.parts + b.parts, a.step_ns + b.step_ns, a.nanousd + b.nanousd)


@dataclass(slots=True)
class Charge:
    """What a request has cost on one replica so far, nano-USD. `lost` is the part of `work` that was for nothing."""

    work: int = 0
    lost: int = 0
    idle: int = 0
    cold_start: int = 0
    recomputed: int = 0
    rejected: int = 0
    method: Method = "step-shapley-fit"
    loaded_work: int = 0  # up to which it has drawn from the pool
    owed: int = 0  # by rounding, in 2**-16 nano-USD; less than nothing when it got too much
    trail: Trail = field(default_factory=Trail)

    @property
    def steps(self) -> int:
        """Engine steps that it was part of."""
        return sum(segment.steps for segment in self.trail.segments())

    def amounts(self, outcome: EngineOutcome) -> Amounts:
        """By bucket: work that no one received is waste."""
        if outcome in ("aborted", "failed"):
            return Amounts(0, self.work, self.idle, self.cold_start)
        return Amounts(self.work - self.lost, self.lost, self.idle, self.cold_start)


class ReplicaMeter:
    """The books of one replica. Times are nanoseconds of one monotonic clock, passed in.

    Not thread-safe: one owner feeds it. `model`: coefficients to stay with, instead of a fit to the replica's steps.
    """

    def __init__(self, prices: PriceLine, started_ns: int, started_at: float = 0.0,
                 loading: LoadingPolicy = NO_LOADING, model: StepModel | None = None) -> None:
        self.account = Account(prices, started_ns, started_at)
        self.pool = Pool(loading)
        self.fitter = StepFitter(model or StepModel())
        self._fixed_model = model
        self.ready_ns: int | None = None
        self.charges: dict[str, Charge] = {}

    @property
    def seen_ns(self) -> int:
        """Up to when the time is booked."""
        return self.account.seen_ns

    @property
    def total_nanousd(self) -> int:
        """The bill of the time booked so far."""
        total = self.account.total
        return total.cold_nanousd + total.idle_nanousd + total.busy_nanousd

    @property
    def method(self) -> Method:
        """How steps are shared now."""
        return "step-shapley-prior" if self._fixed_model else self.fitter.method

    @property
    def model(self) -> StepModel:
        """The coefficients that steps are shared by now."""
        return self._fixed_model or self.fitter.model

    def _pass(self, to_ns: int) -> None:
        """Book the time up to `to_ns` as cold start or idle, as the case is."""
        if self.ready_ns is None:
            _, cost = self.account.advance(to_ns, "cold")
            self.pool.put(0, cost)
        else:
            _, cost = self.account.advance(to_ns, "idle")
            self.pool.put(cost, 0)

    def ready(self, at_ns: int) -> None:
        """The replica can take requests from now on: cold start ends. A second call changes nothing."""
        if self.ready_ns is None:
            self._pass(at_ns)
            self.ready_ns = at_ns

    def quiet(self, now_ns: int) -> None:
        """Nothing ran until `now_ns`: book the time since the last step as idle (or cold start)."""
        self._pass(now_ns)

    def step(self, start_ns: int, end_ns: int, works: Sequence[Working], steps: int = 1) -> None:
        """One engine step (or `steps` of them told as one) from `start_ns` to `end_ns` that did `works`.

        The part that overlaps what is booked already (steps are scheduled before earlier ones end) is cut off.
        Steps before `ready` warm the replica up and stay cold start; steps without work are idle time.
        """
        if self.ready_ns is None or not works:
            self._pass(end_ns)
            return
        model, method, count = self.model, self.method, len(works)
        self._pass(min(start_ns, end_ns))
        elapsed, cost = self.account.advance(end_ns, "busy")
        if not elapsed:
            return  # told before, or within what was: replaying a step changes nothing
        fixed, token, attention, cache = model.fixed / count, model.token, model.attention, model.cache
        weights, tokens, contexts, pairs = [], 0, 0, 0.0
        for work in works:
            n, context = work.tokens, work.context
            attended = n * (context + (n - 1) / 2)
            tokens += n
            contexts += context
            pairs += attended
            weights.append(fixed + token * n + attention * attended + cache * context)
        self._share(works, weights, cost, elapsed, method, model)
        if self._fixed_model is None:
            self.fitter.learn(elapsed / 1e9, steps, tokens, pairs, contexts)

    def span(self, end_ns: int, busy_ns: int, shares: Sequence[Share]) -> None:
        """Many steps told as one: of the time up to `end_ns` they took the last `busy_ns`, to be split by `shares`.

        For whoever sums parts over steps (the simulator): their order within the span is lost, nothing else.
        """
        self._pass(max(self.seen_ns, end_ns - busy_ns))
        if self.ready_ns is None or not shares:
            self._pass(end_ns)
            return
        elapsed, cost = self.account.advance(end_ns, "busy")
        if not elapsed:
            return
        before = [charge.work if (charge := self.charges.get(s.request_id)) else 0 for s in shares if s.wasted > 0]
        self._share(shares, [s.weight for s in shares], cost, elapsed, self.method, self.model)
        for share, had in zip((s for s in shares if s.wasted > 0), before, strict=True):
            charge = self.charges[share.request_id]
            part = charge.work - had
            charge.lost += min(part, int(part * share.wasted / share.weight))

    def window(self, end_ns: int, request_ids: Sequence[str]) -> None:
        """For engines that tell no steps: the time up to `end_ns` in equal parts to who was there; no one: idle."""
        if self.ready_ns is None or not request_ids:
            self._pass(end_ns)
            return
        elapsed, cost = self.account.advance(end_ns, "busy")
        works = [Work(request_id, 0, 0) for request_id in request_ids]
        self._share(works, [1.0] * len(works), cost, elapsed, "window", self.model)

    def _share(self, works: Sequence[Working], weights: list[float], cost: int, elapsed: int, method: Method,
               model: StepModel) -> None:
        # once per request and engine step, in the replica's front process: one pass, and few names looked up
        count, charges, weaker = len(works), self.charges, _WEAKER[method]
        # fsum: exact, so that the order in which a step names its requests does not matter
        unit, parts = (cost << _SHIFT) / (math.fsum(weights) or 1.0), 1 / len(works)
        owners, owed, wasteful, rest = [], [], [], cost
        for work, weight in zip(works, weights, strict=True):
            charge = charges.get(work.request_id)
            if charge is None:
                charge = charges[work.request_id] = Charge(method=method)
            elif charge.method is not method and weaker < _WEAKER[charge.method]:
                charge.method = method
            trail, n, context = charge.trail, work.tokens, work.context
            if trail.steps >= trail.limit or trail.phase != work.phase:
                trail.turn(work.phase)
            want = int(weight * unit) + charge.owed
            part = want >> _SHIFT if want > 0 else 0
            if work.lost:
                wasteful.append((work, weight, charge, charge.work))
            charge.owed = want - (part << _SHIFT)
            owed.append(charge.owed)
            charge.work += part
            rest -= part
            trail.steps += 1
            trail.context += context
            trail.shared += count
            trail.parts += parts
            trail.step_ns += elapsed
            trail.nanousd += part
            if n != 1:
                trail.more_tokens += n - 1
                trail.more_pairs += n * (context + (n - 1) / 2) - context
            owners.append(charge)
        if rest:
            _settle(rest, owners, owed, [work.request_id for work in works])
        for work, weight, charge, before in wasteful:
            redone, part = work.phase == "recompute", charge.work - before
            lost = model.wasted(work.tokens, work.context, count, work.lost, redone)
            charge.lost += min(part, int(part * lost / weight)) if weight > 0 else 0
            if redone:
                charge.recomputed += work.lost
            else:
                charge.rejected += work.lost

    def ended(self, request_id: str) -> None:
        """A request is over for now: it is charged with its part of the replica's idle time and cold start.

        More work after that, and another end, charge for what was added.
        """
        charge = self.charges.get(request_id)
        if charge is None:
            return
        idle, cold = self.pool.draw(charge.work - charge.loaded_work, self.seen_ns)
        charge.loaded_work = charge.work
        charge.idle += idle
        charge.cold_start += cold


def _settle(rest: int, charges: list[Charge], owed: list[int], names: list[str]) -> None:
    """Give out `rest` more nano-USD, or take them back, one by one: first who is owed most (or least).

    Equal ones by name, so that the order in which a step names its requests does not matter.
    """
    order = [at for _, _, at in sorted(zip([-o for o in owed], names, range(len(owed)), strict=True))]
    while rest > 0:
        for at in order[:rest]:
            _move(charges[at], 1)
        rest -= min(rest, len(order))
    while rest < 0:
        for at in reversed(order):
            if rest < 0 and charges[at].trail.nanousd > 0:
                _move(charges[at], -1)
                rest += 1


def _move(charge: Charge, by: int) -> None:
    charge.work += by
    charge.trail.nanousd += by
    charge.owed -= by << _SHIFT
