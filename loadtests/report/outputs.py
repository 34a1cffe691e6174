"""The report for other eyes than a reader's: CSV for tables, JUnit XML for CI, Markdown for a pull request. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

from loadtests.context import ROLES
from loadtests.report import figures
from loadtests.report.costcard import ROLE_NAMES
from loadtests.report.junit import Case, junit_xml
from loadtests.report.markdown import bullets, md, md_table
from loadtests.report.model import Group, ModelReport, Report
from loadtests.report.parts import Estimated
from loadtests.report.passcards import answer

_SIGNS = {"pass": "✅ PASS", "fail": "❌ FAIL", "invalid": "⚠️ INVALID"}


def csv_text(report: Report) -> str:
    """A line per figure: scope (a model, or "all"), metric, unit, value, low, high (95%; empty where not known)."""
    into = StringIO()
    writer = csv.writer(into, lineterminator="\n")
    writer.writerow(("scope", "metric", "unit", "value", "low", "high"))
    for name, group in [*report.models.items(), ("all", report.totals)]:
        for metric, unit, value, low, high in _figures(group):
            writer.writerow((name, metric, unit, *("" if v is None else v for v in (value, low, high))))
    return into.getvalue()


def _figures(group: Group) -> Iterator[tuple[str, str, float | int | None, float | None, float | None]]:
    for name in ("requests", "errors", "good", "input_tokens", "cached_input_tokens", "output_tokens"):
        yield name, "1", getattr(group, name), None, None
    for name, found in (("requests_per_s", group.rates.requests), ("goodput_per_s", group.rates.good_requests),
                        ("output_tokens_per_s", group.rates.output_tokens)):
        yield name, "1/s", getattr(group, name), *_ends(found)
    share = group.slo_attainment.good if isinstance(group, ModelReport) else getattr(group, "good_share", None)
    yield "good_share", "share", share.value if share else None, *_ends(share)
    for kind, latency in group.latencies.items():
        for name in ("mean", "p50", "p90", "p95", "p99"):
            estimate = getattr(latency, name)
            yield f"{kind}_{name}", "ms", estimate.value if estimate else None, *_ends(estimate)
        yield f"{kind}_max", "ms", latency.max, None, None
    for name in ("cost_usd", "cost_per_request_usd", "cost_per_mtok_usd", "charged_cost_per_request_usd"):
        yield name, "USD", getattr(group, name), None, None
    per_good = group.cost_per_good_request_interval_usd
    yield "cost_per_good_request_usd", "USD", group.cost_per_good_request_usd, *_ends(per_good)


def _ends(found: Estimated | None) -> tuple[float | None, float | None]:
    return (found.low, found.high) if found else (None, None)


def junit(report: Report) -> str:
    """A case for the run's validity, and for each model its errors and each objective.

    Of an invalid run only the validity fails; the rest is skipped, for its figures prove nothing.
    """
    invalid = report.verdict.result == "invalid"
    stopped = report.run.stopped_by
    why = "; ".join(report.verdict.reasons) if invalid else ""
    cases = [Case("run", "the load was what was asked for", failure=why)]
    if not invalid:
        cases.append(Case("run", "ran to its end", failure=f"stopped early: {stopped}" if stopped else ""))
    for name, model in report.models.items():
        checks = [("no request failed", f"{model.errors} of {model.requests} requests failed" if model.errors else "")]
        goal = model.slo_attainment.goal
        for item in model.slo_attainment.objectives:
            missed = f"met by {item.share.value:.1%} ({figures.span(item.share, figures.percent)})"
            title = f"{item.term} at most {item.limit_ms:g} ms for {goal:.0%} of requests"
            checks.append((title, missed if item.share.value < goal else ""))
        cases += [
            Case(name, title, skipped="the run is invalid") if invalid else Case(name, title, failure=failure)
            for title, failure in checks
        ]
    run = report.run
    started = datetime.fromtimestamp(run.started_unix, UTC).isoformat(timespec="seconds")
    known = {"scenario": run.scenario, "seed": str(run.seed), "fleet": report.fleet.name,
             "commit": report.provenance.commit}
    return junit_xml(f"loadtest.{run.scenario}", cases, known, run.ended_unix - run.started_unix, started)


def markdown(report: Report) -> str:
    """A summary for a pull request."""
    run, totals = report.run, report.totals
    lines = [f"### {md(run.scenario)} on {md(report.fleet.name)}: {_SIGNS[report.verdict.result]}", ""]
    lines += bullets(report.verdict.reasons)
    if report.saturation is not None:
        lines += [f"**{md(answer(report.saturation))}**", ""]
    lines += _models(report)
    if totals.cost_usd is not None and totals.comparators:
        rows = [
            [ROLE_NAMES[role], figures.usd(totals.comparators[role].cost_usd),
             figures.saving(totals.comparators[role].saving)]
            for role in ROLES if role in totals.comparators
        ]  # fmt: skip
        own = [["this fleet", figures.usd(totals.cost_usd), ""]]
        lines += md_table(["the same traffic at", "costs", "the fleet is"], own + rows)
    if report.notes:
        lines += ["<details><summary>Before you believe it</summary>", "", *bullets(report.notes), "</details>", ""]
    duration = run.duration_s - run.warmup_s
    lines.append(f"{totals.requests:,} requests measured in {duration:.0f} s, seed {run.seed}; latencies in ms, costs "
                 "of the whole run.")
    return "\n".join(lines) + "\n"


def _models(report: Report) -> list[str]:
    heads = ["model", "requests", "failed", "in SLO", "TTFT p50", "p95", "TPOT p50", "p95", "good req/s", "per request",
             "per good request"]
    rows = []
    for name, group in [*report.models.items(), ("all", report.totals)]:
        share = group.slo_attainment.all if isinstance(group, ModelReport) else report.totals.slo_attainment
        rows.append([
            name, figures.count(group.requests), figures.count(group.errors), figures.percent(share),
            figures.ms(group.ttft_ms["p50"]), figures.ms(group.ttft_ms["p95"]), figures.ms(group.tpot_ms["p50"]),
            figures.ms(group.tpot_ms["p95"]), figures.rate(group.goodput_per_s),
            figures.usd(group.cost_per_request_usd), figures.usd(group.cost_per_good_request_usd),
        ])  # fmt: skip
    return md_table(heads, rows)
