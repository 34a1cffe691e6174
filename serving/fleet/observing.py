"""The part of the fleet file about seeing what it does: metrics, traces, logs."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from serving.fleet.config import Strict


class MetricsSpec(Strict):
    """Where Prometheus scrapes."""

    host: str = Field("127.0.0.1", description="Address of the exporter.")
    port: int = Field(9464, ge=1, le=65535, description="Port of the exporter.")
    max_tenants: int = Field(100, ge=1, description="Tenants that metrics name; those who come later are counted "
                                                    "together, as other.")
    gen_ai: bool = Field(False, description="Whether gateways count by OpenTelemetry's names (gen_ai.*) too.")


class TraceSpec(Strict):
    """OpenTelemetry traces: a span for each part of a request. Off without an endpoint."""

    endpoint: str | None = Field(None, description="Where spans go, OTLP over HTTP: http://collector:4318. Left out: "
                                                   "no traces. Headers for it: OTEL_EXPORTER_OTLP_HEADERS of the "
                                                   "environment.")
    sample_ratio: float = Field(0.01, ge=0, le=1, description="Share of requests that are traced. A caller's "
                                                              "traceparent decides for its own request.")
    engines: bool = Field(True, description="Whether engines add their own spans to requests that are traced.")

    @field_validator("endpoint")
    @classmethod
    def _is_a_base(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ValueError(f"{endpoint!r} is no address of a collector: write http://collector:4318 (OTLP over HTTP; "
                             "port 4317 is gRPC's)")
        return endpoint.rstrip("/").removesuffix("/v1/traces")

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
