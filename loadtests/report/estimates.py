"""The figures of a run that are estimates: each one as a function from a confidence to its interval.

The report shows them at 95%, a comparison needs them at any level; both take them from here, so that they cannot
differ. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests import metrics
from loadtests.records import Record
from loadtests.report.model import Estimated, LatencyKind
from loadtests.report.window import Window
from loadtests.scenario import Slo
from loadtests.statistics import (
    CONFIDENCE,
    Estimate,
    Interval,
    mean_of,
    quantile_of,
    quotient,
    rate_of,
    scaled,
    share_of,
)

LATENCIES: dict[LatencyKind, Callable[[Record], float | None]] = {
    "ttft": metrics.ttft_ms,
    "ttft_from_scheduled": metrics.ttft_from_scheduled_ms,
    "tpot": metrics.tpot_ms,
    "e2e": metrics.e2e_ms,
}
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Sample:
    """One model's requests, or the mix's: measured (in the order of sending) and of the whole run.

    cost_usd: what the whole run's requests cost, None if that is not known.
    """

    measured: Sequence[Record]
    whole: Sequence[Record]
    window: Window
    slos: Mapping[str, Slo | None]
    cost_usd: float | None

    def good(self, record: Record) -> bool:
        return metrics.is_good(record, self.slos.get(record.model))

    def values(self, kind: LatencyKind) -> np.ndarray:
        """Latencies in ms of the successful requests, in order of sending; of chunks all gaps of all streams."""
        if kind == "inter_chunk":
            return np.array([gap for record in self.measured if record.ok for gap in record.gaps_ms])
        # A broken answer's latencies are no latencies; it counts as an error and a missed objective.
        found = (LATENCIES[kind](record) for record in self.measured if record.ok)
        return np.array([value for value in found if value is not None])

    def quantile(self, kind: LatencyKind, q: float) -> Estimate:
        return quantile_of(self.values(kind), q)

    def good_share(self) -> Estimate:
        """Share of the measured requests that met every objective; errors are misses."""
        return share_of([self.good(record) for record in self.measured])

    def error_share(self) -> Estimate:
        return share_of([not record.ok for record in self.measured])

    def request_rate(self) -> Estimate:
        return self._rate(lambda record: 1.0)

    def goodput(self) -> Estimate:
        return self._rate(lambda record: float(self.good(record)))

    def output_rate(self) -> Estimate:
        """Output tokens per second, each counted in the block in which it was delivered."""
        blocks = self.window.blocks()
        return rate_of([
            metrics.output_tokens_within(self.whole, start, end) / (end - start) for start, end in blocks
        ])

    def _rate(self, weight: Callable[[Record], float]) -> Estimate:
        """Requests by the time they were due, per second: what came is the schedule's, what is good the fleet's."""
        blocks = self.window.blocks()
        sums = []
        for start, end in blocks:
            inside = [weight(record) for record in self.measured if start <= record.scheduled < end]
            sums.append(sum(inside) / (end - start))
        return rate_of(sums)

    def cost_per_request(self) -> Estimate:
        """Whole run's cost / successful requests; varies as their own charges (usage.cost) do."""
        done = [record for record in sorted(self.whole, key=lambda record: record.sent) if record.ok]
        if self.cost_usd is None or not done:
            return lambda confidence: None
        mean = self.cost_usd / len(done)
        charged = [record.cost_usd for record in done if record.cost_usd is not None]
        if len(charged) < 2 or sum(charged) <= 0 or mean <= 0:
            return lambda confidence: Interval(mean, None, None)
        return scaled(mean_of(charged), mean / float(np.mean(charged)))

    def cost_per_good_request(self) -> Estimate:
        """Whole run's cost / requests that met every objective; None where none did."""
        done = [record for record in sorted(self.whole, key=lambda record: record.sent) if record.ok]
        return quotient(self.cost_per_request(), share_of([self.good(record) for record in done]))


def shown(estimate: Estimate, confidence: float = CONFIDENCE) -> Estimated | None:
    """As the report has it."""
    found = estimate(confidence)
    return None if found is None else Estimated(value=found.value, low=found.low, high=found.high)
