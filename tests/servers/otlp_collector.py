"""An OpenTelemetry collector in this process: takes OTLP over HTTP and keeps spans and metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Seen:
    """A span as it arrived. Ids: hexadecimal; times: Unix seconds; `failed`: what its error says, or None."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    began: float
    ended: float
    attributes: dict[str, Any]
    failed: str | None
    state: str


@dataclass(frozen=True)
class Point:
    """A histogram's point as it arrived. `resource`: of who sent it. Times: Unix nanoseconds."""

    name: str
    unit: str
    temporality: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    since: int
    at: int
    count: int
    sum: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]


class Collector:
    """Listens on a free loopback port until `close`. `points`: of the newest push."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.points: list[Point] = []
        self.pushes = 0
        self.came = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/metrics":
                    owner._take_metrics(ExportMetricsServiceRequest.FromString(body))
                    told = ExportMetricsServiceResponse().SerializeToString()
                else:
                    assert self.path == "/v1/traces", self.path
                    owner._take(ExportTraceServiceRequest.FromString(body))
                    told = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, enough: Callable[[list[Seen]], bool], within_s: float = 10.0) -> list[Seen]:
        """The spans once there are enough of them."""
        with self.came:
            assert self.came.wait_for(lambda: enough(self.spans), within_s), [(s.service, s.name) for s in self.spans]
            return list(self.spans)

    def _take(self, told: ExportTraceServiceRequest) -> None:
        found = []
        for group in told.resource_spans:
            service = next(a.value.string_value for a in group.resource.attributes if a.key == "service.name")
            for scope in group.scope_spans:
                found += [_seen(service, span) for span in scope.spans]
        with self.came:
            self.spans += found
            self.came.notify_all()


    def _take_metrics(self, told: ExportMetricsServiceRequest) -> None:
        found = [_point(metric, point, _attributes(group.resource.attributes)) for group in told.resource_metrics
                 for scope in group.scope_metrics for metric in scope.metrics for point in metric.histogram.data_points]
        with self.came:
            self.points, self.pushes = found, self.pushes + 1
            self.came.notify_all()

    def pushed(self, enough: Callable[[list[Point]], bool], within_s: float = 10.0) -> list[Point]:
        """The newest push that is enough."""
        with self.came:
            assert self.came.wait_for(lambda: self.pushes > 0 and enough(self.points), within_s), self.points
            return list(self.points)


def _attributes(of: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of}


def _point(metric: Any, point: Any, resource: dict[str, Any]) -> Point:
    return Point(metric.name, metric.unit, metric.histogram.aggregation_temporality, _attributes(point.attributes),
                 resource, point.start_time_unix_nano, point.time_unix_nano, point.count, point.sum,
                 tuple(point.explicit_bounds), tuple(point.bucket_counts))


def _seen(service: str, span: Any) -> Seen:
    attributes = _attributes(span.attributes)
    return Seen(service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
                span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9, attributes,
                span.status.message if span.status.code == 2 else None, span.trace_state)
