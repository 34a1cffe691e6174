"""What happened when: counts, tokens and first-token times of a run in bins of time. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from loadtests import metrics
from loadtests.records import Record
from loadtests.report.model import Series, Timeline
from loadtests.scenario import Slo

_MOST_BINS = 150
_SIZES = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


def bin_size(length_s: float) -> float:
    """A round number of seconds that cuts the run into at most 150 bins."""
    return next((size for size in _SIZES if length_s / size <= _MOST_BINS), length_s / _MOST_BINS)


def timeline(records: Sequence[Record], names: Sequence[str], slos: Mapping[str, Slo | None]) -> Timeline:
    """The mix and each of its models."""
    length = max((record.ended for record in records), default=0.0)
    size = bin_size(length)
    bins = max(1, math.ceil(length / size))
    by_model: dict[str, list[Record]] = {name: [] for name in names}
    for record in records:
        by_model.setdefault(record.model, []).append(record)
    models = {name: _series(found, bins, size, slos) for name, found in by_model.items()}
    return Timeline(**dict(_series(records, bins, size, slos)), bin_s=size, models=models)


def _series(records: Sequence[Record], bins: int, size: float, slos: Mapping[str, Slo | None]) -> Series:
    sent, completed, good, errors = ([0] * bins for _ in range(4))
    tokens = np.zeros(bins)
    ttfts: list[list[float]] = [[] for _ in range(bins)]
    for record in records:
        # A request may be sent before the clock starts to count, by a hair.
        started, ended = (min(bins - 1, max(0, int(at / size))) for at in (record.sent, record.ended))
        sent[started] += 1
        (completed if record.ok else errors)[ended] += 1
        good[ended] += metrics.is_good(record, slos.get(record.model))
        value = metrics.ttft_ms(record) if record.ok else None
        if value is not None:
            ttfts[started].append(value)
        _deliver(record, tokens, size)
    return Series(
        sent=sent, completed=completed, good=good, errors=errors, output_tokens=[float(t) for t in tokens],
        ttft_p50_ms=_quantiles(ttfts, 0.5), ttft_p95_ms=_quantiles(ttfts, 0.95),
    )  # fmt: skip


def _quantiles(binned: Sequence[Sequence[float]], q: float) -> list[float | None]:
    return [float(np.quantile(values, q)) if values else None for values in binned]


def _deliver(record: Record, tokens: np.ndarray, size: float) -> None:
    """Spread a request's output tokens evenly between its first and last chunk."""
    if record.first_content is None or record.last_content is None or not record.completion_tokens:
        return
    bins = len(tokens)
    first, last = max(0.0, record.first_content / size), max(0.0, record.last_content / size)
    begin, end = (min(bins - 1, int(at)) for at in (first, last))
    if begin == end or last <= first:
        tokens[end] += record.completion_tokens
        return
    per_bin = record.completion_tokens / (last - first)
    tokens[begin] += per_bin * (begin + 1 - first)
    tokens[begin + 1 : end] += per_bin
    tokens[end] += per_bin * (last - end)
