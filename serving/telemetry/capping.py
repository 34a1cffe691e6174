"""A bound on the values of the label `tenant`: whoever comes after so many is counted together, as `other`.

Whoever has a name keeps it, over restarts of the exporter too, so that no counter goes back or jumps.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from serving.telemetry.exemplars import newer
from serving.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
OTHER = "other"
LABEL = "tenant"
_BOUNDED = frozenset(metric.name.removesuffix("_total") for metric in METRICS if metric.named)


class Tenants:
    """Who is named. `first`: those who have a name before they come, in order. `file`: where names are kept; one that
    cannot be read or written is a warning."""

    def __init__(self, limit: int, first: Iterable[str] = (), file: Path | None = None) -> None:
        self._limit, self._file, self._lock = limit, file, threading.Lock()  # scrapes may overlap
        kept = _read(file)
        self._named = dict.fromkeys(list(dict.fromkeys([*kept, *first]))[:limit])
        if list(self._named) != kept:
            self._keep()

    def name(self, tenant: str) -> str:
        """What a tenant is counted as. The empty one, of no tenant, stays."""
        if not tenant or tenant in self._named:
            return tenant
        with self._lock:
            if tenant in self._named:
                return tenant
            if len(self._named) >= self._limit:
                return OTHER
            self._named[tenant] = None
            self._keep()
        return tenant

    def _keep(self) -> None:
        if self._file is not None:
            new = self._file.with_suffix(".new")
            try:
                new.write_text(json.dumps(list(self._named)), encoding="utf-8")
                new.replace(self._file)
            except OSError as error:
                log.warning("who is named in metrics cannot be kept in %s: %s", self._file, error)


def _read(file: Path | None) -> list[str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else []
        return [name for name in found if isinstance(name, str)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        log.warning("who was named in metrics cannot be read from %s: %s", file, error)
        return []


class Capped:
    """A collector with the label bounded, but for metrics whose tenants the fleet file bounds. Samples that become one
    are added up."""

    def __init__(self, collect: Callable[[], Iterable[Metric]], tenants: Tenants) -> None:
        self._collect, self._tenants = collect, tenants

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known only when they are collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families."""
        for family in self._collect():
            if family.name.removesuffix("_total") not in _BOUNDED and any(
                    LABEL in sample.labels for sample in family.samples):
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
