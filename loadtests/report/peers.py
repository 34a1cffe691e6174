"""The same raw events as other tools would count them: vLLM's `bench serve`, AIPerf and guidellm. Pure.

Written from their sources (vLLM 0.29 `benchmarks/serve.py` and `lib/endpoint_request_func.py`, guidellm 0.8.1
`schemas/base/request_stats.py`) and AIPerf's metrics reference. None of them is imported: what is here are their
formulas on our records, so that whoever knows one of them can read our figures. Where a record does not keep what a
tool looks at, the figure is left out. Successful requests of the measured window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from loadtests import metrics
from loadtests.records import Record
from loadtests.report.model import PeerFigure
from loadtests.scenario import Slo

Values = list[float]


def as_others_define(
    measured: Sequence[Record], slos: Mapping[str, Slo | None], window_s: float
) -> list[PeerFigure]:
    """Every figure that at least two of the four define; [] without a success."""
    done = [record for record in measured if record.ok]
    streams = [record for record in done if record.stream and record.first_content is not None]
    if not done:
        return []
    begin = min(record.sent for record in measured)
    vllm_s = max(record.ended for record in measured) - begin
    aiperf_s = max(record.last_content or record.ended for record in done) - begin
    tokens = sum(record.completion_tokens or 0 for record in done)
    ttft, tpot, e2e = _of(metrics.ttft_ms, streams), _of(metrics.tpot_ms, streams), _of(metrics.e2e_ms, done)
    first, last, every = _of(vllm_ttft_ms, streams), _of(vllm_tpot_ms, streams), _of(vllm_e2e_ms, done)
    gaps = [gap for record in streams for gap in record.gaps_ms]
    good = sum(metrics.is_good(record, slos.get(record.model)) for record in measured)
    figures = [
        *_spread("TTFT", ttft, first, ttft, ttft),
        *_spread("TPOT, tokens after the first", tpot, last, tpot, None),
        PeerFigure(
            term="TPOT, token-weighted mean", unit="ms", here=None, vllm=None, aiperf=None,
            guidellm=_weighted(guidellm_tpot_ms, lambda record: record.completion_tokens or 0, streams),
        ),
        PeerFigure(
            term="ITL, token-weighted mean", unit="ms", here=None, vllm=None, aiperf=None,
            guidellm=_weighted(metrics.tpot_ms, lambda record: (record.completion_tokens or 1) - 1, streams),
        ),
        *_spread("Gap between chunks", gaps or None, gaps or None, gaps or None, None),
        *_spread("End to end", e2e, every, e2e, _of(guidellm_latency_ms, done)),
        PeerFigure(
            term="Requests per second", unit="1/s", here=len(done) / window_s, vllm=_per(len(done), vllm_s),
            aiperf=_per(len(done), aiperf_s), guidellm=_per(len(done), vllm_s),
        ),
        PeerFigure(
            term="Output tokens per second", unit="1/s",
            here=metrics.output_tokens_within(measured, begin, begin + window_s) / window_s,
            vllm=_per(tokens, vllm_s), aiperf=_per(tokens, aiperf_s), guidellm=_per(tokens, vllm_s),
        ),
    ]  # fmt: skip
    if any(slos.values()):
        figures.append(
            PeerFigure(
                term="Goodput", unit="1/s", here=good / window_s,
                vllm=_per(_vllm_good(done, slos), vllm_s), aiperf=_per(_aiperf_good(done, slos), aiperf_s),
                guidellm=_per(_aiperf_good(done, slos), vllm_s),
            )
        )  # fmt: skip
    return [figure for figure in figures if _told(figure)]


def vllm_ttft_ms(record: Record) -> float | None:
    """To the first event that has choices, the role chunk included; None where the record has not kept it."""
    return None if record.first_event is None else (record.first_event - record.sent) * 1e3


def vllm_e2e_ms(record: Record) -> float | None:
    """To the last event before [DONE], the usage chunk included."""
    return None if record.last_event is None else (record.last_event - record.sent) * 1e3


def vllm_tpot_ms(record: Record) -> float | None:
    """(end to end − TTFT) / (n − 1), each as above."""
    first, whole, tokens = vllm_ttft_ms(record), vllm_e2e_ms(record), record.completion_tokens
    return None if first is None or whole is None or not tokens or tokens < 2 else (whole - first) / (tokens - 1)


def guidellm_tpot_ms(record: Record) -> float | None:
    """(last token − sent) / n."""
    whole, tokens = metrics.e2e_ms(record), record.completion_tokens
    return whole / tokens if whole is not None and tokens else None


def guidellm_latency_ms(record: Record) -> float | None:
    """To the end of the stream."""
    return (record.ended - record.sent) * 1e3


def _vllm_good(done: Sequence[Record], slos: Mapping[str, Slo | None]) -> int:
    def good(record: Record, slo: Slo | None) -> bool:
        if slo is None:
            return True
        # a request of one token counts with TPOT 0, one that was not streamed with its whole time as TTFT
        ttft = vllm_ttft_ms(record) or metrics.ttft_ms(record) or metrics.e2e_ms(record)
        tpot = vllm_tpot_ms(record) or metrics.tpot_ms(record) or 0.0
        return ttft is not None and ttft <= slo.ttft_ms and tpot <= slo.tpot_ms

    return sum(good(record, slos.get(record.model)) for record in done)


def _aiperf_good(done: Sequence[Record], slos: Mapping[str, Slo | None]) -> int:
    """Streams alone can be judged there; the others count as good nowhere."""

    def good(record: Record, slo: Slo | None) -> bool:
        if slo is None:
            return True
        ttft, tpot = metrics.ttft_ms(record), metrics.tpot_ms(record)
        return ttft is not None and ttft <= slo.ttft_ms and (tpot is None or tpot <= slo.tpot_ms)

    return sum(good(record, slos.get(record.model)) for record in done)


def _of(metric: Callable[[Record], float | None], records: Iterable[Record]) -> Values:
    return [value for record in records if (value := metric(record)) is not None]


def _weighted(
    metric: Callable[[Record], float | None], weight: Callable[[Record], float], records: Iterable[Record]
) -> float | None:
    found = [(value, weight(record)) for record in records if (value := metric(record)) is not None]
    whole = sum(part for _, part in found)
    return sum(value * part for value, part in found) / whole if whole else None


def _spread(term: str, *columns: Values | None) -> list[PeerFigure]:
    """Mean, median and p99 of the four columns."""
    ways: dict[str, Callable[[Values], float]] = {
        "mean": lambda values: float(np.mean(values)),
        "p50": lambda values: float(np.percentile(values, 50)),
        "p99": lambda values: float(np.percentile(values, 99)),
    }
    rows = []
    for name, way in ways.items():
        here, vllm, aiperf, guidellm = (way(values) if values else None for values in columns)
        rows.append(
            PeerFigure(term=f"{term}, {name}", unit="ms", here=here, vllm=vllm, aiperf=aiperf, guidellm=guidellm)
        )
    return rows


def _per(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None


def _told(figure: PeerFigure) -> bool:
    return any(value is not None for value in (figure.here, figure.vllm, figure.aiperf, figure.guidellm))
