"""`flotilla top`: the fleet live in a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving import launch
from serving.cli.output import as_json, console, settings
from serving.cli.run import Json
from serving.costs.figures import DASH, attained, dollars, percent, seconds
from serving.errors import ConfigError, FleetNotRunning
from serving.fleet.slos import Slo
from serving.plan import Changes, fleet
from serving.telemetry import scraping
from serving.telemetry.promises import Kept, Promised, promised
from serving.telemetry.view import FleetView, ModelView, Scrape, Window


def top(
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.5)] = 2.0,
    window: Annotated[float, typer.Option(help="Seconds that rates and quantiles cover.", min=1)] = 30.0,
    metrics: Annotated[str | None, typer.Option(
        help="Page of the exporter's metrics, for the fleet of FLOTILLA_FLEET; default: the fleet that runs on this "
             "machine.", show_default=False)] = None,
    pods: Annotated[list[str] | None, typer.Option(
        help="With --metrics: page of the pods behind a name, which are added up. May be repeated.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, over one interval, and end.")] = False,
    json: Json = False,
) -> None:
    """Watch the running fleet: replicas, load, speed against the SLO, and cost. Ctrl-C ends it.

    On a cluster, in the exporter's pod: `flotilla top --metrics http://127.0.0.1:9464/metrics --pods
    http://flotilla-counters:9464/metrics`.
    """
    if metrics is None:
        if pods:
            raise ConfigError("--pods is for --metrics: on one machine the exporter tells all")
        run = launch.current(settings())
        found, metrics = fleet(Path(run.fleet_file), Changes(run.sources)), run.metrics
    else:
        found = fleet(settings().fleet, Changes({}))
    slos = {name: model.slo for name, model in found.models.items()}
    looks = _looks(scraping.Pods(metrics, pods or ()), metrics, slos, every, window)
    if once or json or not console.is_terminal:
        seen, kept = next(looks)
        if json:
            as_json(asdict(seen) | {"promises": [asdict(each) for each in kept]})
        else:
            console.print(render(seen, kept, found.name))
        return
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        for seen, kept in looks:
            live.update(render(seen, kept, found.name), refresh=True)


def _looks(look: Callable[[], Scrape], url: str, slos: dict[str, Slo], every: float, window: float
           ) -> Iterator[tuple[FleetView, tuple[Promised, ...]]]:
    """A view after each interval, over the newest `window` seconds, and what was kept of all that was promised."""
    seen = Window(slos, window)
    seen.add(_scrape(look, url))
    while True:
        time.sleep(every)
        scrape = _scrape(look, url)
        yield seen.add(scrape), promised(slos, scrape)


def _scrape(look: Callable[[], Scrape], url: str) -> Scrape:
    try:
        return look()
    except OSError as error:
        raise FleetNotRunning(f"the metrics at {url} cannot be read: {error}; `flotilla status` says whether the fleet "
                              "runs") from error


def render(seen: FleetView, kept: Sequence[Promised], name: str) -> Group:
    """As a table, with the promises and what belongs to no model below it."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "repl", "flight", "queue", "req/s", "tok/s", "TTFT\np50", "\np95", "TPOT\np50", "busy",
                   "$/h", "$/request"):
        shown.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for model in seen.models:
        shown.add_row(*_cells(model))
    state = {None: "", True: "", False: "  the ledger's database is away"}[seen.ledger_up]
    books = "" if seen.residual_nanousd in (None, 0) else f"  the books are off by {seen.residual_nanousd:.0f} nano-USD"
    foot = Text(f"{dollars(seen.usd_per_hour)} per hour", style="dim")
    foot.append(state + books, style="bold red")
    return Group(Text(f"{name}  {time.strftime('%H:%M:%S')}", style="bold"), shown, _promises(kept), foot)


def _cells(m: ModelView) -> list[Text | str]:
    ttft = Text(seconds(m.ttft_p50_s), style="red" if m.late else "")
    errors = Text(f"{m.requests_per_s:.1f}", style="red" if m.errors_per_s else "")
    replicas = Text(str(m.replicas), style="" if m.replicas else "yellow")
    return [m.model, replicas, str(m.in_flight), str(m.queued), errors, f"{m.tokens_per_s:,.0f}", ttft,
            seconds(m.ttft_p95_s), seconds(m.tpot_p50_s), percent(m.busy) if m.busy is not None else DASH,
            dollars(m.usd_per_hour), dollars(m.usd_per_request)]


def _promises(kept: Sequence[Promised]) -> Table:
    """What was promised to whom, the share that was kept, and what is left of the error budget."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kept since the\ngateways began", "availability\nkept  left", "TTFT\nkept  left", "TPOT\nkept  left",
                   "goodput\nkept  left"):
        shown.add_column(column, justify="right" if shown.columns else "left", no_wrap=True)
    for each in kept:
        whom = f"{each.model} to {each.tenant}" if each.tenant else each.model
        shown.add_row(whom, *(_kept(promise) for promise in each.promises))
    return shown


def _kept(promise: Kept) -> Text:
    if promise.left is None:
        return Text(DASH)
    return Text(f"{attained(promise.share)} {max(0.0, promise.left):>5.0%}", style="red" if promise.left <= 0 else "")
