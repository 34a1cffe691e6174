"""The simulated replicas' books: the live ones (`serving.fleet.attribution`), told once a minute instead of every step.

The loops add up each request's share of the steps it was in, by the step model's own functions. Once a minute these
shares are what the time of the replica's steps is split by; the rest of the minute is idle. Shares are sums over steps
either way, so that only rounding and the minute's order differ from telling each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.fleet.attribution import ReplicaMeter, Share
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import PriceLine
from serving.fleet.records import EngineOutcome
from serving.fleet.stepmodel import StepModel

NS = 1_000_000_000


@dataclass
class Money:
    """Nano-USD by bucket. total: the bill of the replicas' time; residual: what the buckets miss of it, 0 always."""

    direct: int = 0
    waste: int = 0
    idle: int = 0
    cold_start: int = 0
    unallocated: int = 0
    total: int = 0

    @property
    def residual(self) -> int:
        """What the buckets miss of the bill."""
        return self.total - self.direct - self.waste - self.idle - self.cold_start - self.unallocated


class ReplicaBooks:
    """One replica's, from its start on. Times: seconds of the run."""

    def __init__(self, prices: PriceLine, started_s: float, unix_s: float, loading: LoadingPolicy,
                 model: StepModel, money: Money) -> None:
        self.meter = ReplicaMeter(prices, _ns(started_s), unix_s + started_s, loading, model)
        self.money = money
        self._busy_ns = 0

    def ready(self, at_s: float) -> None:
        """Cold start ends."""
        self.meter.ready(_ns(at_s))

    def span(self, until_s: float, busy_s: float, shares: Sequence[Share]) -> None:
        """Up to `until_s`; engine steps have taken `busy_s` since the replica was ready."""
        busy_ns = _ns(busy_s)
        self.meter.span(_ns(until_s), busy_ns - self._busy_ns, shares)
        self._busy_ns = busy_ns

    def ended(self, request_id: str, outcome: EngineOutcome) -> None:
        """A request is over here: its charges are final."""
        self.meter.ended(request_id)
        charge = self.meter.charges.pop(request_id, None)
        if charge is None:
            return
        amounts = charge.amounts(outcome)
        self.money.direct += amounts.direct
        self.money.waste += amounts.waste
        self.money.idle += amounts.idle
        self.money.cold_start += amounts.cold_start

    def close(self, at_s: float) -> None:
        """The replica is gone; whoever is still there got nothing."""
        self.meter.quiet(_ns(at_s))
        for request_id in list(self.meter.charges):
            self.ended(request_id, "failed")
        self.money.total += self.meter.total_nanousd
        self.money.unallocated += self.meter.pool.idle + self.meter.pool.cold_start


def _ns(seconds: float) -> int:
    return round(seconds * NS)
