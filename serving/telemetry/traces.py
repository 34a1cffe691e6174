"""Traces: which requests are traced, and their spans, for an OpenTelemetry collector.

A request that is not traced pays for one decision and nothing else. For one that is, times are noted as it goes, and
spans are made of them when it is over; a thread sends them off. A caller's W3C trace context is continued, and engines
go on from ours. May not happen in here: making a request wait or fail; anything that callers or models say.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from serving.fleet.observing import TraceSpec
from serving.fleet.records import RequestRecord
from serving.telemetry.genai import OPERATIONS, PROVIDER

Headers = tuple[tuple[bytes, bytes], ...]
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_HALF = (1 << 64) - 1
_SEND_EVERY_MS = 1000.0
_TIMEOUT_S = 5.0


class Parent:
    """A caller's trace context (https://www.w3.org/TR/trace-context/)."""

    __slots__ = ("trace_id", "span_id", "sampled", "state")

    def __init__(self, trace_id: int, span_id: int, sampled: bool, state: str) -> None:
        self.trace_id, self.span_id, self.sampled, self.state = trace_id, span_id, sampled, state

    @classmethod
    def read(cls, traceparent: str, tracestate: str = "") -> Parent | None:
        """From the headers; None where they say nothing that counts."""
        found = _PARENT.fullmatch(traceparent.strip())
        if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
            return None
        trace_id, span_id = int(found[2], 16), int(found[3], 16)
        return cls(trace_id, span_id, bool(int(found[4], 16) & 1), tracestate) if trace_id and span_id else None


class Tracer:
    """Decides which requests are traced, and sends their spans off."""

    def __init__(self, spec: TraceSpec, fleet: str, exporter: SpanExporter, bits: Callable[[int], int],
                 clock_ns: Callable[[], int] = time.monotonic_ns, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """`fleet`: its name. `bits`: that many random ones. Clocks: nanoseconds, the second one Unix time."""
        self._bound = round(spec.sample_ratio * (1 << 64))
        self._bits, self._clock_ns, self._wall_ns = bits, clock_ns, wall_ns
        self._resource = Resource.create({"service.name": "flotilla-gateway", "service.namespace": fleet})
        self._scope = InstrumentationScope("flotilla")
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_EVERY_MS)

    def begin(self, method: str, path: str, traceparent: str | None, tracestate: str) -> Spans | None:
        """A request has come. None: it is not traced."""
        parent = Parent.read(traceparent, tracestate) if traceparent else None
        if parent is not None:
            return Spans(self, method, path, parent.trace_id, parent) if parent.sampled else None
        trace_id = self._bits(128)
        # as OpenTelemetry's TraceIdRatioBased, so that all who sample by ratio choose the same traces
        return Spans(self, method, path, trace_id, None) if trace_id & _HALF < self._bound else None

    def close(self) -> None:
        """Send what is left."""
        self._processor.shutdown()


class Spans:
    """The spans of one request: `auth`, `read`, `queue`, `upstream` below one for the whole, and below `upstream`
    those of the answer, `first token` and `stream`."""

    __slots__ = ("_tracer", "_trace_id", "_state", "_parent", "_root", "_about", "_offset_ns", "_began", "_done",
                 "_name", "_since", "_id", "_attributes", "_first")

    def __init__(self, tracer: Tracer, method: str, path: str, trace_id: int, parent: Parent | None) -> None:
        self._tracer, self._trace_id, self._parent = tracer, trace_id, parent
        self._state = TraceState.from_header([parent.state]) if parent and parent.state else None
        self._about = {"http.request.method": method, "url.path": path}
        self._root = self._context(tracer._bits(64))
        self._began = tracer._clock_ns()
        self._offset_ns = tracer._wall_ns() - self._began  # the wall's clock may jump while the request runs
        self._done: list[ReadableSpan] = []
        self._name = ""
        self._since = self._first = 0
        self._id = self._root
        self._attributes: dict[str, Any] = {}

    @property
    def trace_id(self) -> str:
        """The trace's id, as people write it."""
        return f"{self._trace_id:032x}"

    def part(self, name: str) -> None:
        """This part of the request begins, and the one before ends."""
        self._close("another replica was asked" if self._name == "upstream" else "")
        self._name, self._since, self._attributes = name, self._tracer._clock_ns(), {}
        self._id = self._context(self._tracer._bits(64))

    def asked(self, model: str, replica: str) -> Headers:
        """A replica is asked. Returns the headers that let its engine's spans go on from here."""
        self.part("upstream")
        self._attributes = {"gen_ai.response.model": model, "flotilla.replica": replica}
        headers = ((b"traceparent", f"00-{self._trace_id:032x}-{self._id.span_id:016x}-01".encode()),)
        return (*headers, (b"tracestate", self._parent.state.encode("latin-1"))) if self._state else headers

    def first_byte(self) -> None:
        """The answer has begun."""
        self._first = self._tracer._clock_ns()

    def end(self, record: RequestRecord, cost_usd: float | None) -> None:
        """The request is over: send its spans off."""
        failed = record.outcome == "failed"
        self._close(f"{record.outcome}, {record.code}" if failed else "")
        attributes: dict[str, Any] = {
            **self._about, "http.response.status_code": record.code, "flotilla.request_id": record.request_id,
            "flotilla.outcome": record.outcome, "flotilla.tenant": record.tenant, "flotilla.adapter": record.adapter,
            "flotilla.preset": record.preset, "gen_ai.request.model": record.model, "flotilla.cost_usd": cost_usd,
            "gen_ai.operation.name": OPERATIONS.get(record.endpoint, record.endpoint), "gen_ai.provider.name": PROVIDER,
            "error.type": str(record.code) if record.code >= 400 else None,
        }
        if record.tokens is not None:
            attributes |= {"gen_ai.usage.input_tokens": record.tokens.prompt,
                           "gen_ai.usage.output_tokens": record.tokens.completion}
        attributes = {k: v for k, v in attributes.items() if v not in ("", None)}
        above = self._parent and SpanContext(self._trace_id, self._parent.span_id, True, _SAMPLED, self._state)
        self._made(record.endpoint, self._root, above, self._began, self._tracer._clock_ns(), attributes,
                   SpanKind.SERVER, f"{record.outcome}, {record.code}" if failed else "")
        for span in self._done:
            self._tracer._processor.on_end(span)

    def _close(self, failed: str) -> None:
        """End the part under way."""
        if not self._name:
            return
        now, asked = self._tracer._clock_ns(), self._name == "upstream"
        kind = SpanKind.CLIENT if asked else SpanKind.INTERNAL
        self._made(self._name, self._id, self._root, self._since, now, self._attributes, kind, failed)
        if asked and self._first:
            for name, since, until in (("first token", self._since, self._first), ("stream", self._first, now)):
                self._made(name, self._context(self._tracer._bits(64)), self._id, since, until, {}, SpanKind.INTERNAL,
                           failed if name == "stream" else "")
        self._name, self._first = "", 0

    def _context(self, span_id: int) -> SpanContext:
        return SpanContext(self._trace_id, span_id, False, _SAMPLED, self._state)

    def _made(self, name: str, context: SpanContext, parent: SpanContext | None, since: int, until: int,
              attributes: dict[str, Any], kind: SpanKind, failed: str) -> None:
        status = Status(StatusCode.ERROR, failed) if failed else Status()
        self._done.append(ReadableSpan(
            name, context, parent, self._tracer._resource, attributes, kind=kind, status=status,
            start_time=since + self._offset_ns, end_time=until + self._offset_ns,
            instrumentation_scope=self._tracer._scope))


def tracer(spec: TraceSpec, fleet: str) -> Tracer | None:
    """The tracer of a fleet; None where it traces nothing."""
    if spec.url is None:
        return None
    return Tracer(spec, fleet, exporter(spec.url), random.Random().getrandbits)


def exporter(url: str, timeout_s: float = _TIMEOUT_S) -> SpanExporter:
    """What sends spans to a collector. `timeout_s`: with all it tries, while it cannot be reached."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=url, timeout=timeout_s)
