"""`flotilla doctor`: what a cluster lacks for a fleet, before anything is installed there. And what its commands share.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli.fleet import load
from serving.cli.output import as_json, console, table
from serving.cli.render import CHART, Over, as_yaml, fleet_values, warn_of_paths
from serving.cli.run import FleetFile, Json
from serving.kubernetes import checks, cluster, facts, helm, rendered
from serving.kubernetes.checks import LEAST_KUBERNETES
from serving.kubernetes.finding import Finding

Context = Annotated[str | None, typer.Option(
    "--context", help="Context of the kubeconfig; default: its current one.", show_default=False)]
Namespace = Annotated[str | None, typer.Option(
    "--namespace", "-n", help="Namespace; default: the context's.", show_default=False)]
Release = Annotated[str, typer.Option(help="Name of the Helm release.")]
Chart = Annotated[Path, typer.Option(help="Flotilla's chart.")]
_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unknown": "dim"}


def doctor(
    file: FleetFile = None,
    over: Over = None,
    context: Context = None,
    namespace: Namespace = None,
    release: Release = "flotilla",
    chart: Chart = CHART,
    registries: Annotated[bool, typer.Option(
        help="Ask the images' registries whether they have them, from here and with the pull secrets of the "
             "cluster.")] = True,
    json: Json = False,
) -> None:
    """Say what a Kubernetes cluster lacks for a fleet: versions, definitions, GPUs, storage, secrets, images, rights,
    quotas.

    Changes nothing there, and pulls nothing. Exits with 1 when something is wrong.
    """
    from serving.kubernetes.registries import Registries  # with its HTTP client, which other commands start without

    path, fleet = load(file)
    warn_of_paths(fleet)
    there = cluster.connect(context, namespace)
    docs = rendered_for(there, release, chart, over, fleet_values(path, fleet))
    seen = facts.gather(there, docs, rendered.secrets(docs), Registries() if registries else None)
    findings = checks.all_checks(seen, docs)
    if json:
        as_json({"context": there.context, "namespace": there.namespace, "findings": [asdict(f) for f in findings]})
    else:
        console.print(f"{there.context}, namespace {there.namespace}, fleet {fleet.name}", highlight=False)
        table(["check", "", "found"], [(f.check, f"[{_COLOURS[f.level]}]{f.level}[/]", _text(f)) for f in findings])
    if any(f.level == "wrong" for f in findings):
        raise typer.Exit(1)


def rendered_for(there: cluster.Cluster, release: str, chart: Path, over: list[Path] | None, values: dict[str, Any]
                 ) -> list[dict[str, Any]]:
    """What the chart would make in this cluster. Raises: ConfigError, FlotillaError, ClusterError."""
    version = max(there.version(), LEAST_KUBERNETES)  # Helm would render nothing for an older one
    said = helm.template(chart, release, there.namespace, over or [], as_yaml(values), there.api_versions(),
                         ".".join(map(str, version)))
    return rendered.parsed(said)


def _text(finding: Finding) -> str:
    from rich.markup import escape

    return escape(finding.said) + (f"\n[dim]→ {escape(finding.fix)}[/]" if finding.fix else "")
