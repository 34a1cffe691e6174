"""The cost card: what the run's traffic cost here, by bucket, beside what the APIs would have asked."""

from __future__ import annotations

from html import escape

from loadtests.context import ROLES
from loadtests.report import figures
from loadtests.report.markup import card, legend, table
from loadtests.report.model import ModelReport, Report

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
    body = '<p class="muted">The whole run, warm-up included, because its cost includes the warm-up too.</p>'
    if any(model.random_weights for model in models):
        body += '<p class="muted">Random weights: the savings below are arithmetic, not evidence.</p>'
    body += _table(report) + _mix(report) + "<h3>Whole run, per model</h3>"
    if any(model.buckets_usd for model in models):
        names = [(name.replace("_", " "), colour) for name, colour in _BUCKETS.items()]
        body += legend([*names, ("API", "--other")])
    for name, model in report.models.items():
        body += _model(name, model)
    return card("Cost", body + _residual(report))


def _table(report: Report) -> str:
    heads = [
        "Model",
        "Requests<small>succeeded</small>",
        "Input<small>tokens</small>",
        "Cached<small>of input</small>",
        "Output<small>tokens</small>",
        "Whole run",
        "Per request",
        "Charged<small>per request, by usage.cost</small>",
        "Per 1M tokens",
        "Basis",
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
                figures.usd(row.cost_usd),
                figures.usd(row.cost_per_request_usd),
                figures.usd(row.charged_cost_per_request_usd),
                figures.usd(row.cost_per_mtok_usd),
                _BASIS[row.cost_basis],
            ]
        )
    return table(heads, rows, last_is_sum=True)


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
    return f'<p class="muted">{told}.</p>'
