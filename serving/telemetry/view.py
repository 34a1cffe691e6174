"""A fleet as a person watches it: what two scrapes of its metrics, some seconds apart, say about each model.

Pure. `flotilla top` and the console show the same figures.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from serving.fleet.slos import Slo

_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scrape:
    """All samples of one moment. `at`: seconds of any clock that only goes forward."""

    at: float
    samples: Mapping[str, Mapping[_Labels, float]]

    @classmethod
    def parse(cls, at: float, text: str) -> Scrape:
        """From Prometheus' text form. Raises: ValueError when it is not."""
        found: dict[str, dict[_Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at, found)

    @classmethod
    def together(cls, at: float, scrapes: Mapping[str, Scrape]) -> Scrape:
        """Of several places as one; a sample's place is one more label of it, `instance`."""
        found: dict[str, dict[_Labels, float]] = defaultdict(dict)
        for place, scrape in scrapes.items():
            for name, samples in scrape.samples.items():
                for labels, value in samples.items():
                    found[name][tuple(sorted((*labels, ("instance", place))))] = value
        return cls(at, found)

    def by(self, name: str, *labels: str, **only: str) -> dict[tuple[str, ...], float]:
        """Sums of a metric by these labels, of series that carry `only`."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for found, value in self.samples.get(name, {}).items():
            has = dict(found)
            if all(has.get(k) == v for k, v in only.items()):
                sums[tuple(has.get(label, "") for label in labels)] += value
        return dict(sums)


@dataclass(frozen=True)
class ModelView:
    """One model now. Rates and quantiles over the time between the scrapes; None: nothing happened that would say.

    `tokens_per_s`: output tokens of requests that ended. Quantiles: seconds. `usd_per_request`: fully loaded, of
    requests that ended in that time. `apis`: what the tokens of all requests so far would have cost at each API over
    their cost.
    """

    model: str
    replicas: int = 0
    in_flight: int = 0
    queued: int = 0
    requests_per_s: float = 0.0
    errors_per_s: float = 0.0
    tokens_per_s: float = 0.0
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tpot_p50_s: float | None = None
    usd_per_hour: float = 0.0
    usd_per_request: float | None = None
    busy: float | None = None
    slo: Slo | None = None
    apis: Mapping[str, float] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        """Whether the median of time to first token is above what the model promises."""
        return bool(self.slo and self.ttft_p50_s is not None and self.ttft_p50_s * 1e3 > self.slo.ttft_ms)


@dataclass(frozen=True)
class FleetView:
    """All models, and what belongs to none. `residual_nanousd`, `ledger_up`: None where not told."""

    models: tuple[ModelView, ...]
    usd_per_hour: float
    ledger_up: bool | None
    residual_nanousd: float | None


def view(before: Scrape, after: Scrape, slos: Mapping[str, Slo]) -> FleetView:
    """The fleet between two scrapes; models without replicas are there too."""
    span = max(after.at - before.at, 1e-9)
    cost = _rates(before, after, span, "flotilla_cost_usd_total", "model")
    up, residual = after.by("flotilla_ledger_up"), after.by("flotilla_attribution_residual_nanousd")
    return FleetView(
        tuple(_model(name, slo, before, after, span, cost.get((name,), 0.0)) for name, slo in slos.items()),
        3600 * sum(cost.values()), bool(up[()]) if up else None, residual.get(()),
    )


class Window:
    """The newest scrapes of some seconds, and what they say together."""

    def __init__(self, slos: Mapping[str, Slo], seconds: float) -> None:
        self._slos, self._seconds = slos, seconds
        self._kept: deque[Scrape] = deque()

    def add(self, scrape: Scrape) -> FleetView:
        """The fleet from the oldest scrape that is still looked at to this one. The first one knows no rates."""
        self._kept.append(scrape)
        while len(self._kept) > 2 and self._kept[1].at <= scrape.at - self._seconds:
            self._kept.popleft()
        return view(self._kept[0], scrape, self._slos)


def _model(name: str, slo: Slo, before: Scrape, after: Scrape, span: float, cost: float) -> ModelView:
    codes = _rates(before, after, span, "flotilla_requests_total", "code", model=name)
    busy = _rates(before, after, span, "flotilla_replica_seconds_total", "state", model=name)
    ready = busy.get(("busy",), 0.0) + busy.get(("idle",), 0.0)
    ttft = _histogram(before, after, "flotilla_time_to_first_token_seconds_bucket", name)
    tpot = _histogram(before, after, "flotilla_time_per_output_token_seconds_bucket", name)
    answered, charged = (_sum(_rates(before, after, span, f"flotilla_request_cost_usd_{part}", "model", model=name))
                         for part in ("count", "sum"))
    ours = _sum(after.by("flotilla_cost_usd_total", "model", model=name))
    theirs = after.by("flotilla_counterfactual_usd_total", "comparator", model=name)
    return ModelView(
        name, int(_sum(after.by("flotilla_replicas", model=name))),
        int(_sum(after.by("flotilla_requests_in_flight", model=name))),
        int(_sum(after.by("flotilla_requests_queued", model=name))), _sum(codes),
        sum(rate for (code,), rate in codes.items() if code.startswith("5")),
        _sum(_rates(before, after, span, "flotilla_tokens_total", "kind", model=name, kind="completion")),
        quantile(0.5, ttft), quantile(0.95, ttft), quantile(0.5, tpot), 3600 * cost,
        charged / answered if answered else None, busy.get(("busy",), 0.0) / ready if ready else None, slo,
        {api: usd / ours for (api,), usd in theirs.items()} if ours else {},
    )


def _rates(before: Scrape, after: Scrape, span: float, name: str, *labels: str, **only: str
           ) -> dict[tuple[str, ...], float]:
    """Increase per second of each series, added up; a counter that went back began anew, one that has gone counts no
    more."""
    then = before.samples.get(name, {})
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for series, value in after.samples.get(name, {}).items():
        has = dict(series)
        if all(has.get(k) == v for k, v in only.items()):
            grown = value - then.get(series, 0.0)
            found[tuple(has.get(label, "") for label in labels)] += (grown if grown >= 0 else value) / span
    return dict(found)


def _histogram(before: Scrape, after: Scrape, name: str, model: str) -> list[tuple[float, float]]:
    """Cumulative counts by upper bound of what came between the scrapes."""
    rates = _rates(before, after, 1.0, name, "le", model=model)
    return sorted((float(bound), count) for (bound,), count in rates.items())


def quantile(share: float, cumulative: Iterable[tuple[float, float]]) -> float | None:
    """As PromQL's histogram_quantile: linear within a bucket. None of no observations; in the last bucket its lower
    bound."""
    buckets = list(cumulative)
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank, lower, below = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower
            return bound if count == below else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return None


def _sum(found: Mapping[tuple[str, ...], float]) -> float:
    return sum(found.values())
