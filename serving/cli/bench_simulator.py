"""`flotilla bench simulator`: how fast the simulator is on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serving.cli.bench import app, progress, written
from serving.cli.output import console
from serving.cli.run import Json


@app.command("simulator")
def simulator_(
    requests: Annotated[int, typer.Option(help="Of the whole day.", min=1_000)] = 10_000_000,
    gpus: Annotated[int, typer.Option(help="Of all ten models together.", min=10)] = 1_000,
    hours: Annotated[float, typer.Option(help="Length of the day.", min=0.1)] = 24.0,
    books: Annotated[bool, typer.Option("--books", help="Charge each request as well, as `flotilla simulate` does."
                                        )] = False,
    json: Json = False,
) -> None:
    """A day of a large fleet in the simulator: seconds of one core, and memory by simulated hour.

    Writes bench-simulator.json into the folder of reports.
    """
    from serving.bench import simulator

    with progress(json) as say:
        report = simulator.measure(simulator.SimulatorPlan(requests, gpus, books, hours * 3_600), say)
    written("simulator", report, json, show)


def show(report: dict[str, Any]) -> None:
    """The report in words."""
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    verdict = "[green]within[/]" if report["within_goal"] else "[red]above[/]"
    say(f"{report['requests']:,} requests of {report['models']} models over {report['gpus']:,} GPUs and "
        f"{report['length_s'] / 3_600:g} hours: {report['cpu_s']:,.0f} s of one core ({report['wall_s']:,.0f} s by the "
        f"clock), {verdict} {report['goal_s']:,.0f} s; {report['requests_per_cpu_s']:,.0f} requests a second")
    growth = report["rss_growth"]
    say(f"memory, MiB by simulated hour: {' '.join(f'{v:g}' for v in report['rss_mib'])}"
        + (f"; {growth:+.1%} since a quarter of the time" if growth is not None else ""))
    say(f"promises kept {report['attainment']:.1%}, GPU-hours {report['gpu_hours']:,.0f}"
        + (f", books' residual {report['residual_nanousd']} nano-USD" if report["books"] else "; no books were kept"))
