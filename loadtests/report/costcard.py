"""The cost card: what the run's traffic cost here, by bucket, beside what the APIs would have asked."""

from __future__ import annotations

from html import escape

from loadtests.context import ROLES, BreakEven
from loadtests.report import figures
from loadtests.report.charts import both
from loadtests.report.markup import card, details, legend, muted, table
from loadtests.report.model import ModelReport, Report
from loadtests.report.pictures import Mark, ruler

ROLE_NAMES = {
    "same_model_hosted": "same model, hosted",
    "cheapest_proprietary": "cheapest proprietary",
    "frontier": "frontier",
}
_BUCKETS = {"direct": "--b0", "waste": "--b1", "idle": "--b2", "cold_start": "--b3", "overhead": "--b4"}
_BASIS = {"fully_loaded": "fully loaded", "charged": "as charged", None: "not known"}


def cost_card(report: Report) -> str:
    """Table of costs, then bars per model and for the mix; "" if nothing is known about money."""
    models = report.models.values()
    if all(model.cost_basis is None and not model.comparators for model in models):
        return ""
    body = muted("The whole run, warm-up included, because its cost includes the warm-up too.")
    if any(model.random_weights for model in models):
        body += muted("Random weights: the savings below are arithmetic, not evidence.")
    body += _table(report) + _mix(report) + "<h3>Whole run, per model</h3>"
    if any(model.buckets_usd for model in models):
        names = [(name.replace("_", " "), colour) for name, colour in _BUCKETS.items()]
        body += legend([*names, ("API", "--other")])
    for name, model in report.models.items():
        body += _model(name, model)
    return card("Cost", body + _residual(report) + _break_even(report) + details("Prices of the APIs", _prices(report)))


def _table(report: Report) -> str:
    heads = [
        "Model",
        "Requests<small>succeeded</small>",
        "Input<small>tokens</small>",
        "Cached<small>of input</small>",
        "Output<small>tokens</small>",
        "Whole run",
        "Per request",
        "Per good request<small>95% interval</small>",
        "Charged<small>per request</small>",
        "Per 1M tokens",
    ]
    rows = []
    for name, row in [*report.models.items(), ("All", report.totals)]:
        rows.append(
            [
                escape(name),
                figures.count(row.whole_run.succeeded),
                figures.count(row.whole_run.input_tokens),
                figures.count(row.whole_run.cached_input_tokens),
                figures.count(row.whole_run.output_tokens),
                figures.usd(row.cost_usd) + f"<small>{_BASIS[row.cost_basis]}</small>",
                figures.usd(row.cost_per_request_usd),
                figures.usd(row.cost_per_good_request_usd)
                + f"<small>{figures.span(row.cost_per_good_request_interval_usd, figures.usd)}</small>",
                figures.usd(row.charged_cost_per_request_usd),
                figures.usd(row.cost_per_mtok_usd),
            ]
        )
    return table("What the whole run cost", heads, rows, last_is_sum=True)


def _mix(report: Report) -> str:
    totals = report.totals
    present = [(role, totals.comparators[role]) for role in ROLES if role in totals.comparators]
    if not present:
        return ""
    highest = max([totals.cost_usd or 0.0, *(cost.cost_usd for _, cost in present)])
    bars = _bar(
        "<b>this fleet</b>", _piece(totals.cost_usd, highest, "--b0"), figures.usd(totals.cost_usd), ""
    )
    for role, cost in present:
        piece = _piece(cost.cost_usd, highest, "--other")
        bars += _bar(ROLE_NAMES[role], piece, figures.usd(cost.cost_usd), _against(cost.saving))
    return f"<h3>Whole run, the mix</h3>{bars}"


def _model(name: str, model: ModelReport) -> str:
    highest = max([model.cost_usd or 0.0, *(item.cost_usd for item in model.comparators)])
    if model.buckets_usd:
        own = "".join(
            _piece(model.buckets_usd.get(bucket, 0.0), highest, colour, bucket.replace("_", " "))
            for bucket, colour in _BUCKETS.items()
        )
    else:
        own = _piece(model.cost_usd, highest, "--b0")
    bars = _bar(f"<b>{escape(name)}</b>", own, figures.usd(model.cost_usd), "")
    for item in sorted(model.comparators, key=lambda item: ROLES.index(item.role)):
        label = f"{escape(item.name)} <small>{ROLE_NAMES[item.role]}</small>"
        piece = _piece(item.cost_usd, highest, "--other")
        bars += _bar(label, piece, figures.usd(item.cost_usd), _against(item.saving))
    return f'<div style="margin-bottom:14px">{bars}</div>'


def _bar(name: str, pieces: str, value: str, small: str) -> str:
    aside = f" <small>{small}</small>" if small else ""
    return (
        f'<div class="bar"><span class="name">{name}</span><span class="track">{pieces}</span>'
        f'<span class="value">{value}{aside}</span></div>'
    )


def _piece(value: float | None, highest: float, colour: str, title: str = "") -> str:
    if not value or highest <= 0:
        return ""
    shown = f' title="{title} {figures.usd(value)}"' if title else ""
    return f'<i style="width:{value / highest * 100:.3f}%;background:var({colour})"{shown}></i>'


def _against(saving: float | None) -> str:
    """How this fleet's cost stands to that API's."""
    return "" if saving is None else f"fleet: {figures.saving(saving)}"


def _residual(report: Report) -> str:
    if report.ledger is None:
        return ""
    residual = report.ledger.residual_usd
    told = (f"The ledger does not add up: {figures.usd(residual)} are without an owner" if residual
            else "The ledger adds up: requests, idle and cold start are the replicas' price to a billionth of a dollar")
    if report.ledger.other_models_usd:
        told += f". Models outside this mix: {figures.usd(report.ledger.other_models_usd)}"
    return muted(f"{told}.")


def _break_even(report: Report) -> str:
    """From which utilisation on each model is cheaper than each API, and how busy it was in this run."""
    known = {name: model.break_even for name, model in report.models.items() if model.break_even}
    if not known:
        return ""
    body = "<h3>Break-even</h3>" + muted(
        "The busier a replica, the cheaper its requests: utilisation is what replicas answered over what they could "
        "answer when full. Green: cheaper than that API."
    )
    for number, (name, even) in enumerate(known.items()):
        body += f"<h4>{escape(name)}</h4>"
        if even.missing or not even.against:
            body += muted(f"No break-even: {escape(even.missing or 'no API to compare with')}.")
            continue
        body += both(lambda width, key, e=even, n=name: _ruler(e, n, width, key), f"even-{number}")
        body += _even_table(name, even)
    return body


def _ruler(even: BreakEven, name: str, width: int, key: str) -> str:
    marks = [Mark(item.name, item.breakeven) for item in even.against]
    return ruler(marks, even.utilisation, f"Utilisation from which on {name} is cheaper", width, key)


def _even_table(name: str, even: BreakEven) -> str:
    rows = [
        [
            f"{escape(item.name)}<small>{ROLE_NAMES.get(item.role, '')}</small>",
            figures.usd(item.usd_per_request),
            figures.utilisation(item.breakeven),
            figures.utilisation(item.for_saving),
        ]
        for item in even.against
    ]
    heads = ["Against", "Its mean request", "Cheaper from", f"{even.saving:.0%} saved from"]
    about = (
        f"A replica costs {figures.usd(even.price_usd_per_hour)} an hour, times {even.overhead_factor or 1:.3f} for "
        f"overhead; full, it answers {figures.rate(even.capacity_per_s)} requests a second of this run's mean shape."
    )
    return details("The same as a table", muted(about) + table(f"Break-even of {escape(name)}", heads, rows))


def _prices(report: Report) -> str:
    rows = []
    for name, model in report.models.items():
        for item in model.comparators:
            ratio = "not measured" if item.token_ratio is None else f"{item.token_ratio:g}"
            rows.append(
                [
                    f"{escape(item.name)}<small>for {escape(name)}{', batch' if item.batch else ''}</small>",
                    figures.usd(item.input_usd_per_mtok),
                    figures.usd(item.cached_input_usd_per_mtok),
                    figures.usd(item.output_usd_per_mtok),
                    ratio,
                    figures.usd(item.cost_per_request_usd),
                ]
            )
    if not rows:
        return ""
    heads = ["API", "Input<small>per 1M tokens</small>", "Cached input", "Output", "Token ratio", "A mean request"]
    return table("Prices per million tokens of ours, with the other tokenizer's count", heads, rows)
