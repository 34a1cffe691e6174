"""The one place that Prometheus scrapes for the fleet's own metrics, and where it learns of the replicas.

`/metrics`: the gateways' files added up, and the ledger's truth. `/targets`: the replicas' addresses in Prometheus'
HTTP service discovery form, for vLLM's own metrics. While the ledger is away, `flotilla_ledger_up` is 0 and what comes
from it is left out: a gap, not a zero. Any other failure is a 503 rather than half the truth.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics

from serving.errors import LedgerError
from serving.telemetry.capping import Capped, Tenants
from serving.telemetry.exemplars import Exemplified
from serving.telemetry.metrics import BY_NAME

log = logging.getLogger(__name__)
_TENANTS = 100
_SLOW_S = 20.0
_LIVE_GAUGE = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


@dataclass(frozen=True)
class Sample:
    """One value of a metric of the table."""

    name: str
    labels: tuple[str, ...]
    value: float


Read = Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class Target:
    """A replica whose own metrics may be scraped."""

    address: str
    model: str
    replica: str


class SampleCollector:
    """Turns samples into metric families of the table. `read`: the ledger's; `local`: what needs no ledger."""

    def __init__(self, read: Read, local: Read = tuple) -> None:
        self._read, self._local = read, local

    def collect(self) -> Iterator[Metric]:
        """One family per name, all of them even when empty; none of the ledger's while it is away."""
        try:
            samples, up = list(self._read()), True
        except LedgerError as error:
            log.warning("the ledger cannot be read: %s", error)
            samples, up = [], False
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric in BY_NAME.values():
            if metric.source == "exporter" or (metric.source == "ledger" and up):
                family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                families[metric.name] = family(metric.name, metric.help, labels=metric.labels)
        for sample in (*samples, *self._local(), Sample("flotilla_ledger_up", (), up)):
            families[sample.name].add_metric(sample.labels, sample.value)
        yield from families.values()


def forget_dead(multiprocess_dir: str) -> None:
    """Drop the gauges of gateways that have died, else their last requests would stay in flight for ever.

    The exporter must see the gateways' process ids: both run in one process-id namespace.
    """
    for file in Path(multiprocess_dir).glob("gauge_live*.db"):
        found = _LIVE_GAUGE.fullmatch(file.name)
        if found and not psutil.pid_exists(int(found[1])):
            mark_process_dead(int(found[1]), multiprocess_dir)


def counted(multiprocess_dir: str) -> Exemplified:
    """What gateways count, added up."""
    return Exemplified(MultiProcessCollector(None, path=multiprocess_dir).collect, Path(multiprocess_dir))


def serve(host: str, port: int, multiprocess_dir: str, read: Read, targets: Callable[[], Iterable[Target]],
          local: Read = tuple, tenants: Tenants | None = None) -> ThreadingHTTPServer:
    """A server, bound and ready for `serve_forever`. Raises: OSError when the port is taken.

    `read`: samples of the ledger, which may raise LedgerError; `local`: samples that are there without it;
    `tenants`: who is named, by default the first 100 that are seen.
    """
    registry, tenants = CollectorRegistry(), tenants or Tenants(_TENANTS)
    registry.register(Capped(counted(multiprocess_dir).collect, tenants))
    registry.register(Capped(SampleCollector(read, local).collect, tenants))
    return _server(host, port, registry, multiprocess_dir, targets)


class _Collected:
    """A function that gives families, as a collector."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known only when they are collected."""
        return ()


def serve_pod(host: str, port: int, multiprocess_dir: str, collect: Callable[[], Iterable[Metric]],
              local: Read = tuple) -> ThreadingHTTPServer:
    """As `serve`, for a pod of a cluster: its gateways' counters, `local` samples of it, and families of `collect`."""

    def own() -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in local():
            metric = BY_NAME[sample.name]
            family = families.setdefault(sample.name, GaugeMetricFamily(metric.name, metric.help, labels=metric.labels))
            family.add_metric(sample.labels, sample.value)
        yield from families.values()

    registry, tenants = CollectorRegistry(), Tenants(_TENANTS, file=Path(multiprocess_dir) / "tenants.json")
    registry.register(Capped(counted(multiprocess_dir).collect, tenants))
    registry.register(_Collected(own))
    registry.register(_Collected(collect))
    return _server(host, port, registry, multiprocess_dir, tuple)


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """As prometheus_client chooses; but its OpenMetrics would write vLLM's names (`vllm:…`) without their colon."""
    encode, kind = choose_encoder(accept)
    if kind.startswith("application/openmetrics-text"):
        return partial(openmetrics.generate_latest, escaping=openmetrics.ALLOWUTF8), openmetrics.CONTENT_TYPE_LATEST
    return encode, kind


def _server(host: str, port: int, registry: CollectorRegistry, multiprocess_dir: str,
            targets: Callable[[], Iterable[Target]]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        """Answers /metrics and /targets."""

        timeout = _SLOW_S  # who neither asks nor reads is cut off

        def do_GET(self) -> None:
            try:
                code, kind, body = self._found(self.path.split("?")[0])
            except Exception as error:
                log.exception("a scrape failed")
                code, kind, body = 503, "text/plain", f"the metrics cannot be read: {error}\n".encode()
            self._answer(code, kind, body)

        def _found(self, path: str) -> tuple[int, str, bytes]:
            if path == "/metrics":
                forget_dead(multiprocess_dir)
                encode, kind = _encoder(self.headers.get("Accept", ""))
                return 200, kind, encode(registry)
            if path == "/targets":
                found = [{"targets": [t.address], "labels": {"model": t.model, "replica": t.replica}}
                         for t in targets()]
                return 200, "application/json", json.dumps(found).encode()
            if path == "/healthz":
                return 200, "text/plain", b"ok\n"
            return 404, "text/plain", b"there are /metrics, /targets and /healthz\n"

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    return server
