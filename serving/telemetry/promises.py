"""What was promised and what was kept: each promise of the fleet file's slo, held against what gateways have counted.

Pure. Counted since the gateways began; `flotilla rules` has Prometheus count over 30 days.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from serving.fleet.slos import PROMISES, Promise, Slo
from serving.telemetry.view import Scrape


@dataclass(frozen=True)
class Kept:
    """One promise. `at_most_s`: the threshold, of those that have one. `objective`: the share that must be good;
    `share`: the share that was. `left`: of the error budget: 1 is all of it, 0 none, below 0 more was missed than
    promised. None: it was made to no request yet."""

    promise: Promise
    at_most_s: float | None
    objective: float
    eligible: int
    missed: int
    share: float | None
    left: float | None


@dataclass(frozen=True)
class Promised:
    """What a model promises to a tenant of its own, or to everyone, where `tenant` is empty."""

    model: str
    tenant: str
    promises: tuple[Kept, ...]


def promised(slos: Mapping[str, Slo], scrape: Scrape) -> tuple[Promised, ...]:
    """Of each model first what it promises to everyone, then to single tenants."""
    return tuple(_each(slos, scrape))


def _each(slos: Mapping[str, Slo], scrape: Scrape) -> Iterator[Promised]:
    by = ("model", "tenant", "promise")
    everyone = [scrape.by(f"flotilla_slo_{what}_total", "model", "promise") for what in ("eligible", "missed")]
    tenants = [scrape.by(f"flotilla_tenant_promise_{what}_total", *by) for what in ("eligible", "missed")]
    for model, slo in slos.items():
        yield _promised(slo, model, "", [{p: n for (m, p), n in found.items() if m == model} for found in everyone])
        for tenant, own in slo.own().items():
            yield _promised(own, model, tenant, [
                {p: n for (m, t, p), n in found.items() if (m, t) == (model, tenant)} for found in tenants])


def _promised(slo: Slo, model: str, tenant: str, counts: list[dict[str, float]]) -> Promised:
    eligible, missed = counts
    return Promised(model, tenant, tuple(_kept(slo, p, int(eligible.get(p, 0)), int(missed.get(p, 0)))
                                         for p in PROMISES))


def _kept(slo: Slo, promise: Promise, eligible: int, missed: int) -> Kept:
    at_most = {"ttft": slo.ttft_ms / 1e3, "tpot": slo.tpot_ms / 1e3}.get(promise)
    objective = slo.objective(promise)
    if not eligible:
        return Kept(promise, at_most, objective, 0, missed, None, None)
    bad = missed / eligible
    return Kept(promise, at_most, objective, eligible, missed, 1 - bad, 1 - bad / (1 - objective))
