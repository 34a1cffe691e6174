"""What a cluster's nodes cost: their labels held against the fleet's price book, and what becomes of them over time.

The same rules as those by which a replica is billed (`fleet.accelerators.resolve`), asked for every node beforehand, so
that a node without a price is found before a replica lands on it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from serving.errors import ConfigError
from serving.fleet import nodes
from serving.fleet.accelerators import resolve
from serving.fleet.catalogue import Fleet
from serving.kubernetes import fitting
from serving.kubernetes.watching import Change

Doc = dict[str, Any]


@dataclass(frozen=True)
class NodePrices:
    """One node. `usd_per_hour`: of a device, by the profiles whose price nodes decide; `unknown`: why there is none.

    `instance_type`, `region`, `capacity`: empty where its labels do not say.
    """

    name: str
    instance_type: str = ""
    region: str = ""
    capacity: str = ""
    gpus: int = 0
    usd_per_hour: dict[str, float] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What happened to a node at a moment, Unix seconds. A node that goes has its last prices."""

    at: float
    what: Literal["appears", "changes", "goes"]
    node: NodePrices


def priced(node: Doc, fleet: Fleet, at_s: float) -> NodePrices:
    """A node and its prices at a moment."""
    labels = node["metadata"].get("labels") or {}
    prices: dict[str, float] = {}
    unknown: dict[str, str] = {}
    for name, profile in fleet.accelerators.items():
        if profile.needs_labels:
            try:
                prices[name] = resolve(profile, fleet.accelerator_book, labels).at(at_s) / 1e9
            except ConfigError as error:
                unknown[name] = str(error)
    try:
        facts = nodes.facts(labels)
        said = (facts.instance_type, facts.region or "", facts.capacity)
    except ConfigError:
        said = (next((labels[k] for k in nodes.INSTANCE_TYPE if k in labels), ""),
                next((labels[k] for k in nodes.REGION if k in labels), ""), "")
    return NodePrices(node["metadata"]["name"], *said, int(fitting.allocatable(node)[fitting.GPU]), prices, unknown)


def events(changes: Iterable[Change], fleet: Fleet, clock: Callable[[], float]) -> Iterator[Event]:
    """What changes of nodes mean for their prices; those that mean nothing are left out."""
    known: dict[str, NodePrices] = {}
    for change in changes:
        at = clock()
        node = priced(change.doc, fleet, at)
        before = known.pop(node.name, None)
        if change.what == "DELETED":
            yield Event(at, "goes", before or node)
            continue
        known[node.name] = node
        if before is None:
            yield Event(at, "appears", node)
        elif before != node:
            yield Event(at, "changes", node)
