"""The report for the terminal: one table and the verdict."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.report import figures
from loadtests.report.costcard import ROLE_NAMES
from loadtests.report.model import ModelReport, Report, Totals
from loadtests.report.passcards import answer

_STYLE = {"pass": "bold green", "fail": "bold red", "invalid": "bold yellow"}
_BASIS = {"fully_loaded": "fully loaded", "charged": "as charged", None: "unknown"}


def print_summary(report: Report, console: Console) -> None:
    """Table per model, cost against the APIs, notes and verdict."""
    console.print(_speed(report))
    console.print(_cost(report))
    for note in report.notes:
        console.print(f"[dim]note:[/] {escape(note)}")
    if report.saturation is not None:
        console.print(f"[bold]{escape(answer(report.saturation))}[/]")
    result = report.verdict.result
    console.print(f"[{_STYLE[result]}]{result.upper()}[/]  {escape(report.verdict.reasons[0])}")
    for reason in report.verdict.reasons[1:]:
        console.print(f"  {escape(reason)}")


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(headings[0], overflow="fold", min_width=12)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _speed(report: Report) -> Table:
    run = report.run
    table = _table(
        escape(f"{run.scenario}: {run.duration_s:g} s, {run.arrivals.requested_rate_per_s:.2f} arrivals/s"),
        "model",
        "requests",
        "errors",
        "tok/s",
        "TTFT p50",
        "p99 ms",
        "TPOT p50",
        "in SLO",
    )
    rows: list[tuple[str, ModelReport | Totals, float | None]] = [
        (name, model, model.slo_attainment.all) for name, model in report.models.items()
    ]
    rows.append(("all", report.totals, report.totals.slo_attainment))
    for name, row, attained in rows:
        errors = figures.count(row.errors)
        table.add_row(
            escape(name),
            figures.count(row.requests),
            f"[red]{errors}[/]" if row.errors else errors,
            figures.rate(row.output_tokens_per_s),
            figures.ms(row.ttft_ms["p50"]),
            figures.ms(row.ttft_ms["p99"]),
            figures.ms(row.tpot_ms["p50"]),
            figures.percent(attained, 0),
        )
    return table


def _cost(report: Report) -> Table:
    """A row per model and, under it, one per API with the same traffic at its prices."""
    table = _table("Cost", "model, or API", "per request", "per 1M tok", "this traffic", "here is")
    for name, model in report.models.items():
        _own_row(table, name, model)
        for item in model.comparators:
            table.add_row(
                f"  [dim]{escape(item.name)}[/]",
                figures.usd(item.cost_per_request_usd),
                figures.usd(item.cost_per_mtok_usd),
                figures.usd(item.cost_usd),
                figures.saving(item.saving),
            )
    _own_row(table, "all", report.totals)
    for role, cost in report.totals.comparators.items():
        table.add_row(
            f"  [dim]{ROLE_NAMES[role]}[/]", "", "", figures.usd(cost.cost_usd), figures.saving(cost.saving)
        )
    return table


def _own_row(table: Table, name: str, row: ModelReport | Totals) -> None:
    table.add_row(
        escape(name),
        figures.usd(row.cost_per_request_usd),
        figures.usd(row.cost_per_mtok_usd),
        figures.usd(row.cost_usd),
        _BASIS[row.cost_basis],
    )
