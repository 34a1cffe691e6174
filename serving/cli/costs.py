"""`flotilla usage` and `flotilla cost`: who used what, what it cost, and whether it adds up.

The sub-commands of `cost` that have more to say stand in modules of their own.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from serving.cli import cost_breakeven, cost_explain, cost_export, cost_overview, cost_report
from serving.cli.cost_args import FleetOption, Known, Since, Until, ledger, span
from serving.cli.output import as_json, console, table
from serving.cli.run import Json
from serving.costs.figures import exact, money
from serving.errors import ConfigError
from serving.fleet.money import usd
from serving.ledger import sums

cost = typer.Typer(help="What the fleet's time has cost and where it went; whether open models pay.")
cost.command("explain")(cost_explain.explain)
cost.command("breakeven")(cost_breakeven.breakeven)
cost.command("export")(cost_export.export)
cost.command("report")(cost_report.report)
By = StrEnum("By", list(sums.DIMENSIONS))


UsageBy = StrEnum("UsageBy", list(sums.USAGE_BY))
_COLUMNS = {name: name for name in sums.USAGE_BY} | {"day": "day (UTC)"}


def usage(
    by: Annotated[list[UsageBy] | None, typer.Option(help="A row for each; may be repeated. Left out: tenant and "
                                                          "model.")] = None,
    since: Since = None,
    until: Until = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key's, by its id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    json: Json = False,
) -> None:
    """Show requests, tokens and fully loaded cost by tenant, key, model, adapter, preset or day, for requests begun
    in that time."""
    dimensions = tuple(dict.fromkeys(b.value for b in by)) if by else ("tenant", "model")
    only = {name: value for name, value in (("tenant", tenant), ("key", key), ("model", model)) if value is not None}
    rows = sums.usage(ledger(), *span(since, until), dimensions, only)  # type: ignore[arg-type]
    if json:
        as_json([asdict(r) | {"nanousd": r.nanousd, "cost_usd": usd(r.nanousd)} for r in rows])
        return
    names = [_COLUMNS[d] for d in dimensions]
    table([*names, "requests>", "errors>", "aborted>", "prompt>", "cached>", "output>", "cost>"],
          [(*(getattr(r, d) or "(none)" for d in dimensions), r.requests, r.errors, r.aborted, r.prompt_tokens,
            r.cached_tokens, r.completion_tokens, money(r.nanousd)) for r in rows])


@cost.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    by: Annotated[list[By] | None, typer.Option(help="Cut the bill by this; may be repeated.")] = None,
    since: Since = None,
    until: Until = None,
    fleet: FleetOption = None,
    json: Json = False,
) -> None:
    """Show, per model, the bill and how it splits; what a request and a million tokens cost, here and at APIs."""
    if context.invoked_subcommand:
        if by or since or until or fleet or json:
            raise ConfigError(f"options of {context.invoked_subcommand!r} stand after it: "
                              f"flotilla cost {context.invoked_subcommand} --help names them")
        return
    begin, end = span(since, until)
    if by:
        cost_overview.show_cut(ledger(), [b.value for b in by], begin, end, json)  # type: ignore[misc]
    elif since or until:
        raise ConfigError("--since and --until go with --by, for example --by model")
    else:
        cost_overview.show(ledger(), Known.read(fleet), time.time(), json)


@cost.command()
def reconcile(json: Json = False) -> None:
    """Bill every source's time anew and hold the books against it. Exits with 1 when the residual is not 0."""
    found = sums.reconcile(ledger())
    if json:
        as_json(asdict(found))
    else:
        console.print(f"residual {found.residual_nanousd} nano-USD over {found.sources} sources and "
                      f"{found.charged_requests} charged requests; bill {exact(found.bill_nanousd)} USD",
                      highlight=False)
        for source in found.wrong_sources:
            console.print(f"[red]{source} does not add up[/]")
    if found.residual_nanousd:
        raise typer.Exit(1)
