"""A bound on the values of the label `tenant`: whoever comes after so many is counted together, as `other`.

Whoever has a name keeps it for the exporter's life, so that no counter goes back or jumps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from serving.telemetry.exemplars import newer

OTHER = "other"
LABEL = "tenant"


class Tenants:
    """Who is named. `first`: those who are in any case, in order."""

    def __init__(self, limit: int, first: Iterable[str] = ()) -> None:
        self._limit, self._lock = limit, threading.Lock()  # scrapes may overlap
        self._named = dict.fromkeys(list(first)[:limit])

    def name(self, tenant: str) -> str:
        """What a tenant is counted as. The empty one, of no tenant, stays."""
        if not tenant or tenant in self._named:
            return tenant
        with self._lock:
            if len(self._named) >= self._limit:
                return OTHER
            self._named[tenant] = None
        return tenant


class Capped:
    """A collector with the label bounded. Samples that become one are added up."""

    def __init__(self, collect: Callable[[], Iterable[Metric]], tenants: Tenants) -> None:
        self._collect, self._tenants = collect, tenants

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known only when they are collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families."""
        for family in self._collect():
            if any(LABEL in sample.labels for sample in family.samples):
                family.samples = self._folded(family.samples)
            yield family

    def _folded(self, samples: Iterable[Sample]) -> list[Sample]:
        found: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
        for sample in samples:
            labels = dict(sample.labels)
            if LABEL in labels:
                labels[LABEL] = self._tenants.name(labels[LABEL])
            key = sample.name, tuple(labels.items())
            before = found.get(key)
            if before is not None:
                sample = sample._replace(value=sample.value + before.value,
                                         exemplar=newer(sample.exemplar, before.exemplar))
            found[key] = sample._replace(labels=labels)
        return list(found.values())
