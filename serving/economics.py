"""Puts together what break-even needs: a model's fitted step model, its mean request, its hours, its comparators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.costs.breakeven import BreakEven, Shape, break_even, capacity
from serving.costs.rows import Time, time_of
from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, comparisons
from serving.fleet.money import usd
from serving.fleet.prices import PriceBook
from serving.fleet.records import StepFit
from serving.ledger import sums
from serving.ledger.store import Ledger


@dataclass(frozen=True)
class Found:
    """A model's break-even with all that it rests on. `missing`: why there is none."""

    model: str
    variant: str = ""
    max_num_seqs: int = 0
    shape: Shape | None = None
    requests: int = 0
    replica_hours: float = 0.0
    fit: StepFit | None = None
    even: BreakEven | None = None
    missing: str = ""


def gather(ledger: Ledger, fleet: Fleet, book: PriceBook, now: float, since: float = 0.0,
           models: Sequence[str] = (), until: float = 1e18) -> list[Found]:
    """Break-even of each model of the fleet, or of these. Times: Unix seconds. Raises: ConfigError."""
    for name in models:
        if name not in fleet.models:
            raise ConfigError(f"no model {name!r} in the fleet file; there are: {', '.join(fleet.models)}")
    time = time_of(sums.intervals(ledger), since, until)  # also those that began before
    fits = _fits(sums.totals(ledger, now))
    return [_of(ledger, fleet, book, name, since, time, fits) for name in models or fleet.models]


def _fits(totals: sums.Totals) -> dict[str, tuple[str, StepFit]]:
    """Each model's step model that has learned from most steps, with its variant."""
    found: dict[str, tuple[str, StepFit]] = {}
    for source in totals.replicas:
        fit = source.record.fit
        if fit and (source.model not in found or fit.steps > found[source.model][1].steps):
            found[source.model] = (source.record.variant, fit)
    return found


def _of(ledger: Ledger, fleet: Fleet, book: PriceBook, name: str, since: float, time: Time,
        fits: dict[str, tuple[str, StepFit]]) -> Found:
    rate, seen = time.models.get(name), sums.shapes(ledger, name, since)
    if rate is None or not rate.elapsed_ns:
        return Found(name, missing="none of its replicas ran in this time")
    if seen is None:
        return Found(name, missing="it has answered no request in this time")
    variant, fit = fits.get(name, ("", None))
    shape = Shape(seen.prompt, seen.cached, seen.completion)
    seqs, hours = fleet.models[name].engine.max_num_seqs, rate.elapsed_ns / 3.6e12
    found = Found(name, variant, seqs, shape, seen.requests, hours, fit)
    if fit is None:
        return Found(name, variant, seqs, shape, seen.requests, hours, missing="its replicas have no fitted step model "
                     "yet: measured numbers are needed, which come with traffic (some hundred engine steps)")
    try:
        mu = capacity(fit, shape, seqs)
    except ValueError as error:
        return Found(name, variant, seqs, shape, seen.requests, hours, fit, missing=str(error))
    apis = comparisons(fleet, name, book)
    cost = {c.name: float(c.input) * (shape.prompt - shape.cached) + float(c.cached_input) * shape.cached
            + float(c.output) * shape.completion for c in apis}
    even = break_even(name, usd(rate.nanousd_per_hour), time.overhead_factor, mu, seen.requests / (hours * 3600), cost,
                      {c.name: c.role for c in apis})
    return Found(found.model, variant, seqs, shape, seen.requests, hours, fit, even)
