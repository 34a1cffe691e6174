"""The latency card: distributions per model with their percentiles, turn by turn, and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from loadtests.report import figures
from loadtests.report.charts import both
from loadtests.report.markup import card, details, muted, series_legend, table
from loadtests.report.model import Group, Latency, LatencyKind, Report
from loadtests.report.pictures import cdf

KINDS: dict[LatencyKind, str] = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "inter_chunk": "gap between chunks",
    "e2e": "end to end",
    "ttft_from_scheduled": "TTFT from the scheduled time",
}
_TITLES: dict[LatencyKind, str] = {
    "ttft": "Time to first token",
    "tpot": "Time per output token after the first",
    "inter_chunk": "Gaps between chunks",
    "e2e": "End to end",
    "ttft_from_scheduled": "Time to first token, from when the request was due",
}


def latency_card(report: Report) -> str:
    """A drawing and a table per kind of latency."""
    names = list(report.models)
    body = ""
    for kind, label in KINDS.items():
        found = {name: model.latencies[kind] for name, model in report.models.items() if kind in model.latencies}
        if not any(item.count for item in found.values()):
            continue
        # colours go with the model, whatever kinds it has
        curves = {name: found.get(name, _nothing()) for name in names}
        limits = _limits(report, kind)
        picture = both(lambda width, key, c=curves, li=limits, la=label: cdf(c, li, la, width, key), f"cdf-{kind}")
        rows = [(escape(name), item) for name, item in found.items()]
        if kind in report.totals.latencies:
            rows.append(("All", report.totals.latencies[kind]))
        shown = picture + _percentiles(_TITLES[kind], rows)
        if kind == "ttft_from_scheduled":
            body += details("Time to first token from when the request was due, which a late load generator would hide",
                            shown)
        else:
            body += f"<h3>{_TITLES[kind]}</h3>{shown}"
    if not body:
        return ""
    intro = muted("Share of successful requests at or below; streamed ones for TTFT, TPOT and gaps.")
    return card("Latency", intro + series_legend(enumerate(map(escape, names))) + body)


def _percentiles(title: str, rows: list[tuple[str, Latency]]) -> str:
    heads = ["ms", "Count", "Mean", "p50", "p90", "p95", "p99", "Largest"]
    cells = [
        [
            name,
            figures.count(item.count),
            *(
                figures.ms(found.value if found else None) + f"<small>{figures.span(found, figures.ms)}</small>"
                for found in (item.mean, item.p50, item.p90, item.p95, item.p99)
            ),
            figures.ms(item.max),
        ]
        for name, item in rows
    ]
    return table(f"{title}, ms, with 95% confidence intervals", heads, cells)


def _limits(report: Report, kind: LatencyKind) -> Mapping[str, float]:
    if kind not in ("ttft", "tpot"):
        return {}
    return {name: getattr(m.slo, f"{kind}_ms") for name, m in report.models.items() if m.slo is not None}


def _nothing() -> Latency:
    return Latency(count=0, mean=None, p50=None, p90=None, p95=None, p99=None, max=None, cdf=[])


def turns_card(report: Report) -> str:
    """Conversations turn by turn; "" where there are none."""
    groups: list[tuple[str, Group]] = [(escape(name), m) for name, m in report.models.items() if m.turns]
    if not groups:
        return ""
    heads = [
        "Turn", "Requests", "Errors", "Input<small>tokens</small>", "Cached<small>of input</small>",
        "Output<small>tokens</small>", "TTFT p50<small>ms</small>", "TPOT p50<small>ms</small>",
        "End to end p50<small>ms</small>", "In SLO", "Charged<small>per request</small>",
    ]  # fmt: skip
    body = muted("Every turn sends the conversation so far. Turn 1 has the single questions in it too.")
    for name, group in [*groups, ("All", report.totals)]:
        rows = [
            [
                str(turn.turn),
                figures.count(turn.requests),
                figures.count(turn.errors),
                _number(turn.input_tokens_mean),
                figures.percent(turn.cached_share, 0),
                _number(turn.output_tokens_mean),
                *(
                    figures.ms(found.value if found else None) + f"<small>{figures.span(found, figures.ms)}</small>"
                    for found in (turn.ttft_p50_ms, turn.tpot_p50_ms, turn.e2e_p50_ms)
                ),
                figures.percent(turn.good_share, 0),
                figures.usd(turn.charged_cost_per_request_usd),
            ]
            for turn in group.turns
        ]
        shown = table(f"Turns of {name}", heads, rows)
        body += shown if name == "All" or len(groups) == 1 else details(name, shown)
        if len(groups) == 1:
            break
    return card("Conversations, turn by turn", body, "turns")


def tokens_card(report: Report) -> str:
    """Tokens per request and how answers ended."""
    heads = [
        "Model", "Input p50<small>tokens</small>", "p95", "Largest", "Cached<small>of input</small>",
        "Output p50<small>tokens</small>", "p95", "Largest", "Input<small>whole run</small>",
        "Output<small>whole run</small>", "Answers ended by",
    ]  # fmt: skip
    rows = []
    for name, row in [*report.models.items(), ("All", report.totals)]:
        tokens = row.tokens
        ended = ", ".join(f"{escape(reason)} {count:,}" for reason, count in tokens.finish_reasons.items())
        rows.append(
            [
                escape(name),
                *(_number(tokens.input[which]) for which in ("p50", "p95", "max")),
                figures.percent(tokens.cached_share, 0),
                *(_number(tokens.output[which]) for which in ("p50", "p95", "max")),
                figures.count(row.whole_run.input_tokens),
                figures.count(row.whole_run.output_tokens),
                ended or figures.DASH,
            ]
        )
    return card("Tokens", table("Tokens per successful request", heads, rows, last_is_sum=True, text_columns=(10,)))


def _number(value: float | int | None) -> str:
    return figures.DASH if value is None else f"{value:,.0f}"
