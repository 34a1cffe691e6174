"""The part of the fleet file about seeing what it does: metrics, traces, logs."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from serving.fleet.config import Strict


def _collector(endpoint: str | None) -> str | None:
    """A collector's address without a path for one kind of data."""
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError(f"{endpoint!r} is no address of a collector: write http://collector:4318 (OTLP over HTTP; "
                         "port 4317 is gRPC's)")
    return endpoint.rstrip("/").removesuffix("/v1/traces").removesuffix("/v1/metrics")


class PushSpec(Strict):
    """Where metrics of OpenTelemetry's names are pushed to."""

    endpoint: str = Field(description="OTLP over HTTP: http://collector:4318. Headers for it: "
                                      "OTEL_EXPORTER_OTLP_HEADERS of the environment.")
    every_s: float = Field(30.0, ge=1, description="Seconds between two pushes.")

    _is_a_base = field_validator("endpoint")(_collector)

    @property
    def url(self) -> str:
        """Where they are sent to."""
        return f"{self.endpoint}/v1/metrics"


class MetricsSpec(Strict):
    """Where Prometheus scrapes."""

    host: str = Field("127.0.0.1", description="Address of the exporter.")
    port: int = Field(9464, ge=1, le=65535, description="Port of the exporter.")
    max_tenants: int = Field(100, ge=1, description="Tenants that metrics name; those who come later are counted "
                                                    "together, as other.")
    gen_ai: bool = Field(False, description="Whether gateways count by OpenTelemetry's names (gen_ai.*) too.")
    push: PushSpec | None = Field(None, description="A collector to which what is counted by OpenTelemetry's names is "
                                                    "pushed, beside being scraped.")

    @model_validator(mode="after")
    def _there_is_something_to_push(self) -> MetricsSpec:
        if self.push is not None and not self.gen_ai:
            raise ValueError("push sends what is counted by OpenTelemetry's names; set gen_ai: true too")
        return self


class TraceSpec(Strict):
    """OpenTelemetry traces: a span for each part of a request. Off without an endpoint."""

    endpoint: str | None = Field(None, description="Where spans go, OTLP over HTTP: http://collector:4318. Left out: "
                                                   "no traces. Headers for it: OTEL_EXPORTER_OTLP_HEADERS of the "
                                                   "environment.")
    sample_ratio: float = Field(0.01, ge=0, le=1, description="Share of requests that are traced. A caller's "
                                                              "traceparent decides for its own request.")
    engines: bool = Field(True, description="Whether engines add their own spans to requests that are traced.")

    _is_a_base = field_validator("endpoint")(_collector)

    @property
    def url(self) -> str | None:
        """Where spans are sent to; None: nowhere."""
        return f"{self.endpoint}/v1/traces" if self.endpoint else None


class LogSpec(Strict):
    """What processes of the fleet write down about themselves, and gateways about requests."""

    form: Literal["human", "json"] = Field("human", description="Lines for people, or one JSON object each.")
    level: Literal["debug", "info", "warning", "error"] = Field("warning", description="The least that is written.")
    burst: int = Field(10, ge=1, description="Lines of one kind that a process writes in 10 s; the rest is counted.")
    access: bool = Field(True, description="Whether each gateway writes a line per request: who, what, how long, cost.")
    access_per_s: int = Field(500, ge=1, description="Most of these lines per second and gateway; the rest is counted, "
                                                     "and all of it is in the ledger.")
    access_mib: float = Field(64.0, ge=1, description="Disk space of one gateway's access log, MiB; older lines go.")
