"""What a run came to, in memory that does not grow with it: counts, sums, histograms, and a table by hours."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from serving.simulator.state import FINISHED, Ended

_BINS, _LEAST, _DECADES = 4_000, 1e-5, 10.0  # a bin is 0.6% wide
_HOUR_S = 3_600.0


class Histogram:
    """Durations in logarithmic bins, seconds."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count these."""
        at = np.log10(np.maximum(values, _LEAST) / _LEAST) * (_BINS / _DECADES)
        self.counts += np.bincount(np.clip(at.astype(np.int64), 0, _BINS - 1), minlength=_BINS)

    def quantile(self, share: float) -> float | None:
        """The value that so large a share is below, seconds; None of nothing."""
        total = int(self.counts.sum())
        if not total:
            return None
        at = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return float(_LEAST * 10 ** ((min(at, _BINS - 1) + 0.5) * _DECADES / _BINS))


@dataclass
class Promises:
    """How many requests there were and how many kept what: those that failed keep nothing."""

    requests: int = 0
    failed: int = 0
    ttft: int = 0
    tpot: int = 0
    good: int = 0

    def add(self, other: Promises) -> None:
        """Count those as well."""
        for name in ("requests", "failed", "ttft", "tpot", "good"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def attainment(self) -> float:
        """Share that kept all promises; 1 of none."""
        return self.good / self.requests if self.requests else 1.0

    def share(self, promise: str) -> float:
        """Share that kept this one."""
        return getattr(self, promise) / self.requests if self.requests else 1.0


@dataclass
class Measures:
    """Of one model. hours: promises by hour of arrival. counted_from_s: requests that came before are left out."""

    ttft_s: float
    tpot_s: float
    request_s: tuple[float, ...]
    token_wait_s: tuple[float, ...]
    counted_from_s: float = 0.0
    total: Promises = field(default_factory=Promises)
    hours: dict[int, Promises] = field(default_factory=dict)
    ttft: Histogram = field(default_factory=Histogram)
    tpot: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    preempted: int = 0
    late: tuple[int, int] = (0, 0)  # since it was last asked: (requests, of them late)

    def add(self, done: Ended, variants: np.ndarray) -> None:
        """Requests that have ended; `variants`: of the replicas that did."""
        if self.counted_from_s > 0:
            counted = done.arrived >= self.counted_from_s
            done, variants = Ended(*(column[counted] for column in done)), variants[counted]
        if not len(done.number):
            return
        finished = done.outcome == FINISHED
        ttft = done.first - done.arrived + np.asarray(self.request_s)[variants]
        gaps = np.maximum(done.output - 1, 1)
        tpot = (done.ended - done.first) / gaps + np.asarray(self.token_wait_s)[variants]
        early = finished & (ttft <= self.ttft_s)
        fast = finished & ((tpot <= self.tpot_s) | (done.output < 2))
        self.ttft.add(ttft[finished])
        self.tpot.add(tpot[finished & (done.output > 1)])
        hour = (done.arrived // _HOUR_S).astype(np.int64)
        for h in np.unique(hour):
            there = hour == h
            part = Promises(int(there.sum()), int((there & ~finished).sum()), int((there & early).sum()),
                            int((there & fast).sum()), int((there & early & fast).sum()))
            self.hours.setdefault(int(h), Promises()).add(part)
            self.total.add(part)
        self.prompt_tokens += int(done.prompt[finished].sum())
        self.cached_tokens += int(done.cached[finished].sum())
        self.output_tokens += int(done.output.sum())
        self.preempted += int(done.preempted.sum())
        self.late = (self.late[0] + len(finished), self.late[1] + int((~(early & fast)).sum()))

    def recent(self) -> float | None:
        """Share of late ones among those that ended since the last call; None of none."""
        count, late = self.late
        self.late = (0, 0)
        return late / count if count else None


def by_hour(begin_s: float, end_s: float) -> list[tuple[int, float]]:
    """(hour, seconds of the stretch in it)."""
    found, at = [], begin_s
    while at < end_s:
        hour = int(at // _HOUR_S)
        upto = min(end_s, (hour + 1) * _HOUR_S)
        found.append((hour, upto - at))
        at = upto
    return found
