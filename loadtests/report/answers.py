"""The first screen: the verdict, and the four questions that whoever decides has.

Does the mix hold its objectives, what does a good request cost, is that cheaper than the API, and from which
utilisation on. Everything else on the page is why.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from loadtests.context import ROLES, Role
from loadtests.report import figures
from loadtests.report.costcard import ROLE_NAMES
from loadtests.report.model import ModelReport, Report
from loadtests.report.passcards import answer as carried
from loadtests.report.passmodel import Saturation

#: Which comparator decides: the cheapest that would do, else the same model elsewhere, else the frontier.
_DECIDES: tuple[Role, ...] = ("cheapest_proprietary", "same_model_hosted", "frontier")
_LEAD = {
    ("pass", True): "The mix holds its objectives.",
    ("pass", False): "The mix held its objectives, but so few requests do not make it certain.",
    ("fail", True): "The mix does not hold its objectives.",
    ("fail", False): "The mix missed its objectives, but so few requests do not make it certain.",
    ("invalid", True): "This run proves nothing: the load was not what was asked for.",
}
_BASIS = {"fully_loaded": "fully loaded", "charged": "as charged", None: "not known"}


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a word or a figure, and what stands behind it. tone: good, bad or plain."""

    question: str
    answer: str
    behind: str
    tone: str = "plain"


def verdict(report: Report) -> str:
    """The banner."""
    said = report.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in said.reasons)
    lead = _LEAD[said.result, said.certain or said.result == "invalid"]
    if said.result == "fail" and report.totals.errors and not _missed(report):
        lead = "Requests failed."
    if said.result == "pass" and report.totals.slo_attainment is None:
        lead = "No request failed; there were no objectives to hold."
    if report.saturation is not None and said.result != "invalid":
        lead = escape(carried(report.saturation))
    return (
        f'<div class="card verdict {said.result}" role="status"><b>{said.result.upper()}</b>'
        f"<div><p>{lead}</p><ul>{reasons}</ul></div></div>"
    )


def answers(report: Report) -> str:
    """The four cards."""
    found = (objectives(report), good_request(report), cheaper(report), utilisation(report))
    items = "".join(
        f'<li class="{item.tone}"><span>{item.question}</span><strong>{escape(item.answer)}</strong>'
        f"<small>{escape(item.behind)}</small></li>"
        for item in found
    )
    return f'<ul class="answers" aria-label="In short">{items}</ul>'


def objectives(report: Report) -> Answer:
    """Whether every objective of every model is held."""
    if report.saturation is not None:
        return carries(report, report.saturation)
    totals, question = report.totals, "Does it hold its SLOs?"
    if totals.good_share is None:
        return Answer(question, "No SLOs set", f"{figures.count(totals.errors)} of {totals.requests:,} failed")
    share = totals.good_share
    behind = f"{figures.percent(share.value)} of requests good ({figures.span(share, figures.percent)})"
    behind += f", {figures.rate(totals.goodput_per_s)} good a second"
    if report.verdict.result == "invalid":
        return Answer(question, "Not proven", behind, "warn")
    missed = _missed(report)
    if missed:
        return Answer(question, "No", f"missed by {', '.join(missed)}; {behind}", "bad")
    if totals.errors:
        return Answer(question, "No", f"{totals.errors:,} of {totals.requests:,} requests failed; {behind}", "bad")
    return Answer(question, "Yes" if report.verdict.certain else "Yes, not certain", behind, "good")


def carries(report: Report, found: Saturation) -> Answer:
    """How much of the mix the fleet takes while every objective is held: what a sweep was for."""
    question, share = "How much does it carry?", report.totals.good_share
    if found.highest_met_per_s is None:
        if report.verdict.result == "invalid":
            return Answer(question, "Not proven", carried(found), "warn")
        return Answer(question, "None of the rates tried", carried(found), "bad")
    behind = f"arrivals per second, {figures.rate(report.totals.goodput_per_s)} good requests a second"
    if share is not None:
        behind += f"; {figures.percent(share.value)} of requests good ({figures.span(share, figures.percent)})"
    told = f"{figures.rate(found.highest_met_per_s)}/s" + (" at least" if found.lowest_missed_per_s is None else "")
    return Answer(question, told, behind, "warn" if report.verdict.result == "invalid" else "good")


def good_request(report: Report) -> Answer:
    """What a request that meets its objectives costs."""
    totals = report.totals
    per_mtok = f"{figures.usd(totals.cost_per_mtok_usd)} per 1M tokens"
    behind = f"{figures.usd(totals.cost_per_request_usd)} per request, {per_mtok}, {_BASIS[totals.cost_basis]}"
    if totals.cost_basis is None:
        behind = "no ledger, and no usage.cost for every model"
    return Answer("A good request costs", figures.usd(totals.cost_per_good_request_usd), behind)


def cheaper(report: Report) -> Answer:
    """Against the comparator that decides; the others behind it."""
    found, question = report.totals.comparators, "Cheaper than the API?"
    decides = deciding_role(report)
    if decides is None:
        return Answer(question, figures.DASH, "no API to compare with for every model of the mix")
    chosen = found[decides]
    if chosen.saving is None:
        return Answer(question, figures.DASH, "only a fully loaded cost compares with an API's price")
    others = [
        f"{ROLE_NAMES[role]}: {figures.saving(found[role].saving)}"
        for role in ROLES
        if role in found and role != decides
    ]
    behind = "; ".join([f"than {', '.join(chosen.names)} ({ROLE_NAMES[decides]})", *others])
    yes = chosen.saving > 0
    told = f"{'Yes' if yes else 'No'}, {figures.saving(chosen.saving)}"
    return Answer(question, told, behind, "good" if yes else "bad")


def utilisation(report: Report) -> Answer:
    """Break-even of each model with its deciding comparator, and how busy this run was."""
    question, decides = "Cheaper from which utilisation on?", deciding_role(report)
    evens = [even for model in report.models.values() if (even := even_with(model, decides)) is not None]
    today = [
        model.break_even.utilisation
        for model in report.models.values()
        if model.break_even and model.break_even.utilisation is not None
    ]
    factor = report.totals.comparators[decides].traffic_factor if decides else None
    load = f"this fleet breaks even at {_times(factor)} of this run's traffic" if factor is not None else ""
    if not evens:
        told = next((m.break_even.missing for m in report.models.values() if m.break_even and m.break_even.missing), "")
        if factor is None:
            return Answer(question, figures.DASH, told or "no break-even is known for this run")
        return Answer(question, f"{_times(factor)} this traffic", told or "if the fleet stays as it is")
    behind = "; ".join(part for part in (f"this run: {_range(today)}" if today else "", load) if part)
    return Answer(question, _range(evens), behind)


def deciding_role(report: Report) -> Role | None:
    """The role that answers "than the API"."""
    return next((role for role in _DECIDES if role in report.totals.comparators), None)


def even_with(model: ModelReport, role: Role | None) -> float | None:
    """The lowest break-even utilisation with a comparator of this role."""
    if model.break_even is None:
        return None
    found = [item.breakeven for item in model.break_even.against if item.role == role and item.breakeven is not None]
    return min(found) if found else None


def _missed(report: Report) -> list[str]:
    return [
        name
        for name, model in report.models.items()
        if any(item.share.value < model.slo_attainment.goal for item in model.slo_attainment.objectives)
    ]


def _range(values: list[float]) -> str:
    low, high = figures.utilisation(min(values)), figures.utilisation(max(values))
    return low if low == high else f"{low} to {high}"


def _times(factor: float) -> str:
    return f"{factor:.2g}×" if factor < 10 else f"{factor:,.0f}×"
