"""What gateways count by OpenTelemetry's names, pushed to a collector (OTLP over HTTP) by who adds it up.

For those who have a collector and no Prometheus. The counters' files are read every so often by a thread of the
exporter, or of a pod's sidecar, so that no gateway does anything for it. May not happen in here: a wait of anyone else;
names of tenants.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Metric as Told
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import core

from serving.fleet.observing import MetricsSpec
from serving.telemetry.exporter import counted
from serving.telemetry.genai import NAMED, Named

log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_SCOPE = InstrumentationScope("flotilla")
_BEGAN = "pushed-since"  # a file beside the counters, which outlive whoever pushes them
Collect = Callable[[], Iterable[core.Metric]]


class Pusher:
    """Pushes until it is closed. `collect`: the families. `since_ns`: when they began to count, Unix time."""

    def __init__(self, collect: Collect, exporter: MetricExporter, resource: Resource, since_ns: int, every_s: float,
                 now_ns: Callable[[], int] = time.time_ns) -> None:
        self._collect, self._exporter, self._resource = collect, exporter, resource
        self._since_ns, self._every_s, self._now_ns = since_ns, every_s, now_ns
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pusher", daemon=True)

    def start(self) -> Pusher:
        """From now on, every so often."""
        self._thread.start()
        return self

    def close(self, timeout_s: float = 2.0) -> None:
        """Push what has come since, and end; a collector that is away is not waited for any longer than this."""
        self._over.set()
        self._thread.join(timeout_s)

    def push(self) -> bool:
        """Push once. Returns whether there was something, and it arrived. What does not is part of the next push."""
        found = [*metrics(self._collect(), self._since_ns, self._now_ns())]
        if not found:
            return False
        told = MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(_SCOPE, found, "")], "")])
        return self._exporter.export(told) is MetricExportResult.SUCCESS

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(self._every_s)
            try:
                self.push()
            except Exception as error:  # a file that is being written; the next time will tell
                log.warning("metrics cannot be pushed: %s", error)


def metrics(families: Iterable[core.Metric], since_ns: int, now_ns: int) -> Iterator[Told]:
    """Prometheus' families of OpenTelemetry's names, as OpenTelemetry has them: dots, units, counts of single
    buckets."""
    known = {named.metric.name: named for named in NAMED}
    for family in families:
        if (named := known.get(family.name)) is not None:
            points = [*_points(named, family.samples, since_ns, now_ns)]
            if points:
                yield Told(named.name, named.metric.help, named.unit,
                           Histogram(points, AggregationTemporality.CUMULATIVE))


def _points(named: Named, samples: Iterable[core.Sample], since_ns: int, now_ns: int) -> Iterator[HistogramDataPoint]:
    series: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for sample in samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        part = sample.labels.get("le", sample.name.removeprefix(named.metric.name))
        series.setdefault(tuple(labels.items()), {})[part] = sample.value
    for labels, parts in series.items():
        upto = [parts[le] for le in sorted((p for p in parts if p not in ("_sum", "_count")), key=float)]
        each = [int(more - less) for more, less in zip(upto, (0.0, *upto), strict=False)]
        yield HistogramDataPoint(_attributes(named, dict(labels)), since_ns, now_ns, sum(each), parts["_sum"], each,
                                 named.metric.buckets, None, None)  # type: ignore[arg-type]


def _attributes(named: Named, labels: Mapping[str, str]) -> dict[str, str]:
    """Those that say something: an error that was none is left out."""
    return {dotted: labels[label] for dotted, label in zip(named.attributes, named.metric.labels, strict=True)
            if labels[label]}


def pusher(spec: MetricsSpec, fleet: str, counters: Path) -> Pusher | None:
    """What pushes a folder of counters; None where the fleet file has nothing pushed. `fleet`: its name."""
    if spec.push is None:
        return None
    about = Resource.create({"service.name": "flotilla-gateway", "service.namespace": fleet,
                             "service.instance.id": socket.gethostname()})
    return Pusher(counted(str(counters)).collect, otlp(spec.push.url), about, _since_ns(counters / _BEGAN),
                  spec.push.every_s)


def otlp(url: str, timeout_s: float = _TIMEOUT_S) -> MetricExporter:
    """What sends metrics to a collector. `timeout_s`: with all it tries, while it cannot be reached."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=url, timeout=timeout_s)


def _since_ns(file: Path) -> int:
    """When counting began: counters that go on after a start of whoever pushes them did not begin anew."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        now = time.time_ns()
        file.write_text(str(now))
        return now
