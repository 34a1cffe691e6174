"""`flotilla status`: whether a fleet runs here, or how a release stands in a Kubernetes cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from serving import runstate
from serving.cli.cluster import Context, Namespace
from serving.cli.output import as_json, console, settings, table
from serving.cli.run import Json, report
from serving.costs.figures import DASH, dollars
from serving.engines.names import app_name
from serving.errors import ConfigError, FleetNotRunning
from serving.kubernetes import cluster, release, status
from serving.kubernetes.status import ReleaseView
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.plan import Changes, fleet

_COLOURS = {"ready": "green", "starting": "yellow", "waiting": "yellow", "failed": "bold red", "ending": "dim",
            "RUNNING": "green", "DEPLOYING": "yellow", "UNHEALTHY": "bold red", "DEPLOY_FAILED": "bold red"}
_MOST_SAID = 400


def status_(
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="How a release stands in a cluster.")] = False,
    context: Context = None,
    namespace: Namespace = None,
    name: Annotated[str | None, typer.Option("--release", help="Name of the Helm release; default: flotilla.",
                                             show_default=False)] = None,
    json: Json = False,
) -> None:
    """Show whether a fleet runs here and how its replicas are, or with --kubernetes how a release stands in a cluster.

    In a cluster: what KubeRay says, its groups, which pods are not ready and why, its models, and what it costs by the
    hour. Exits with 3 when nothing runs.
    """
    if kubernetes:
        there = cluster.connect(context, namespace)
        found = release.read(there, name or "flotilla", lambda file: fleet(file, Changes({})))
        seen = status.view(found, time.time(), app_name)
        as_json(asdict(seen) | {"context": there.context}) if json else show(seen, there.context)
        return
    if context or namespace or name:
        raise ConfigError("--context, --namespace and --release are about a cluster; give --kubernetes, too")
    _here(json)


def show(seen: ReleaseView, context: str) -> None:
    """A release, for people."""
    state = "[green]ready[/]" if seen.ready else "[yellow]not ready[/]"
    console.print(f"{escape(seen.release)} in {escape(context)}, namespace {escape(seen.namespace)}: {state}",
                  highlight=False)
    for condition in seen.conditions:
        if (condition.type == "Ready") != (condition.status == "True") and condition.said:
            console.print(f"  {condition.type}: {condition.status}, {condition.said}", highlight=False, markup=False)
    for one in seen.clusters:
        traffic = f", {one.traffic_percent}% of the traffic" if one.traffic_percent is not None else ""
        console.print(f"  {one.role}: {one.name} {one.state}{traffic}", highlight=False, markup=False)
    for note in seen.notes:
        console.print(f"[yellow]note[/]  {escape(note)}", highlight=False)
    table(["group", "profile", "ready>", "pods>", "least>", "most>", "$/h>"],
          [(g.name, g.profile or DASH, g.ready, g.pods, g.least, g.most,
            "unknown" if g.usd_per_hour is None else dollars(g.usd_per_hour)) for g in seen.groups])
    for reason in dict.fromkeys(g.no_price for g in seen.groups if g.no_price):
        console.print(f"[dim]price unknown: {escape(reason)}[/]", highlight=False)
    if seen.usd_per_hour is not None:
        console.print(f"[dim]{dollars(seen.usd_per_hour)} per hour, with overhead, for what has a node now[/]",
                      highlight=False)
    if seen.models:
        table(["model", "state", "runs on", "replicas", "Ray Serve says"],
              [(m.name, _coloured(m.state), m.group, _bounds(m.least, m.most),
                escape(m.said[-_MOST_SAID:]) if m.state != "RUNNING" else "") for m in seen.models])
    if rows := list(_waiting(seen)):
        table(["pod", "", "why"], rows)


def _waiting(seen: ReleaseView) -> Iterator[tuple[str, str, str]]:
    for pod in status.waiting(seen):
        found = pod.standing
        fix = f"\n[dim]→ {escape(found.fix)}[/]" if found.fix else ""
        yield pod.name, _coloured(found.state), escape(found.why[:_MOST_SAID]) + fix


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else escape(state)


def _bounds(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _here(json: bool) -> None:
    own = settings()
    state = runstate.read(own.state_dir)
    running = state is not None and state.running
    kept = own.database_url or own.ledger_path.exists()
    totals = sums.totals(Ledger.open(own.database), time.time()) if kept else None
    replicas = [r.record for r in totals.replicas if r.alive] if totals else []
    if json:
        as_json({"running": running, "run": asdict(state) if state else None,
                 "replicas": [asdict(r) for r in replicas]})
    elif state is not None and running:
        console.print(f"{state.fleet_name}: {state.state}  API {state.api}/v1  metrics {state.metrics}  "
                      f"logs {state.logs}", highlight=False, soft_wrap=True)
        table(["replica", "model", "variant", "state", "busy s>", "idle s>", "cold s>"],
              [(r.source_id, r.model, r.variant, "ready" if r.ready else "starting", f"{r.busy_ns / 1e9:.1f}",
                f"{r.idle_ns / 1e9:.1f}", f"{r.cold_ns / 1e9:.1f}") for r in replicas])
        report(state)
    if not running:
        raise FleetNotRunning(f"no fleet runs here{f' (the last one: {state.error})' if state and state.error else ''}")
