"""Whether a run proves anything: the rules by which it is INVALID, whatever its figures say. Pure.

A load generator that sends too late, whose clock or event loop is off, or that lost a part of itself measures itself.
Such a run is not reported as slow but as no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loadtests.runinfo import Arrivals, WorkerFacts


@dataclass(frozen=True)
class Limits:
    """Beyond these the load generator itself spoilt the measurement. clock_ms: of a worker's clock against the
    master's, its own uncertainty included. cpu_share: of a core, above which a slow loop is put down to it."""

    lateness_p99_ms: float = 100.0
    loop_lag_p99_ms: float = 100.0
    achieved_share: float = 0.95
    clock_ms: float = 20.0
    cpu_share: float = 0.9


class Facts(Protocol):
    """What the rules look at; run.json and the report's facts of a run both are that."""

    interrupted: bool
    stopped_by: str | None
    lost: tuple[str, ...]
    arrivals: Arrivals
    dispatch_lateness_ms: Mapping[str, float | int | None]
    loop_lag_ms: Mapping[str, float | int | None]
    workers: tuple[WorkerFacts, ...]


def broken_rules(run: Facts, limits: Limits = Limits()) -> list[str]:
    """Every reason for which the run is invalid, in words; empty for a valid one."""
    reasons = []
    if run.interrupted and run.stopped_by is None:
        reasons.append("the run was interrupted before its end")
    reasons += run.lost
    reasons += _too_slow(run, limits)
    # A run that its stop condition ended early sent less on purpose.
    if run.stopped_by is None and run.arrivals.achieved_share < limits.achieved_share:
        wanted, got = run.arrivals.requested_rate_per_s, run.arrivals.achieved_rate_per_s
        share = run.arrivals.achieved_share
        reasons.append(
            f"achieved {got:.2f} of {wanted:.2f} arrivals/s ({share:.0%}), below {limits.achieved_share:.0%}"
        )
    for worker in run.workers:
        off = abs(worker.clock_offset_ms) + worker.clock_error_ms
        if off > limits.clock_ms:
            reasons.append(
                f"the clock of worker {worker.index} on {worker.host} is off by up to {off:.0f} ms, more than "
                f"{limits.clock_ms:.0f} ms"
            )
    return reasons


def _too_slow(run: Facts, limits: Limits) -> list[str]:
    reasons = []
    checks = (
        ("dispatch lateness", run.dispatch_lateness_ms, limits.lateness_p99_ms),
        ("event-loop lag", run.loop_lag_ms, limits.loop_lag_p99_ms),
    )
    for name, values, limit in checks:
        p99 = values["p99"]
        if p99 is not None and p99 > limit:
            reasons.append(f"{name} p99 {p99:.0f} ms is above {limit:.0f} ms: {_why(run.workers, limits)}")
    return reasons


def _why(workers: Sequence[WorkerFacts], limits: Limits) -> str:
    busy = [worker for worker in workers if worker.cpu_share >= limits.cpu_share]
    if not busy:
        return "the load generator was too slow"
    worker = max(busy, key=lambda one: one.cpu_share)
    return (
        f"the load generator was too slow (worker {worker.index} used {worker.cpu_share:.0%} of a core at "
        f"{worker.chunks_per_s:,.0f} chunks/s; give it more --processes)"
    )
