"""What the raw records mean: TTFT, TPOT, goodput and the rest, each in one place.

Pure functions of records; the definitions are those of the report's definition card. Percentiles are exact,
from all values, with linear interpolation between neighbours (numpy's default), never averaged over groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from loadtests.records import Record
from loadtests.scenario import Slo


def quantiles(values: Iterable[float]) -> dict[str, float | int | None]:
    """Count, mean, p50, p90, p95, p99 and max of the values, in their unit; None where there are none."""
    array = np.fromiter(values, dtype=float)
    if not len(array):
        return {"count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None, "max": None}
    p50, p90, p95, p99 = (float(value) for value in np.percentile(array, (50, 90, 95, 99)))
    return {
        "count": len(array),
        "mean": float(array.mean()),
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99,
        "max": float(array.max()),
    }


def ttft_ms(record: Record) -> float | None:
    """Time to first token: first content or reasoning chunk − sent. None if not streamed or nothing came."""
    if not record.stream or record.first_content is None:
        return None
    return (record.first_content - record.sent) * 1e3


def ttft_from_scheduled_ms(record: Record) -> float | None:
    """As ttft_ms, but from when the request was due: what a late load generator would otherwise hide."""
    if not record.stream or record.first_content is None:
        return None
    return (record.first_content - record.scheduled) * 1e3


def e2e_ms(record: Record) -> float | None:
    """Sent to the last content chunk; to the whole answer if not streamed. None if nothing came."""
    return None if record.last_content is None else (record.last_content - record.sent) * 1e3


def tpot_ms(record: Record) -> float | None:
    """Time per output token after the first: (e2e − TTFT) / (n − 1), n = usage.completion_tokens.

    None if not streamed, if n is unknown or below 2.
    """
    first, whole, tokens = ttft_ms(record), e2e_ms(record), record.completion_tokens
    if first is None or whole is None or tokens is None or tokens < 2:
        return None
    return (whole - first) / (tokens - 1)


def meets_ttft(record: Record, slo: Slo) -> bool:
    """Whether the first token came in time; an error is a miss."""
    value = ttft_ms(record)
    return record.ok and value is not None and value <= slo.ttft_ms


def meets_tpot(record: Record, slo: Slo) -> bool:
    """Whether the tokens kept their pace; an error is a miss, an answer of one token has no pace to miss."""
    if not record.ok:
        return False
    value = tpot_ms(record)
    if value is None:
        return record.completion_tokens == 1
    return value <= slo.tpot_ms


def is_good(record: Record, slo: Slo | None) -> bool:
    """Whether a request meets every objective.

    Not streamed: the whole answer within the time the objectives allow a stream of its length,
    TTFT + (n − 1) · TPOT; an embedding, which has no tokens, within TTFT. Without objectives every success is good.
    """
    if slo is None or not record.ok:
        return record.ok
    if record.stream:
        return meets_ttft(record, slo) and meets_tpot(record, slo)
    whole, tokens = e2e_ms(record), record.completion_tokens
    return whole is not None and tokens is not None and whole <= slo.ttft_ms + max(0, tokens - 1) * slo.tpot_ms


def share(flags: Sequence[bool]) -> float | None:
    """Share of true values; None of nothing."""
    return sum(flags) / len(flags) if flags else None


def output_tokens_within(records: Iterable[Record], start: float, end: float) -> float:
    """Output tokens delivered in [start, end), run seconds.

    The tokens of a stream are spread evenly between its first and last chunk, so that work that began before
    the window or ended after it counts with the part that fell inside.
    """
    total = 0.0
    for record in records:
        if record.first_content is None or record.last_content is None or not record.completion_tokens:
            continue
        first, last = record.first_content, record.last_content
        if last <= first:
            inside = 1.0 if start <= last < end else 0.0
        else:
            inside = max(0.0, min(last, end) - max(first, start)) / (last - first)
        total += inside * record.completion_tokens
    return total
