"""The card of the run over time: what clients saw, and under it what the fleet said of itself, on one clock."""

from __future__ import annotations

from html import escape

from loadtests.report import figures
from loadtests.report.charts import plain
from loadtests.report.markup import card, muted, series_legend
from loadtests.report.model import Report
from loadtests.report.timecharts import Clock, Panel, bins, panels

#: Colour of what is the whole fleet's.
TOTAL = 7


def time_card(report: Report) -> str:
    """Panels one below the other, on one clock."""
    shown = [*client_panels(report), *fleet_panels(report)]
    return card("Over time", _intro(report) + panels(shown, clock_of(report)), "over-time")


def clock_of(report: Report) -> Clock:
    """The run's length and what of it was not measured."""
    length = len(report.timeline.sent) * report.timeline.bin_s
    stages = [(stage.start_s, stage.name) for stage in report.run.stages]
    if report.run.kind == "mix":
        warmup = ((0.0, report.run.warmup_s),) if report.run.warmup_s else ()
        return Clock(length, warmup, tuple(stages[1:]))
    # between passes, and while a pass settles
    edges = [0.0, *(edge for stage in report.run.stages for edge in (stage.start_s, stage.end_s)), length]
    gaps = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if b > a]
    return Clock(length, tuple(gaps), tuple(stages))


def _intro(report: Report) -> str:
    names = list(report.models)
    shaded = "; what is shaded was not measured" if clock_of(report).unmeasured else ""
    bars = '<li><i style="background:var(--bad)"></i>failed</li>'
    text = f"Bins of {report.timeline.bin_s:g} s{shaded}. Sent and first tokens by the time of sending."
    if report.fleet_line is not None:
        text += f" From replicas on: the fleet's own metrics, {len(report.fleet_line.at_s)} samples on the same clock."
    elif report.run.scrape is not None:
        text += f" The fleet's own metrics could not be read: {escape(report.run.scrape.last_error)}."
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


def fleet_panels(report: Report) -> list[Panel]:
    """Replicas, cold starts, queues, work under way, KV cache and the bill; [] where nobody looked."""
    line = report.fleet_line
    if line is None:
        return []
    # the colours of the models of the load test; others of the fleet have no line
    names = [(index, name) for index, name in enumerate(report.models) if name in line.models]

    def of(field: str, scale: float = 1.0) -> dict[int, list]:
        return {
            index: [
                (at, None if value is None else value * scale)
                for at, value in zip(line.at_s, getattr(line.models[name], field), strict=True)
                if at >= 0
            ]
            for index, name in names
        }

    bill = {TOTAL: [(at, value) for at, value in zip(line.at_s, line.usd_per_hour, strict=True) if at >= 0]}
    return [
        Panel("fleet-replicas", "replicas", of("replicas"), "that take requests", steps=True),
        Panel("fleet-starting", "replicas in cold start", of("starting"), "on average since the sample before"),
        Panel("fleet-waiting", "requests waiting, in gateways and engines", of("waiting"), "queue depth"),
        Panel("fleet-running", "requests running in engines", of("running"), "running"),
        Panel("fleet-kv", "KV cache in use, %", of("kv_used", 100.0), "share of the blocks"),
        Panel("fleet-bill", "the whole fleet's bill, USD per hour", bill, "cost rate", text=plain),
    ]  # fmt: skip
