"""The objectives card: each model's figures, its objectives with their intervals, and the picture of its latencies."""

from __future__ import annotations

from html import escape

from loadtests.report import figures
from loadtests.report.charts import both
from loadtests.report.markup import card, muted, table
from loadtests.report.model import Group, ModelReport, Report
from loadtests.report.pictures import Spread, percentiles

_ANSWERS = {"met": "met", "missed": "missed", "undecided": "too few to tell", None: figures.DASH}
_TONES = {"met": "good", "missed": "bad-text", "undecided": "warn-text", None: ""}


def slo_card(report: Report) -> str:
    """Table per model, objectives, whiskers of TTFT and TPOT."""
    body = _of_which_rate(report) + _models(report)
    if any(model.slo_attainment.objectives for model in report.models.values()):
        body += _objectives(report)
    body += _pictures(report)
    return card("Models and objectives", body, "models")


def _of_which_rate(report: Report) -> str:
    """Of a sweep the figures are those of one of its steps; "" for other runs."""
    if report.saturation is None:
        return ""
    highest = report.saturation.highest_met_per_s
    if highest is None:
        return muted("Figures of the first step, for no rate is known to meet the objectives.")
    at = f"Figures of {figures.rate(highest)} arrivals a second"
    return muted(f"{at}, the highest rate that surely met the objectives.")


def _models(report: Report) -> str:
    heads = [
        "Model",
        "Requests",
        "Errors",
        "In SLO<small>95% interval</small>",
        "Goodput<small>good req/s</small>",
        "Output<small>tokens/s</small>",
        "TTFT p50<small>ms</small>",
        "p99",
        "TPOT p50<small>ms</small>",
        "p99",
        "End to end p50<small>ms</small>",
        "p99",
    ]
    rows = [_row(escape(name) + _about(model), model, _attained(model)) for name, model in report.models.items()]
    share = report.totals.good_share
    rows.append(_row("All", report.totals, _share(share.value if share else None, share)))
    return table("Requests, latencies and goodput per model", heads, rows, last_is_sum=True)


def _row(name: str, row: Group, attained: str) -> list[str]:
    errors = figures.count(row.errors)
    return [
        name,
        figures.count(row.requests),
        f'<span class="bad-text">{errors}</span>' if row.errors else errors,
        attained,
        figures.rate(row.goodput_per_s) + _small(figures.span(row.rates.good_requests, figures.rate)),
        figures.rate(row.output_tokens_per_s) + _small(figures.span(row.rates.output_tokens, figures.rate)),
        *(
            figures.ms(values[which]) + _small(figures.span(getattr(row.latencies[kind], which), figures.ms))
            for kind, values in (("ttft", row.ttft_ms), ("tpot", row.tpot_ms), ("e2e", row.e2e_ms))
            for which in ("p50", "p99")
        ),
    ]


def _attained(model: ModelReport) -> str:
    return _share(model.slo_attainment.all, model.slo_attainment.good)


def _share(value: float | None, found) -> str:
    return figures.percent(value) + _small(figures.span(found, figures.percent))


def _objectives(report: Report) -> str:
    rows = []
    for name, model in report.models.items():
        for item in model.slo_attainment.objectives:
            rows.append(
                [
                    f"{escape(name)}<small>{item.term} ≤ {item.limit_ms:g} ms</small>",
                    figures.percent(item.share.value),
                    figures.span(item.share, figures.percent),
                    f"{model.slo_attainment.goal:.0%}",
                    f'<span class="{_TONES[item.answer]}">{_ANSWERS[item.answer]}</span>',
                ]
            )
    heads = ["Objective", "Met by", "95% interval", "Goal", "Surely"]
    return table("Objectives: share of streamed requests that met each, errors counted as misses", heads, rows)


def _pictures(report: Report) -> str:
    drawn = ""
    for kind, label in (("ttft", "TTFT"), ("tpot", "TPOT")):
        rows = [
            Spread(name, model.latencies[kind], getattr(model.slo, f"{kind}_ms") if model.slo else None)
            for name, model in report.models.items()
        ]
        picture = both(lambda width, key, r=rows, la=label: percentiles(r, la, width, key), f"spread-{kind}")
        if picture:
            drawn += f"<h3>{label}: p50 ●, p90 ◆, p99 ■</h3>{picture}"
    if not drawn:
        return ""
    return drawn + muted(
        "Bars are 95% confidence intervals; a dashed bar has an end that so few requests do not tell. The upright line "
        "is the objective."
    )


def _about(model: ModelReport) -> str:
    price = f"{figures.usd(model.price_usd_per_hour)}/h" if model.price_usd_per_hour is not None else ""
    random = "random weights" if model.random_weights else ""
    return _small(" · ".join(escape(part) for part in (model.accelerator, price, random) if part))


def _small(text: str) -> str:
    return f"<small>{text}</small>" if text and text != figures.DASH else ""
