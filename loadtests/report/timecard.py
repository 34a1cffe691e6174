"""The card of the run over time: what clients saw."""

from __future__ import annotations

from html import escape

from loadtests.report import figures
from loadtests.report.charts import plain
from loadtests.report.markup import card, muted, series_legend
from loadtests.report.model import Report
from loadtests.report.timecharts import Clock, Panel, bins, panels

#: Colours of the mix's own lines: after those of the models.
SENT, GOOD = 7, 2


def time_card(report: Report) -> str:
    """Panels one below the other, on one clock."""
    return card("Over time", _intro(report) + panels(client_panels(report), clock_of(report)), "over-time")


def clock_of(report: Report) -> Clock:
    """The run's length and what of it was not measured."""
    length = len(report.timeline.sent) * report.timeline.bin_s
    warmup = ((0.0, report.run.warmup_s),) if report.run.warmup_s else ()
    return Clock(length, warmup)


def _intro(report: Report) -> str:
    names = list(report.models)
    shaded = "; what is shaded was not measured" if report.run.warmup_s else ""
    bars = '<li><i style="background:var(--bad)"></i>failed</li>'
    text = f"Bins of {report.timeline.bin_s:g} s{shaded}. Sent and first tokens by the time of sending."
    return muted(text) + series_legend(enumerate(map(escape, names)), bars)


def client_panels(report: Report) -> list[Panel]:
    """Requests, goodput, tokens and first tokens, per model."""
    line, size = report.timeline, report.timeline.bin_s
    models = list(line.models.items())
    failed = [(n * size, (n + 1) * size, count / size) for n, count in enumerate(line.errors) if count]

    def of(field: str, per_second: bool) -> dict[int, list]:
        return {index: bins(getattr(series, field), size, per_second) for index, (_, series) in enumerate(models)}

    totals = report.totals
    sent, good = figures.rate(totals.requests_per_s), figures.rate(totals.goodput_per_s)
    return [
        Panel("time-sent", "requests sent, and failed, per second", of("sent", True), f"{sent} a second on average; "
              f"{line.errors and sum(line.errors)} failed", bars=failed),
        Panel("time-good", "good requests ended per second", of("good", True), f"{good} a second on average"),
        Panel("time-tokens", "output tokens per second", of("output_tokens", True),
              f"{figures.rate(totals.output_tokens_per_s)} a second on average", text=plain),
        Panel("time-ttft", "TTFT p50, ms", of("ttft_p50_ms", False),
              f"{figures.ms(totals.ttft_ms['p50'])} ms over the measured window"),
        Panel("time-ttft95", "TTFT p95, ms", of("ttft_p95_ms", False), "by bin and model"),
    ]  # fmt: skip
