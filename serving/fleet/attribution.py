"""From engine steps to charges: who pays for which nanosecond of a replica.

The time of a replica is cut at engine steps into intervals that never overlap. A step's interval is shared among the
requests that it worked for, time between steps is idle, and time before the replica was ready is cold start. Every
interval is priced as the difference of two bills, so that

    sum of charges + idle + cold start = bill(price, seen - started)

holds to the nano-dollar at every moment, whatever order or number of steps arrives.

The share of a request in a step follows the affine step-time model T = a + b*sum(n) + c*sum(pairs) + d*sum(ctx),
where `pairs` counts the earlier tokens that each scheduled token attends to; it is that game's Shapley value: the fixed
part in equal parts, the rest to whom it is due (Shapley 1953). Prompt chunks and decodes follow one formula, so that
fewer tokens, or more of them cached, never cost more. The coefficients are a prior here, not a fit to the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.fleet.money import apportion, bill

METHOD = "step-shapley-prior"
_UNIT = 1 << 20  # weights are kept as integers of this resolution


@dataclass(frozen=True)
class Work:
    """What one step did for one request: `tokens` scheduled, on top of `context` tokens already there."""

    request_id: str
    tokens: int
    context: int

    @property
    def pairs(self) -> float:
        """Earlier tokens that the scheduled ones attend to, added up: the context, and each other's predecessors."""
        return self.tokens * (self.context + (self.tokens - 1) / 2)


@dataclass(frozen=True)
class StepModel:
    """Coefficients of the affine step-time model, in one common unit; only their ratios matter to a share.

    fixed: a step whatever is in it (reading the weights, launching kernels). token: each scheduled token.
    attention: each scheduled token for each token before it. cache: each token of context that a request's step reads.
    """

    fixed: float = 1.0
    token: float = 2e-3
    attention: float = 2e-7
    cache: float = 2e-5

    def weight(self, work: Work, requests: int) -> int:
        """The Shapley value of `work` in a step of `requests` requests, as an integer weight."""
        value = self.fixed / requests + self.token * work.tokens
        value += self.attention * work.pairs + self.cache * work.context
        return int(value * _UNIT)


@dataclass
class Charge:
    """What a request has cost on one replica so far."""

    nanousd: int = 0
    steps: int = 0


@dataclass
class ReplicaMeter:
    """The books of one replica. Times are nanoseconds of one monotonic clock, passed in.

    Not thread-safe: one owner feeds it.
    """

    price_nanousd_per_hour: int
    started_ns: int
    model: StepModel = field(default_factory=StepModel)
    ready_ns: int | None = None
    seen_ns: int = 0
    cold_nanousd: int = 0
    idle_nanousd: int = 0
    busy_nanousd: int = 0
    cold_ns: int = 0
    idle_ns: int = 0
    busy_ns: int = 0
    charges: dict[str, Charge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen_ns = max(self.seen_ns, self.started_ns)

    def _advance(self, to_ns: int) -> tuple[int, int]:
        """Move the watermark; returns (nanoseconds, nano-USD) of the piece passed. Time never runs backwards."""
        to_ns = max(to_ns, self.seen_ns)
        start, self.seen_ns = self.seen_ns - self.started_ns, to_ns
        end, price = to_ns - self.started_ns, self.price_nanousd_per_hour
        return end - start, bill(price, end) - bill(price, start)

    def _pass(self, to_ns: int) -> None:
        """Book the time up to `to_ns` as cold start or idle, as the case is."""
        elapsed, cost = self._advance(to_ns)
        if self.ready_ns is None:
            self.cold_ns += elapsed
            self.cold_nanousd += cost
        else:
            self.idle_ns += elapsed
            self.idle_nanousd += cost

    def ready(self, at_ns: int) -> None:
        """The replica can take requests from now on: cold start ends. A second call changes nothing."""
        if self.ready_ns is None:
            self._pass(at_ns)
            self.ready_ns = at_ns

    def quiet(self, now_ns: int) -> None:
        """Nothing ran until `now_ns`: book the time since the last step as idle (or cold start)."""
        self._pass(now_ns)

    def step(self, start_ns: int, end_ns: int, works: list[Work]) -> None:
        """One engine step from `start_ns` to `end_ns` that did `works`.

        The part that overlaps what is booked already (steps are scheduled before earlier ones end) is cut off.
        Steps before `ready` warm the replica up and stay cold start; steps without work are idle time.
        """
        if self.ready_ns is None or not works:
            self._pass(end_ns)
            return
        self._pass(start_ns)
        elapsed, cost = self._advance(end_ns)
        self.busy_ns += elapsed
        self.busy_nanousd += cost
        count = len(works)
        parts = apportion(cost, [self.model.weight(w, count) for w in works])
        for work, part in zip(works, parts, strict=True):
            charge = self.charges.get(work.request_id)
            if charge is None:
                charge = self.charges[work.request_id] = Charge()
            charge.nanousd += part
            charge.steps += 1

    @property
    def total_nanousd(self) -> int:
        """The bill of the time booked so far."""
        return bill(self.price_nanousd_per_hour, self.seen_ns - self.started_ns)
