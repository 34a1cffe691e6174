"""The commands, joined."""

from __future__ import annotations

import typer

from serving import __version__
from serving.cli import (
    adapters,
    bench,
    bench_simulator,  # noqa: F401 - adds its command to bench's
    checkpoints,
    cluster,
    costs,
    fleet,
    keys,
    load,
    models,
    observe,
    planning,
    prices,
    profiles,
    render,
    run,
    simulate,
    status,
    tenants,
    top,
    upgrade,
)
from serving.cli.output import EXIT_CODES

app = typer.Typer(
    name="flotilla", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    rich_markup_mode="rich", epilog=EXIT_CODES,
    help="Open models on Ray Serve and vLLM behind one OpenAI-compatible API, with a cost per request that adds up.",
)

_RUN, _FILES, _WHO, _LOAD, _CLUSTER = "Running", "Files and settings", "Who and how much", "Load tests", "Kubernetes"
app.command(rich_help_panel=_RUN)(run.up)
app.command(rich_help_panel=_RUN)(run.down)
app.command("status", rich_help_panel=_RUN)(status.status_)
app.command(rich_help_panel=_RUN)(top.top)
app.command(rich_help_panel=_FILES)(fleet.check)
app.command(rich_help_panel=_FILES)(fleet.schema)
app.command(rich_help_panel=_FILES)(fleet.models)
app.command("catalogue", rich_help_panel=_FILES)(models.catalogue_)
app.command("fit", rich_help_panel=_FILES)(models.fit_)
app.command(rich_help_panel=_FILES)(fleet.env)
app.command(rich_help_panel=_FILES)(observe.metrics)
app.command(rich_help_panel=_FILES)(observe.rules)
app.command(rich_help_panel=_FILES)(observe.dashboards)
app.add_typer(prices.app, name="prices", rich_help_panel=_FILES)
app.add_typer(adapters.app, name="adapters", rich_help_panel=_FILES)
app.add_typer(render.app, name="render", rich_help_panel=_CLUSTER)
app.command(rich_help_panel=_CLUSTER)(cluster.doctor)
app.command(rich_help_panel=_CLUSTER)(upgrade.upgrade)
app.add_typer(checkpoints.app, name="checkpoint", rich_help_panel=_FILES)
app.add_typer(keys.app, name="keys", rich_help_panel=_WHO)
app.add_typer(tenants.app, name="tenants", rich_help_panel=_WHO)
app.command(rich_help_panel=_WHO)(tenants.audit)
app.command(rich_help_panel=_WHO)(costs.usage)
app.add_typer(costs.cost, name="cost", rich_help_panel=_WHO)
app.command(rich_help_panel=_LOAD)(load.loadtest)
app.add_typer(load.report, name="report", rich_help_panel=_LOAD)
app.command(rich_help_panel=_LOAD)(simulate.simulate)
app.add_typer(profiles.app, name="profile", rich_help_panel=_LOAD)
app.command("plan", rich_help_panel=_LOAD)(planning.plan_)
app.add_typer(bench.app, name="bench", rich_help_panel=_LOAD)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"flotilla {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True,
                                          help="Show the version.")) -> None:
    """Options before the command."""
