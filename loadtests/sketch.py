"""A histogram that can be merged: what many values of many workers were, in little memory and with a stated error.

Buckets grow by a constant factor, so that any quantile is within `ERROR` of a true one, relatively (DDSketch, arXiv
1908.10693). For what is only watched: event-loop lag, live tables. Latencies of the report come from raw records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: Relative error of a quantile.
ERROR = 0.01
_GROWTH = math.log((1 + ERROR) / (1 - ERROR))
#: Values below count as zero; in milliseconds that is a nanosecond.
_ZERO = 1e-6


@dataclass
class Sketch:
    """Counts per bucket; bucket None holds zeros."""

    counts: dict[int | None, int] = field(default_factory=dict)
    count: int = 0
    total: float = 0.0
    max: float = 0.0

    def add(self, value: float) -> None:
        bucket = math.ceil(math.log(value) / _GROWTH) if value > _ZERO else None
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1
        self.total += value
        self.max = max(self.max, value)

    def merge(self, other: Sketch) -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def quantile(self, share: float) -> float | None:
        """The value that this share of all is at or below; None of nothing."""
        if not self.count:
            return None
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for bucket in sorted(self.counts, key=lambda one: -math.inf if one is None else one):
            seen += self.counts[bucket]
            if seen >= rank:
                # The middle of the bucket, relatively; never more than was ever seen.
                middle = 0.0 if bucket is None else math.exp(bucket * _GROWTH) * (1 - ERROR)
                return min(middle, self.max)
        return self.max

    def quantiles(self) -> dict[str, float | int | None]:
        """As `metrics.quantiles` gives them."""
        shares = {name: self.quantile(share) for name, share in _SHARES.items()}
        mean = self.total / self.count if self.count else None
        return {"count": self.count, "mean": mean, **shares, "max": self.max if self.count else None}

    def packed(self) -> list[float]:
        """As a flat list, to be sent: count, total, max, then pairs of bucket (NaN for zeros) and count."""
        pairs = [(math.nan if b is None else float(b), float(c)) for b, c in self.counts.items()]
        return [float(self.count), self.total, self.max, *(value for pair in pairs for value in pair)]

    @staticmethod
    def unpacked(values: list[float]) -> Sketch:
        """The reverse of `packed`."""
        rest = values[3:]
        counts = {None if math.isnan(b) else int(b): int(c) for b, c in zip(rest[::2], rest[1::2], strict=True)}
        return Sketch(counts, int(values[0]), values[1], values[2])


_SHARES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def merged(sketches: Iterable[Sketch]) -> Sketch:
    """All of them as one."""
    whole = Sketch()
    for sketch in sketches:
        whole.merge(sketch)
    return whole
