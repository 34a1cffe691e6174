"""The cards of a sweep, of each model alone against the mix, and of a run's stages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from loadtests.report import figures
from loadtests.report.charts import both
from loadtests.report.figurelist import MODEL_FIGURES
from loadtests.report.markup import card, muted, series_legend, table
from loadtests.report.model import Report
from loadtests.report.parts import Estimated
from loadtests.report.passmodel import Contrast, Figures, RatePoint, Saturation
from loadtests.report.passpictures import Curve, Pair, Place, over_rate, pairs, plane
from loadtests.report.stretches import efficient

_BASIS = {"fully_loaded": "fully loaded: the whole fleet's bill while the rate was held",
          "charged": "as charged by usage.cost", None: "not known"}
_CHANGES = {figure.key: figure for figure in MODEL_FIGURES}


def saturation_card(report: Report) -> str:
    """How much the fleet carries; "" for a run that is no sweep."""
    found = report.saturation
    if found is None:
        return ""
    body = f"<p><b>{escape(answer(found))}</b></p>" + muted(escape(_behind(found)))
    valid = [point for point in found.points if point.valid]
    body += (_curves(found, valid) if valid else "") + _rates(found)
    return card("Saturation", body, "saturation")


def _curves(found: Saturation, valid: Sequence[RatePoint]) -> str:
    marks = {}
    if found.highest_met_per_s is not None:
        marks["in SLO up to here"] = found.highest_met_per_s
    if found.knee_per_s is not None and found.knee_per_s != found.highest_met_per_s:
        marks["knee"] = found.knee_per_s
    good = Curve("good requests per second", [(point.rate_per_s, point.figures.goodput_per_s) for point in valid])
    body = "<h3>Good requests per second over the rate asked for</h3>" + both(
        lambda width, key: over_rate([good], marks, "good requests per second", answer(found), width, key,
                                     diagonal=True), "sat-good",
    ) + muted("Dashed: where every request would be good. Bars are 95% intervals.")
    late = [
        Curve("TTFT p50", [(point.rate_per_s, point.figures.ttft_p50_ms) for point in valid]),
        Curve("TTFT p95", [(point.rate_per_s, point.figures.ttft_p95_ms) for point in valid]),
    ]
    return body + "<h3>Time to first token over the rate</h3>" + series_legend(
        (index, curve.name) for index, curve in enumerate(late)
    ) + both(lambda width, key: over_rate(late, marks, "TTFT, ms", "by rate", width, key), "sat-ttft")


def answer(found: Saturation) -> str:
    """The one sentence."""
    if not any(point.valid for point in found.points):
        return "Nothing is known of the fleet: the load generator did not keep its schedule at any rate."
    if found.highest_met_per_s is None:
        return "No rate that was tried surely meets the objectives."
    up_to = f"The objectives are met up to {figures.rate(found.highest_met_per_s)} arrivals a second"
    if found.lowest_missed_per_s is None:
        return f"{up_to} at least."
    return f"{up_to}, and not at {figures.rate(found.lowest_missed_per_s)}."


def _behind(found: Saturation) -> str:
    told = f"Found by {found.method}: every model's share of good requests at least {found.goal:.0%}, with 95% "
    told += f"confidence for the whole search; {found.ended}."
    if found.knee_per_s is not None:
        told += f" Knee: {figures.rate(found.knee_per_s)} a second, where goodput over mean time spent is highest."
    return told


def _rates(found: Saturation) -> str:
    heads = ["Asked for<small>arrivals/s</small>", "Objectives", *_HEADS]
    rows = [
        [figures.rate(point.rate_per_s) + _tried(point), _met(point), *_cells(point.figures)]
        for point in found.points
    ]
    basis = next((p.figures.cost_basis for p in found.points if p.figures.cost_basis), None)
    return table("Every rate that was tried", heads, rows) + muted(f"Cost per good request {_BASIS[basis]}.")


def _tried(point: RatePoint) -> str:
    return _small(f"tried {len(point.trials)} times" if len(point.trials) > 1 else "")


def _met(point: RatePoint) -> str:
    if not point.valid:
        return '<span class="warn-text">invalid</span>'
    return "met" if point.met else '<span class="bad-text">not surely met</span>'


_HEADS = [
    "Requests<small>failed</small>", "In SLO", "Goodput<small>good req/s</small>", "TTFT p95<small>ms</small>",
    "TPOT p95<small>ms</small>", "End to end p95<small>ms</small>", "Output<small>tokens/s</small>", "Per good request",
]  # fmt: skip


def _cells(of: Figures) -> list[str]:
    share, goodput = of.good_share, of.goodput_per_s
    return [
        figures.count(of.requests) + (f'<small class="bad-text">{of.errors:,}</small>' if of.errors else ""),
        figures.percent(share.value if share else None) + _small(figures.span(share, figures.percent)),
        figures.rate(goodput.value if goodput else None),
        *(_ms(found) for found in (of.ttft_p95_ms, of.tpot_p95_ms, of.e2e_p95_ms)),
        figures.rate(of.output_tokens_per_s.value if of.output_tokens_per_s else None),
        figures.usd(of.cost_per_good_request_usd),
    ]


def stages_card(report: Report) -> str:
    """Stage by stage; "" where there is only one that counts."""
    if report.run.kind != "mix" or sum(stage.measured for stage in report.stages) < 2:
        return ""
    rows = [
        [
            escape(stage.name)
            + _small(f"{stage.start_s:.0f}–{stage.end_s:.0f} s" + ("" if stage.measured else ", not counted")),
            figures.rate(stage.rate_per_s),
            *_cells(stage.figures),
        ]
        for stage in report.stages
    ]
    heads = ["Stage", "Asked for<small>arrivals/s</small>", *_HEADS]
    shown = table("Stages of the run, by when requests were due", heads, rows)
    return card("Stage by stage", shown, "stages")


def interference_card(report: Report) -> str:
    """What models do to each other; "" for a run that did not try."""
    if not report.interference:
        return ""
    body = muted("Each model was sent exactly its part of the mix's schedule alone, then with all others. Hollow: "
                 "alone; filled: in the mix.")
    for key in ("ttft_p50", "ttft_p95", "tpot_p95"):
        rows = [Pair(one.model, *_both(one.contrasts, key)) for one in report.interference]
        title = _CHANGES[key].title
        body += f"<h3>{title}</h3>" + both(
            lambda width, name, r=rows, t=title: pairs(r, f"{t}, ms", lambda v: f"{figures.ms(v)} ms", width, name),
            f"alone-{key}",
        )
    rows_ = [
        [
            f"{escape(one.model)}<small>{contrast.title}</small>",
            _value(contrast, contrast.alone),
            _value(contrast, contrast.mix),
            _CHANGES[contrast.key].spread(contrast.change.value if contrast.change else None),
            _interval(contrast),
            {"worse": '<span class="bad-text">slower or worse</span>', "better": "better"}.get(
                contrast.effect or "", "no difference seen"
            ),
        ]
        for one in report.interference
        for contrast in one.contrasts
    ]
    heads = ["Figure", "Alone", "In the mix", "Change", "95% interval", "Surely"]
    return card("Interference", body + table("Each model alone against the mix", heads, rows_), "interference")


def pareto_card(report: Report) -> str:
    """Cost per good request against latency: a sweep's rates, else the mix's models; "" where no cost is known."""
    if report.saturation is not None:
        places = [
            Place(f"{figures.rate(point.rate_per_s)}/s", point.figures.ttft_p95_ms.value,
                  point.figures.cost_per_good_request_usd, bool(point.efficient))
            for point in report.saturation.points
            if point.valid and point.figures.ttft_p95_ms and point.figures.cost_per_good_request_usd is not None
        ]  # fmt: skip
        who = "Each point is a rate of the sweep"
    else:
        known = {
            name: (model.ttft_ms["p95"], model.cost_per_good_request_usd)
            for name, model in report.models.items()
            if model.ttft_ms["p95"] is not None and model.cost_per_good_request_usd is not None
        }
        at = {name: (float(cost or 0), float(late or 0)) for name, (late, cost) in known.items()}
        places = [Place(name, late, cost, efficient((cost, late), at.values())) for name, (cost, late) in at.items()]
        who = "Each point is a model of the mix"
    if len(places) < 2:
        return ""
    text = f"{who}; further down is cheaper, further left is faster. Filled and joined: nothing here is better in both."
    drawn = both(lambda width, key: plane(places, "TTFT p95, ms", width, key), "pareto")
    return card("Cost against latency", muted(text) + drawn, "pareto")


def _both(contrasts: list[Contrast], key: str) -> tuple[Estimated | None, Estimated | None]:
    found = next((contrast for contrast in contrasts if contrast.key == key), None)
    return (found.alone, found.mix) if found else (None, None)


def _value(contrast: Contrast, found: Estimated | None) -> str:
    if found is None:
        return figures.DASH
    return figures.percent(found.value) if contrast.unit == "share" else figures.ms(found.value)


def _interval(contrast: Contrast) -> str:
    if contrast.change is None:
        return figures.DASH
    return figures.span(contrast.change, _CHANGES[contrast.key].spread, " to ")


def _ms(found: Estimated | None) -> str:
    return figures.ms(found.value if found else None) + _small(figures.span(found, figures.ms))


def _small(text: str) -> str:
    return f"<small>{text}</small>" if text and text != figures.DASH else ""
