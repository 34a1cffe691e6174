"""`flotilla upgrade`: what a fleet file would change in a release, then Helm's upgrade, followed; and back again."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from serving.cli.cluster import Chart, Context, Namespace, Release
from serving.cli.fleet import load
from serving.cli.output import as_json, console
from serving.cli.render import CHART, Over, as_yaml, fleet_values, warn_of_paths
from serving.cli.run import FleetFile, Json
from serving.engines.names import app_name
from serving.errors import ConfigError, StartFailed
from serving.kubernetes import cluster, helm, rendered, status, upgrades
from serving.kubernetes import release as releases
from serving.kubernetes.cluster import Cluster
from serving.kubernetes.status import ReleaseView
from serving.plan import Changes, fleet

_LOOK_S = 2.0
_HELM_FLAGS: list[str] = []  # of tests whose API server has no OpenAPI document
_SIGNS = {"new": "[green]+[/]", "changed": "[yellow]~[/]", "gone": "[red]-[/]"}


def upgrade(
    file: FleetFile = None,
    over: Over = None,
    context: Context = None,
    namespace: Namespace = None,
    release: Release = "flotilla",
    chart: Chart = CHART,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show every field that changes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the revision before, or to --revision.")
                        ] = False,
    revision: Annotated[int | None, typer.Option(help="With --rollback: which one.", min=1, show_default=False)] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until it serves what it should; 0: not at all.", min=0)
                    ] = 1800,
    json: Json = False,
) -> None:
    """Upgrade a release to a fleet file: what changes and what restarts, then Helm's upgrade, followed until it serves.

    Give all of your own values as at the installation: those of before are not kept. Exits with 3 when there is no such
    release, with 4 when it does not serve again in time; it stays as it is then, and --rollback goes back.
    """
    there = cluster.connect(context, namespace)
    releases.find(there, release)
    where = [release, "-n", there.namespace, *(["--kube-context", context] if context else [])]
    if revision and not rollback:
        raise ConfigError("--revision is for --rollback")
    now = rendered.parsed(helm.run(["get", "manifest", *where]))
    if rollback:
        back = str(revision or _before(where))
        wanted, values = rendered.parsed(helm.run(["get", "manifest", *where, "--revision", back])), ""
        command = ["rollback", release, back, *where[1:]]
    else:
        path, found = load(file)
        warn_of_paths(found)
        values = as_yaml(fleet_values(path, found))
        command = ["upgrade", release, str(chart), *where[1:], "--values", "-", *_HELM_FLAGS]
        for own in over or ():
            command += ["--values", str(own)]
        wanted = rendered.parsed(json_module.loads(helm.run([*command, "--dry-run=server", "-o", "json"], values))[
            "manifest"])
    told = upgrades.plan(now, wanted)
    if json and plan:
        as_json(asdict(told))
    elif not json:
        show(told, diff)
    if plan or not told.objects:
        return
    if told.refused:
        raise ConfigError(f"nothing was changed, for Kubernetes would refuse part of it: {'; '.join(told.refused)}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Go on?")):
        raise ConfigError("nothing was changed; say --yes to go on without being asked")
    helm.run(command, values)
    if wait:
        seen = follow(there, release, wait, _quiet if json else _say)
        if json:
            as_json(asdict(told) | {"release": asdict(seen)})


def show(told: upgrades.Plan, diff: bool) -> None:
    """A plan, for people."""
    if not told.objects:
        console.print("nothing changes")
    for one in told.objects:
        console.print(f"{_SIGNS[one.what]} {one.kind}/{one.name}", highlight=False)
        for line in one.lines if diff else ():
            console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
    for effect in told.effects:
        console.print(f"→ {effect}", markup=False, highlight=False)
    for refusal in told.refused:
        console.print(f"✗ {refusal}", markup=False, highlight=False)


def follow(there: Cluster, name: str, seconds: float, say: Callable[[str], None],
           pause: Callable[[float], None] = time.sleep) -> ReleaseView:
    """Tell how it goes until the release serves what it should. Raises: StartFailed when it does not in time."""
    told, deadline = "", time.monotonic() + seconds
    while True:
        found = releases.read(there, name, lambda path: fleet(path, Changes({})))
        seen = status.view(found, time.time(), app_name)
        line = _line(seen)
        if line != told:
            say(line)
            told = line
        if _settled(seen):
            return seen
        if time.monotonic() > deadline:
            raise StartFailed(f"{name} does not serve what it should after {seconds:g} s: {line}. `flotilla status "
                              "--kubernetes` says more; `flotilla upgrade --rollback` goes back")
        pause(_LOOK_S)


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _quiet(line: str) -> None:
    pass


def _settled(seen: ReleaseView) -> bool:
    busy = any(c.type.endswith("InProgress") and c.status == "True" for c in seen.conditions)
    return seen.ready and not busy and not seen.notes and all(m.state == "RUNNING" for m in seen.models)


def _line(seen: ReleaseView) -> str:
    models = [f"{m.name} {m.state}" for m in seen.models if m.state != "RUNNING"]
    pods = [f"{p.name}: {p.standing.why or p.standing.state}" for p in status.waiting(seen)]
    clusters = [f"{c.role} {c.name} {c.traffic_percent}%" for c in seen.clusters if c.traffic_percent is not None]
    parts = ["ready" if seen.ready else "not ready", *clusters, *seen.notes, *models, *pods[:3],
             *([f"and {len(pods) - 3} more pods"] if len(pods) > 3 else [])]
    return f"{time.strftime('%H:%M:%S')}  {'; '.join(parts)}"[:600]


def _before(where: list[str]) -> int:
    """The newest revision before the current one that was installed whole."""
    history: list[dict[str, Any]] = json_module.loads(helm.run(["history", *where, "-o", "json"]))
    good = [h["revision"] for h in history[:-1] if h["status"] in ("superseded", "deployed")]
    if not good:
        raise ConfigError(f"{where[0]} has no revision before {history[-1]['revision']} to go back to")
    return int(max(good))
