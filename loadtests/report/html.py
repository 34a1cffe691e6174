"""The report as one HTML file that opens anywhere, offline, with nothing to load and no script.

Everything that came from outside (names, error messages, URLs) is escaped where it enters the page.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from html import escape

from loadtests.report import charts, figures
from loadtests.report.costcard import cost_card
from loadtests.report.markup import card, legend, table
from loadtests.report.model import ModelReport, Report, Totals
from loadtests.report.style import CSS

_WIDE, _NARROW = 1040, 340
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_html(report: Report) -> str:
    """The whole page."""
    title = escape(f"{report.run.scenario} on {report.fleet.name}")
    sections = (
        _verdict(report),
        _notes(report),
        _headlines(report),
        _models(report),
        cost_card(report),
        _latency(report),
        _timeline(report),
        _errors(report),
        _facts(report),
        _definitions(report),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        f"<title>{title}: load test</title><style>{CSS}</style></head><body><main>"
        f'<h1>{title}</h1><p class="sub">{_subtitle(report)}</p>{"".join(sections)}</main></body></html>\n'
    )


def _subtitle(report: Report) -> str:
    run = report.run
    started = datetime.fromtimestamp(run.started_unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    measured = f"{run.duration_s - run.warmup_s:g} s measured after {run.warmup_s:g} s of warm-up"
    return f"Load test of {len(report.models)} models together · {started} · {measured}"


def _verdict(report: Report) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in report.verdict.reasons)
    result = report.verdict.result
    return f'<div class="card verdict {result}"><b>{result.upper()}</b><ul>{reasons}</ul></div>'


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return f'<div class="card notes"><h2>Before you read on</h2><ul>{items}</ul></div>'


def _headlines(report: Report) -> str:
    totals = report.totals
    heads = (
        ("Requests", figures.count(totals.requests), f"{figures.rate(totals.requests_per_s)} per second"),
        ("Errors", figures.count(totals.errors), figures.percent(_share(totals.errors, totals.requests))),
        ("Output", figures.rate(totals.output_tokens_per_s), "tokens per second"),
        ("TTFT p50", figures.ms(totals.ttft_ms["p50"]), f"ms; p99 {figures.ms(totals.ttft_ms['p99'])} ms"),
        ("TPOT p50", figures.ms(totals.tpot_ms["p50"]), "ms per output token"),
        ("Goodput", figures.rate(totals.goodput_per_s), _attained(totals.slo_attainment)),
        ("Cost per request", figures.usd(totals.cost_per_request_usd), _basis(totals.cost_basis)),
        ("Cost per 1M tokens", figures.usd(totals.cost_per_mtok_usd), _basis(totals.cost_basis)),
    )
    cards = (
        f'<div class="head"><span>{name}</span><strong>{value}</strong><small>{small}</small></div>'
        for name, value, small in heads
    )
    return f'<div class="heads">{"".join(cards)}</div>'


def _models(report: Report) -> str:
    heads = [
        "Model",
        "Requests",
        "Errors",
        "Output<small>tokens/s</small>",
        "TTFT p50<small>ms</small>",
        "p99",
        "TPOT p50<small>ms</small>",
        "p99",
        "End to end p50<small>ms</small>",
        "p99",
        "In SLO",
        "Goodput<small>req/s</small>",
    ]
    rows = [
        _row(name, model, _about(model), model.slo_attainment.all) for name, model in report.models.items()
    ]
    rows.append(_row("All", report.totals, "", report.totals.slo_attainment))
    below = "".join(_muted(_objectives(name, model)) for name, model in report.models.items() if model.slo)
    return card("Models", table(heads, rows, last_is_sum=True) + below)


def _objectives(name: str, model: ModelReport) -> str:
    slo, attained = model.slo, model.slo_attainment
    assert slo is not None
    ttft = f"TTFT ≤ {slo.ttft_ms:g} ms met by {figures.percent(attained.ttft)}"
    tpot = f"TPOT ≤ {slo.tpot_ms:g} ms by {figures.percent(attained.tpot)}"
    return f"{escape(name)}: {ttft}, {tpot} (goal {attained.goal:.0%})"


def _row(name: str, row: ModelReport | Totals, about: str, attained: float | None) -> list[str]:
    errors = figures.count(row.errors)
    return [
        escape(name) + (f"<small>{about}</small>" if about else ""),
        figures.count(row.requests),
        f'<span class="wrong">{errors}</span>' if row.errors else errors,
        figures.rate(row.output_tokens_per_s),
        *(
            figures.ms(values[which])
            for values in (row.ttft_ms, row.tpot_ms, row.e2e_ms)
            for which in ("p50", "p99")
        ),
        figures.percent(attained),
        figures.rate(row.goodput_per_s),
    ]


def _about(model: ModelReport) -> str:
    price = f"{figures.usd(model.price_usd_per_hour)}/h" if model.price_usd_per_hour is not None else ""
    random = "random weights" if model.random_weights else ""
    return " · ".join(escape(part) for part in (model.accelerator, price, random) if part)


def _latency(report: Report) -> str:
    curves = {name: model.ttft_cdf for name, model in report.models.items()}
    if not any(curves.values()):
        return ""
    names = [(escape(name), f"--c{index % charts.SERIES}") for index, name in enumerate(curves)]
    drawing = _both(lambda width: charts.ttft_cdf(curves, width))
    return card(
        "Time to first token", _muted("Share of streamed requests at or below") + legend(names) + drawing
    )


def _timeline(report: Report) -> str:
    timeline, warmup = report.timeline, report.run.warmup_s
    shaded = "; warm-up shaded" if warmup else ""
    names = [("sent", "--c0"), ("completed", "--c1"), ("failed", "--bad")]
    rates = _both(lambda width: charts.traffic_timeline(timeline, warmup, width))
    medians = _both(lambda width: charts.ttft_timeline(timeline, warmup, width))
    if medians:
        medians = "<h3>TTFT p50, ms, by second of sending</h3>" + medians
    return card("Over time", _muted(f"Requests per second{shaded}") + legend(names) + rates + medians)


def _both(draw: Callable[[int], str]) -> str:
    wide = draw(_WIDE)
    return f'<div class="wide">{wide}</div><div class="narrow">{draw(_NARROW)}</div>' if wide else ""


def _errors(report: Report) -> str:
    if not report.errors:
        return ""
    heads = ["Model", "Kind", "Count", "In warm-up", '<span class="text">Example</span>']
    rows = [
        [
            escape(group.model),
            escape(group.kind),
            str(group.count),
            str(group.in_warmup),
            escape(group.example),
        ]
        for group in report.errors
    ]
    return card("Errors", table(heads, rows, text_columns=(4,)))


def _facts(report: Report) -> str:
    run, arrivals = report.run, report.run.arrivals
    lateness, lag = run.dispatch_lateness_ms, run.loop_lag_ms
    facts = [
        ("Scenario", f"{run.scenario} ({run.scenario_file}), seed {run.seed}"),
        ("Fleet", " · ".join(part for part in (report.fleet.name, report.fleet.file) if part)),
        # Without its scheme, so that no reader turns it into a link.
        ("Endpoint", run.base_url.split("://", 1)[-1]),
        (
            "Arrivals",
            f"{arrivals.sent} of {arrivals.scheduled} sent; {arrivals.achieved_rate_per_s:.2f} of "
            f"{arrivals.requested_rate_per_s:.2f} per second",
        ),
        ("Dispatch lateness", f"p50 {figures.ms(lateness['p50'])}, p99 {figures.ms(lateness['p99'])} ms"),
        ("Event-loop lag", f"p50 {figures.ms(lag['p50'])}, p99 {figures.ms(lag['p99'])} ms"),
        (
            "Longest gap in a stream, p99",
            ", ".join(
                f"{name} {figures.ms(m.longest_gap_ms['p99'])} ms" for name, m in report.models.items()
            ),
        ),
        (
            "TTFT p99 from the scheduled time",
            ", ".join(
                f"{name} {figures.ms(m.ttft_from_scheduled_ms['p99'])} ms"
                for name, m in report.models.items()
            ),
        ),
        ("Load generator", f"Locust {run.locust_version}, Python {run.python_version}"),
    ]
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return card("The run", f'<dl class="facts">{items}</dl>')


def _definitions(report: Report) -> str:
    items = []
    for definition in report.definitions:
        others = (("vLLM", definition.vllm), ("AIPerf", definition.aiperf), ("guidellm", definition.guidellm))
        told = " ".join(f"<b>{name}:</b> {escape(text)}" for name, text in others if text != figures.DASH)
        items.append(f"<dt>{escape(definition.term)}</dt><dd>{escape(definition.here)}</dd>")
        items.append(f'<dd class="others">{told}</dd>' if told else "")
    return card("Definitions", f'<dl class="defs">{"".join(items)}</dl>')


def _muted(text: str) -> str:
    return f'<p class="muted">{text}</p>'


def _basis(basis: str | None) -> str:
    return {"fully_loaded": "fully loaded", "charged": "as charged"}.get(basis or "", "not known")


def _attained(share: float | None) -> str:
    return "req/s; no objectives" if share is None else f"req/s; {figures.percent(share)} in SLO"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
