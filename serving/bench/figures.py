"""Figures of repeated runs: percentiles of one, ratios within a round, and how far rounds lie apart.

Pure. A ratio is always formed between two runs of the same round, so that a machine that grows slower over the hour
does not favour an arm. Runs during which others took more than QUIET cores are left out where quiet ones of the same
arm and level are there; what a run measured never decides whether it counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

QUIET = 0.2  # cores that others may take during a run
ROLES = ("path", "server", "engine", "rest")


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100), between neighbours in proportion. Raises: ValueError when there is nothing."""
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    at = (len(ordered) - 1) * q / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@dataclass(frozen=True)
class Run:
    """One arm under one load in one round.

    Seconds. `cpu_s`: CPU by role: path (between client and the engine's server), server, engine, rest. `others`: cores
    that the rest of the machine took meanwhile.
    """

    arm: str
    streams: int
    round: int
    wall_s: float
    tokens: int
    requests: int
    ttft_s: tuple[float, ...]
    cpu_s: Mapping[str, float]
    others: float

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens per second of the run."""
        return self.tokens / self.wall_s


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def range(self, digits: int) -> list[float]:
        """[lowest, highest]."""
        return [round(self.low, digits), round(self.high, digits)]


def against(runs: Sequence[Run], base: str) -> list[dict[str, Any]]:
    """Each arm at each number of streams, beside the arm `base` of the same rounds. Order of first appearance."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        found.setdefault((run.arm, run.streams), []).append(run)
    bases = {(r.streams, r.round): r for r in runs if r.arm == base}
    return [_row(arm, streams, of, bases) for (arm, streams), of in found.items()]


def _row(arm: str, streams: int, every: Sequence[Run], bases: Mapping[tuple[int, int], Run]) -> dict[str, Any]:
    pairs = [(r, bases[streams, r.round]) for r in every if (streams, r.round) in bases]
    pairs = [p for p in pairs if max(p[0].others, p[1].others) <= QUIET] or pairs
    runs = [r for r in every if r.others <= QUIET] or every
    tokens = Spread.of([r.tokens_per_s for r in runs])
    p50, p99 = (Spread.of([percentile(r.ttft_s, q) * 1e3 for r in runs]) for q in (50, 99))
    row: dict[str, Any] = {
        "name": arm, "streams": streams, "rounds": len(runs),
        "noisy_rounds": len([r for r in every if r.others > QUIET]),
        "requests_per_s": round(statistics.median(r.requests / r.wall_s for r in runs), 2),
        "tokens_per_s": round(tokens.median, 1), "tokens_per_s_ratio": None,
        "ttft_ms": {"p50": round(p50.median, 2), "p99": round(p99.median, 2)}, "added_ttft_ms": None,
        "cpu_s_per_1000_tokens": _per_1000(runs, "path"), "cpu_by_role": {r: _per_1000(runs, r) for r in ROLES},
        "others_cores": round(max(r.others for r in runs), 2),
        "spread": {"tokens_per_s": tokens.range(1), "ttft_p50_ms": p50.range(2)},
    }
    if pairs:
        ratio = Spread.of([r.tokens_per_s / b.tokens_per_s for r, b in pairs])
        added = Spread.of([(percentile(r.ttft_s, 50) - percentile(b.ttft_s, 50)) * 1e3 for r, b in pairs])
        row["tokens_per_s_ratio"], row["added_ttft_ms"] = round(ratio.median, 3), round(added.median, 2)
        row["others_cores"] = round(max(max(r.others, b.others) for r, b in pairs), 2)
        row["spread"] |= {"tokens_per_s_ratio": ratio.range(3), "added_ttft_ms": added.range(2)}
    return row


def _per_1000(runs: Sequence[Run], role: str) -> float:
    return round(statistics.median(r.cpu_s.get(role, 0.0) / r.tokens * 1000 for r in runs), 4)
