"""What a model and the mix have in common: counts, latencies with intervals, rates, tokens, turns. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtests import metrics
from loadtests.metrics import quantiles
from loadtests.records import Record
from loadtests.report import costs
from loadtests.report.estimates import LATENCIES, QUANTILES, Sample, shown
from loadtests.report.model import Cost, Latency, LatencyKind, Rates, TokenFacts, Turn
from loadtests.statistics import mean_of, quantile_of

_CDF_POINTS = 160
_TURNS_SHOWN = 12


def group(sample: Sample, cost: Cost) -> dict[str, Any]:
    """The fields of `Group`."""
    measured, length = sample.measured, sample.window.length_s
    good = sum(sample.good(record) for record in measured)
    good_whole = sum(sample.good(record) for record in sample.whole)
    per_good = shown(sample.cost_per_good_request())
    return {
        **dict(costs.traffic(measured)),
        **dict(cost),
        "good": good,
        "good_whole_run": good_whole,
        "requests_per_s": len(measured) / length,
        "output_tokens_per_s": sum(
            metrics.output_tokens_within(sample.whole, start, end) for start, end in sample.window.spans
        ) / length,
        "goodput_per_s": good / length,
        "rates": Rates(
            requests=shown(sample.request_rate()),
            good_requests=shown(sample.goodput()),
            output_tokens=shown(sample.output_rate()),
        ),
        **{f"{kind}_ms": quantiles(sample.values(kind)) for kind in ("ttft", "tpot", "e2e")},
        "latencies": latencies(sample),
        "tokens": _tokens(measured),
        "turns": turns(sample),
        "whole_run": costs.traffic(sample.whole),
        "cost_per_good_request_usd": cost.cost_usd / good_whole if cost.cost_usd is not None and good_whole else None,
        "cost_per_good_request_interval_usd": per_good,
    }


def latencies(sample: Sample) -> dict[LatencyKind, Latency]:
    """All kinds that the records can tell; gaps between chunks only where the records kept them."""
    kinds: list[LatencyKind] = [*LATENCIES, "inter_chunk"]
    return {kind: latency(values) for kind in kinds if len(values := sample.values(kind)) or kind != "inter_chunk"}


def latency(values: np.ndarray) -> Latency:
    """Of milliseconds in order of time."""
    points = {name: shown(quantile_of(values, q)) for name, q in QUANTILES.items()}
    largest = float(values.max()) if len(values) else None
    return Latency(count=len(values), mean=shown(mean_of(values)), max=largest, cdf=cdf(values), **points)


def cdf(values: Sequence[float] | np.ndarray) -> list[tuple[float, float]]:
    """Points (value, share at or below), thinned; the first and the last value are among them."""
    if not len(values):
        return []
    ordered = np.sort(values)
    picks = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _CDF_POINTS)).round().astype(int))
    return [(float(ordered[i]), (int(i) + 1) / len(ordered)) for i in picks]


def turns(sample: Sample) -> list[Turn]:
    """The n-th requests of conversations; [] where there are no conversations."""
    grouped: dict[int, list[Record]] = defaultdict(list)
    for record in sample.measured:
        grouped[record.turn].append(record)
    if max(grouped, default=1) < 2:
        return []
    return [_turn(number, grouped[number], sample) for number in sorted(grouped)[:_TURNS_SHOWN]]


def _turn(number: int, records: Sequence[Record], sample: Sample) -> Turn:
    done = [record for record in records if record.ok]
    inputs = [record.prompt_tokens for record in done if record.prompt_tokens is not None]
    outputs = [record.completion_tokens for record in done if record.completion_tokens is not None]
    charged = [record.cost_usd for record in done if record.cost_usd is not None]

    def median(kind: LatencyKind):
        found = [value for record in done if (value := LATENCIES[kind](record)) is not None]
        return shown(quantile_of(found, 0.5))

    return Turn(
        turn=number,
        requests=len(records),
        errors=len(records) - len(done),
        input_tokens_mean=_mean(inputs),
        cached_share=_cached_share(done),
        output_tokens_mean=_mean(outputs),
        ttft_p50_ms=median("ttft"),
        tpot_p50_ms=median("tpot"),
        e2e_p50_ms=median("e2e"),
        good_share=metrics.share([sample.good(record) for record in records]),
        charged_cost_per_request_usd=_mean(charged),
    )


def _tokens(measured: Sequence[Record]) -> TokenFacts:
    done = [record for record in measured if record.ok]
    return TokenFacts(
        input=quantiles(record.prompt_tokens for record in done if record.prompt_tokens is not None),
        output=quantiles(record.completion_tokens for record in done if record.completion_tokens is not None),
        cached_share=_cached_share(done),
        finish_reasons=dict(Counter(record.finish_reason or "not said" for record in done).most_common()),
    )


def _cached_share(done: Sequence[Record]) -> float | None:
    """Cached input tokens over all; None where no answer said how many were cached."""
    told = [record for record in done if record.cached_tokens is not None and record.prompt_tokens]
    whole = sum(record.prompt_tokens or 0 for record in told)
    return sum(record.cached_tokens or 0 for record in told) / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
