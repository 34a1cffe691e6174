"""How a release stands: what KubeRay says, its groups and pods, its models, and what it costs by the hour. Pure.

The money is that of pods that have a node, at their nodes' prices: what the cluster is paid for now, whether replicas
use it or not. What requests are charged with stands in the ledger (`flotilla cost`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import ConfigError
from serving.fleet.accelerators import resolve
from serving.fleet.catalogue import Fleet
from serving.fleet.resources import profile_resource
from serving.kubernetes import rendered
from serving.kubernetes.pending import Standing, standing
from serving.kubernetes.release import Release

Doc = dict[str, Any]
GROUP, CLUSTER, PART = "ray.io/group", "ray.io/cluster", "flotilla.dev/part"
_HEAD = ("headgroup", "head")


@dataclass(frozen=True)
class Condition:
    """One of the RayService's."""

    type: str
    status: str
    said: str


@dataclass(frozen=True)
class RayClusterView:
    """A Ray cluster behind the service: `active` serves, `pending` is being brought up beside it."""

    name: str
    role: str
    state: str
    traffic_percent: int | None


@dataclass(frozen=True)
class PodView:
    """A pod, and why it is not ready."""

    name: str
    group: str
    cluster: str
    node: str
    standing: Standing


@dataclass(frozen=True)
class GroupView:
    """Pods of one kind. `least`, `most`: how many there may be. `usd_per_hour`: of those that have a node; None where
    the price is not known, and `no_price` says why."""

    name: str
    profile: str
    least: int
    most: int
    ready: int
    pods: int
    usd_per_hour: float | None
    no_price: str = ""


@dataclass(frozen=True)
class ModelView:
    """A model, as Ray Serve says through KubeRay."""

    name: str
    state: str
    said: str
    group: str
    least: int
    most: int


@dataclass(frozen=True)
class ReleaseView:
    """All of it. `ready`: KubeRay says so. `notes`: what could not be seen, and what that means."""

    release: str
    namespace: str
    fleet: str
    ready: bool
    conditions: tuple[Condition, ...]
    clusters: tuple[RayClusterView, ...]
    groups: tuple[GroupView, ...]
    pods: tuple[PodView, ...]
    models: tuple[ModelView, ...]
    usd_per_hour: float | None
    notes: tuple[str, ...]


def view(release: Release, now_s: float, app_name: Callable[[str], str]) -> ReleaseView:
    """How it stands. `now_s`: Unix seconds, for prices that change; `app_name`: of a model's Serve application."""
    service, fleet = release.service, release.fleet
    status = service.get("status") or {}
    pods = tuple(PodView(p["metadata"]["name"], _group_of(p), (p["metadata"].get("labels") or {}).get(CLUSTER, ""),
                         p["spec"].get("nodeName", ""), standing(p, release.events.docs)) for p in release.pods.docs)
    groups = tuple(_groups(release, pods, now_s))
    conditions = tuple(Condition(c["type"], c["status"], c.get("message") or c.get("reason") or "")
                       for c in status.get("conditions") or ())
    overhead = _overhead(fleet, groups) if fleet else 0.0
    prices = [g.usd_per_hour for g in groups]
    total = sum(p for p in prices if p is not None) + overhead if fleet and None not in prices else None
    return ReleaseView(
        release.name, release.namespace, fleet.name if fleet else "",
        any(c.type == "Ready" and c.status == "True" for c in conditions), conditions, tuple(_clusters(status)),
        groups, pods, tuple(_models(status, fleet, app_name)), total, tuple(_notes(release, status)))


def waiting(seen: ReleaseView) -> Iterator[PodView]:
    """Pods that are not as they should be."""
    return (p for p in seen.pods if p.standing.state not in ("ready", "done"))


def _groups(release: Release, pods: tuple[PodView, ...], now_s: float) -> Iterator[GroupView]:
    groups = rendered.groups(release.service)
    labels = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in release.nodes.docs}
    for name, group in groups.items():
        here = [p for p in pods if p.group == name]
        profile = _profile(group, release.fleet)
        least, most = (1, 1) if name == "head" else (
            n * group.get("numOfHosts", 1) for n in (group.get("minReplicas", 0), group.get("maxReplicas", 0)))
        price, why = _price(group, profile, here, release, labels, now_s)
        yield GroupView(name, profile, least, most, _ready(here), len(here), price, why)
    for name in dict.fromkeys(p.group for p in pods if p.group not in groups):
        here = [p for p in pods if p.group == name and p.standing.state != "done"]
        if here:
            yield GroupView(name, "", 0, len(here), _ready(here), len(here), 0.0)


def _price(group: Doc, profile: str, pods: list[PodView], release: Release, labels: Mapping[str, Mapping[str, str]],
           now_s: float) -> tuple[float | None, str]:
    fleet = release.fleet
    if fleet is None:
        return None, release.no_fleet
    if not profile:
        return 0.0, ""
    spec, total = fleet.accelerators[profile], 0
    devices = float(group["resources"][profile_resource(profile)])
    for pod in pods:
        if not pod.node:
            continue
        if spec.needs_labels and pod.node not in labels:
            return None, release.nodes.unknown or f"the node {pod.node} is gone"
        try:
            total += resolve(spec, fleet.accelerator_book, labels.get(pod.node)).at(now_s)
        except ConfigError as error:
            return None, f"{pod.node}: {error}"
    return total * devices / 1e9, ""


def _overhead(fleet: Fleet, groups: tuple[GroupView, ...]) -> float:
    count = {"gateway": sum(g.pods for g in groups if g.name == "gateway"), "head": 1, "storage": 1}
    return sum(fleet.costs.overhead.nanousd_per_hour(role) * n  # type: ignore[arg-type]
               for role, n in count.items()) / 1e9


def _models(status: Doc, fleet: Fleet | None, app_name: Callable[[str], str]) -> Iterator[ModelView]:
    applications: dict[str, Doc] = {}
    for which in ("pendingServiceStatus", "activeServiceStatus"):  # the active one's word counts
        applications |= (status.get(which) or {}).get("applicationStatuses") or {}
    for name, spec in (fleet.models if fleet else {}).items():
        told = applications.get(app_name(name)) or {}
        parts = [d.get("message") for d in (told.get("serveDeploymentStatuses") or {}).values()]
        said = " ".join(" ".join(m.split()) for m in [told.get("message"), *parts] if m)
        yield ModelView(name, told.get("status", "unknown"), said, spec.accelerator, spec.replicas.min,
                        spec.replicas.max)


def _clusters(status: Doc) -> Iterator[RayClusterView]:
    for role in ("active", "pending"):
        told = status.get(f"{role}ServiceStatus") or {}
        if told.get("rayClusterName"):
            yield RayClusterView(told["rayClusterName"], role, (told.get("rayClusterStatus") or {}).get("state", ""),
                                 told.get("trafficRoutedPercent"))


def _notes(release: Release, status: Doc) -> Iterator[str]:
    generation = release.service["metadata"].get("generation")
    if not status:
        yield "KubeRay has said nothing about it yet: does its operator run? `flotilla doctor` says"
    elif generation and status.get("observedGeneration", generation) < generation:
        yield "KubeRay has not taken up the newest change yet"
    if release.pods.unknown:
        yield f"pods: {release.pods.unknown}"
    if release.no_fleet:
        yield f"the fleet that was installed cannot be read, so models and prices are not known: {release.no_fleet}"


def _group_of(pod: Doc) -> str:
    labels = pod["metadata"].get("labels") or {}
    name = labels.get(GROUP) or labels.get(PART, "other")
    return "head" if name in _HEAD else str(name)


def _profile(group: Doc, fleet: Fleet | None) -> str:
    offered = group.get("resources") or {}
    return next((p for p in (fleet.accelerators if fleet else ()) if profile_resource(p) in offered), "")


def _ready(pods: list[PodView]) -> int:
    return sum(1 for p in pods if p.standing.state == "ready")
