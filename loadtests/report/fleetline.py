"""What the fleet said of itself during the run, on the run's own clock. Pure.

Counters become rates between neighbouring samples; a counter that falls (a process began anew) tells nothing for that
stretch. The bill between two moments is read off the counter by linear interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.fleetseries import FleetSample, ModelSample
from loadtests.report.model import FleetLine, FleetSeries

Value = float | None
_HOUR_S = 3600.0


def fleet_line(samples: Sequence[FleetSample], started_unix: float) -> FleetLine | None:
    """The samples as series per model; None of nothing. Moments are run seconds and may lie a little outside."""
    if not samples:
        return None
    at = [sample.at_unix - started_unix for sample in samples]
    names = sorted({name for sample in samples for name in sample.models if name})
    return FleetLine(
        at_s=at,
        models={name: _series(name, samples, at) for name in names},
        usd_per_hour=_rates(at, [_sum(s, lambda m: m.cost_usd) for s in samples], _HOUR_S),
        cost_usd=[_sum(sample, lambda model: model.cost_usd) for sample in samples],
    )


def _series(name: str, samples: Sequence[FleetSample], at: Sequence[float]) -> FleetSeries:
    nothing = ModelSample()
    own = [sample.models.get(name, nothing) for sample in samples]
    return FleetSeries(
        replicas=[one.replicas for one in own],
        starting=_starting(at, [one.cold_start_s for one in own]),
        waiting=[_added(one.queued, one.waiting) for one in own],
        running=[one.running if one.running is not None else one.in_flight for one in own],
        kv_used=[one.kv_used for one in own],
        usd_per_hour=_rates(at, [one.cost_usd for one in own], _HOUR_S),
    )


def _rates(at: Sequence[float], counts: Sequence[Value], scale: float) -> list[Value]:
    """Of each sample the growth since the one before, per second times `scale`; None for the first."""
    found: list[Value] = [None]
    for before, after, one, other in zip(at, at[1:], counts, counts[1:], strict=False):
        known = one is not None and other is not None and other >= one and after > before
        found.append((other - one) / (after - before) * scale if known else None)  # type: ignore[operator]
    return found


def _starting(at: Sequence[float], seconds: Sequence[Value]) -> list[Value]:
    """Replicas in their cold start, of each sample on average since the one before.

    A process that starts may be too busy to tell its seconds: what comes late is spread over the stretch before it in
    which nothing came, as far back as one replica needs. A counter that begins within the run begins at 0.
    """
    known = next((i for i, value in enumerate(seconds) if value is not None), None)
    counts = list(seconds)
    if known and counts[known] <= at[known] - at[0]:  # type: ignore[operator]
        counts[:known] = [0.0] * known
    found = _rates(at, counts, 1.0)
    for i, rate in enumerate(found):
        if rate is None or rate <= 1.0:
            continue
        first, spent = i, rate * (at[i] - at[i - 1])
        while first > 1 and found[first - 1] == 0.0 and at[i] - at[first - 1] < spent:
            first -= 1
        if first < i:
            found[first : i + 1] = [spent / (at[i] - at[first - 1])] * (i + 1 - first)
    return found


def _added(one: Value, other: Value) -> Value:
    return None if one is None and other is None else (one or 0.0) + (other or 0.0)


def _sum(sample: FleetSample, field: Callable[[ModelSample], Value]) -> Value:
    known = [value for model in sample.models.values() if (value := field(model)) is not None]
    return sum(known) if known else None


def bill(line: FleetLine | None, start_s: float, end_s: float) -> float | None:
    """What the whole fleet cost between two moments, USD; None where the samples do not reach over both."""
    if line is None:
        return None
    ends = [_at(line, moment) for moment in (start_s, end_s)]
    if ends[0] is None or ends[1] is None or ends[1] <= ends[0]:
        return None
    return ends[1] - ends[0]


def _at(line: FleetLine, moment: float) -> float | None:
    known = [(at, cost) for at, cost in zip(line.at_s, line.cost_usd, strict=True) if cost is not None]
    for (before, one), (after, other) in zip(known, known[1:], strict=False):
        if before <= moment <= after and after > before:
            return one + (other - one) * (moment - before) / (after - before)
    return None
